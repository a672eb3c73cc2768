"""JAX's distributed runtime, joined so that it does not end the process. What is private in JAX is used here alone."""

import contextlib
import importlib.util
import os
import re
import socket
import sys
import threading
import time
from dataclasses import dataclass
from typing import Any

from jaxcnn.errors import InputError, RunFailed
from jaxcnn.processes.rendezvous import Place, check_address

_NEVER = 7 * 24 * 3600
"""Seconds of silence after which JAX's service would abort all processes, without naming the one that is silent."""


_BY_FLAGS = "say it yourself: --coordinator HOST:PORT --num-processes N --process-id I"


@dataclass(frozen=True)
class Found:
    """Where a process belongs, and which of its host's devices are its own (all if none)."""

    place: Place
    local_devices: tuple[int, ...] | None = None


def detect(coordinator: str | None, num_processes: int | None, index: int | None) -> Found:
    """Returns what SLURM, Open MPI, Kubernetes or a TPU pod say of this process, by JAX's own detection.

    Raises:
      InputError: none of them is here, or they do not say enough.
    """
    from jax._src import clusters

    coordinator = coordinator or os.environ.get("JAX_COORDINATOR_ADDRESS")
    if "KUBERNETES_SERVICE_HOST" in os.environ and importlib.util.find_spec("kubernetes") is None:
        raise InputError(f'--distributed: to ask Kubernetes needs: pip install "jax[k8s]"; or {_BY_FLAGS}')
    try:
        found = clusters.ClusterEnv.auto_detect_unset_distributed_params(
            coordinator, num_processes, index, _devices_by_environment(), None, 300
        )
    except Exception as error:  # whatever a cluster's own tools raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"--distributed: the cluster could not be asked: {reason}") from None
    coordinator, num_processes, index, devices = found
    if coordinator is None or num_processes is None or index is None:
        raise InputError(
            "--distributed: neither SLURM (srun), Open MPI (mpirun), Kubernetes nor a TPU pod is found here; "
            f"{_BY_FLAGS}"
        )
    check_address(coordinator, "the cluster's coordinator")
    if devices is not None and _devices_by_environment() is None and _alone_on_its_host():
        devices = None
    return Found(Place(coordinator, num_processes, index), None if devices is None else tuple(devices))


def _devices_by_environment() -> list[int] | None:
    given = os.environ.get("JAX_LOCAL_DEVICE_IDS")
    return [int(number) for number in given.split(",")] if given else None


def _alone_on_its_host() -> bool:
    """Whether there is one task a host, which then has all of its GPUs: JAX by itself would give it the first alone."""
    slurm = os.environ.get("SLURM_STEP_TASKS_PER_NODE", "")
    return re.fullmatch(r"1(\(x\d+\))?", slurm) is not None or os.environ.get("OMPI_COMM_WORLD_LOCAL_SIZE") == "1"


def join(found: Found, runtime_port: int, timeout: float) -> None:
    """Initialises JAX's distributed runtime, whose service the first process hosts on `runtime_port`.

    The other processes reach it through a tunnel of their own: jaxlib aborts a process whose connection to the service
    breaks, whereas a tunnel stays open on this side until the process has said why it ends.
    """
    import jax
    from jax._src import distributed

    place = found.place
    with contextlib.suppress(AttributeError):  # it installs a handler of SIGTERM of its own, in C++
        jax.config.update("jax_enable_preemption_service", False)
    port = runtime_port
    if place.index > 0:
        _wait_for_port(place.host, runtime_port, timeout)
        port = _tunnel(place.host, runtime_port)
    jax.distributed.initialize(
        f"127.0.0.1:{port}",
        place.num_processes,
        place.index,
        local_device_ids=None if found.local_devices is None else list(found.local_devices),
        cluster_detection_method="deactivate",
        initialization_timeout=int(timeout),
        heartbeat_timeout_seconds=_NEVER,
        shutdown_timeout_seconds=20,
        coordinator_bind_address=f"[::]:{runtime_port}" if socket.has_ipv6 else f"0.0.0.0:{runtime_port}",
    )
    with contextlib.suppress(AttributeError):
        distributed.global_state.coordinator_address = place.address
    _keep_standard_output()


def _keep_standard_output() -> None:
    """Leaves standard output to Python: gloo and NCCL print to it too, in the midst of what `--json` prints.

    What they print goes to standard error.
    """
    sys.stdout.flush()
    own = os.dup(1)
    os.dup2(2, 1)
    sys.stdout = os.fdopen(own, "w", buffering=1, encoding=sys.stdout.encoding, errors=sys.stdout.errors)


def part() -> None:
    """Leaves the runtime, after all processes have agreed to."""
    import jax

    with contextlib.suppress(Exception):  # all that is left to do is to end
        jax.distributed.shutdown()


_LOST = re.compile(r"(UNKNOWN|INTERNAL|ABORTED|UNAVAILABLE|DEADLINE_EXCEEDED|CANCELLED|DATA_LOSS):|[Gg]loo|NCCL")


def is_of_a_collective(error: BaseException) -> bool:
    """Whether an error, or one that it came of, reads as if another process were lost.

    By its words: XLA raises a collective's error as JaxRuntimeError where the result is awaited, and as ValueError
    where the next step is sent off.
    """
    while not _LOST.search(str(error)):
        if (error_before := error.__cause__ or error.__context__) is None:
            return False
        error = error_before
    return True


def _wait_for_port(host: str, port: int, timeout: float) -> None:
    """Raises RunFailed where JAX's service cannot be reached: jaxlib itself would abort."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            return socket.create_connection((host, port), timeout=10.0).close()
        except OSError as error:
            if time.monotonic() > deadline:
                raise RunFailed(
                    f"port {port} of {host}, where JAX's service listens, cannot be reached: {error}; processes need "
                    "all ports between their hosts open, since collectives choose theirs freely too"
                ) from None
        time.sleep(0.1)


def _tunnel(host: str, port: int) -> int:
    """Returns a local port from which all that comes is passed on to host:port, and back."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            near = server.accept()[0]
            try:
                far = socket.create_connection((host, port), timeout=30.0)
            except OSError:
                near.close()  # the client tries again, as it does where the service is not up yet
                continue
            far.settimeout(None)
            for one, other in ((near, far), (far, near)):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=_pass_on, args=(one, other), daemon=True).start()
            _KEPT.extend((near, far))

    threading.Thread(target=serve, daemon=True).start()
    return server.getsockname()[1]


_KEPT: list[Any] = []
"""Sockets that nothing but the end of the process closes: closing one is what the tunnel is there to hide."""


def _pass_on(one: socket.socket, other: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := one.recv(1 << 16):
            other.sendall(data)
