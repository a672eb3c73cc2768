"""The machine a run is on: compilation cache, platform, versions. Called by commands, never at import."""

import functools
import importlib.metadata
import logging
import os
import platform
import sys
from pathlib import Path
from typing import Any

PACKAGES = ("jaxcnn", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tensorflow-datasets", "numpy")


def usable_cores() -> list[int]:
    """Returns the numbers of the cores that this process may use."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def data_cache_folder(given: str | None) -> Path:
    """Returns the folder of decoded data and of what is known of them: the one given, or the user's cache folder."""
    from platformdirs import user_cache_path

    return Path(given).expanduser() if given is not None else user_cache_path("jaxcnn")


def cache_folder() -> Path:
    """Returns the folder of compiled programs: JAX_COMPILATION_CACHE_DIR, or `jaxcnn` in the user's cache folder."""
    from platformdirs import user_cache_path

    given = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    return Path(given) if given else user_cache_path("jaxcnn") / "xla"


def enable_compilation_cache() -> Path | None:
    """Turns the persistent compilation cache on and returns its folder; none if that cannot be written."""
    import jax

    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            return None
    except OSError:
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    return folder


@functools.cache
def compiler_options(training: bool = False, deterministic: bool = False) -> dict[str, str | bool]:
    """Returns what networks are compiled with on this machine's backend: `jax.jit(step, compiler_options=...)`.

    On CPU: convolutions by Eigen, on all cores. Left to itself, XLA gives those of more than 16 channels to YNNPACK,
    which runs them on one core (jaxlib 0.10). Matrix products stay with YNNPACK, which runs these on all. So do sums in
    training, where they are many; for inference only single products, since YNNPACK takes with anything else what leads
    to it: with the head the mean over the map and the last convolutions. An XLA without the option gets none.

    In training, what is to be computed anew on the way back (`model.remat`) is kept apart by barriers. XLA takes these
    away on CPU before it merges equal operations, which undoes it: then more memory is needed than without. So that
    pass is left out.

    Args:
      training: whether a gradient goes through the maps. A step that trains the head alone is like inference here: with
        the mean over the map YNNPACK would take the last convolutions, whose outputs no gradient asks for.
      deterministic: on a GPU: no operation that adds in an order of chance, and none that is chosen by measuring which
        is the fastest. A CPU and a TPU have neither.
    """
    import jax

    if jax.default_backend() != "cpu":
        return {"xla_gpu_deterministic_ops": True} if deterministic and jax.default_backend() == "gpu" else {}
    kinds = ("DOT", "REDUCE") if training else ("INDIVIDUAL_DOT",)
    options: dict[str, str | bool] = {
        "xla_cpu_experimental_ynn_fusion_type": ",".join(f"LIBRARY_FUSION_TYPE_{kind}" for kind in kinds)
    }
    options |= {"xla_disable_hlo_passes": "cse_barrier_expander"} if training else {}
    try:
        jax.jit(lambda: 0, compiler_options=options).lower().compile()
    except jax.errors.JaxRuntimeError:
        return {}
    return options


def drawing_options() -> dict[str, str | int]:
    """Returns what the drawing of initial weights is compiled with: on CPU, without most of LLVM's optimisation.

    It runs once, in milliseconds, and is a long program: a kernel, a piece. Of 32 convolutions it is compiled in 2.4 s
    of CPU time instead of 8.5 (jaxlib 0.10), and draws the same bits.
    """
    import jax

    return {"xla_backend_optimization_level": 1} if jax.default_backend() == "cpu" else {}


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages a run depends on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def environment() -> dict[str, Any]:
    """Returns versions, platform, devices and cache folder: what one needs to know to repeat a figure."""
    import jax

    devices = jax.devices()
    return {
        "versions": versions(),
        "platform": platform.platform(),
        "device": devices[0].device_kind,
        "devices": len(devices),
        "processes": jax.process_count(),
        "backend": devices[0].platform,
        "cpu_cores": os.cpu_count(),
        "compilation_cache": str(cache_folder()),
    }


def quiet_libraries() -> None:
    """Keeps the messages of absl, orbax and TFDS out of the user's terminal.

    Errors too: what fails is raised to us, and a full disk would print hundreds of lines from orbax's threads before.
    """
    for name in ("absl", "orbax", "asyncio", "tensorflow_datasets"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


class _StandardError(logging.StreamHandler):
    """Writes to what sys.stderr is at the time of writing, not at the time of its making."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def set_up_logging() -> logging.Logger:
    """Returns the logger of jaxcnn, which writes plain lines to standard error."""
    logger = logging.getLogger("jaxcnn")
    if not logger.handlers:
        handler = _StandardError()
        handler.setFormatter(logging.Formatter("%(message)s"))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
    return logger
