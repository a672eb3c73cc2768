"""A run as StableHLO in the form of `jax.export`: one file for several platforms."""

from collections.abc import Sequence
from typing import Any

import jax

from jaxcnn.errors import InputError, did_you_mean
from jaxcnn.export.serving import Served

_KNOWN = ("cpu", "cuda", "rocm", "tpu")


def check_platforms(platforms: Sequence[str]) -> None:
    """Raises InputError for a platform that there is not, one given twice, or none that can be checked here."""
    for name in platforms:
        if name not in _KNOWN:
            raise InputError(f"--platforms: no platform {name!r}; {did_you_mean(name, _KNOWN)}")
    if len(set(platforms)) < len(platforms):
        raise InputError(f"--platforms {','.join(platforms)}: name each once")
    if "cpu" not in platforms:
        raise InputError(f"--platforms {','.join(platforms)}: cpu must be among them, since there the file is checked")


def check_installed() -> None:
    """Raises InputError where flatbuffers, which jax needs to write an exported program, is not installed."""
    try:
        import flatbuffers  # noqa: F401
    except ImportError:
        raise InputError('--format stablehlo needs flatbuffers: pip install -e ".[export]"') from None


def to_stablehlo(of: Served, platforms: Sequence[str]) -> tuple[bytes, dict[str, Any]]:
    """Returns the file's content, for `jax.export.deserialize`, and what is to be told of its form."""
    exported = jax.export.export(jax.jit(of.function), platforms=platforms)(of.images)
    told = {
        "format": "stablehlo",
        "loaded_by": "jax.export.deserialize",
        "platforms": list(exported.platforms),
        "calling_convention_version": exported.calling_convention_version,
    }
    return bytes(exported.serialize()), told
