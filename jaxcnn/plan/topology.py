"""Where a step is to run: TPU slices, as libtpu describes them without one being here, and GPUs by number."""

import functools
import importlib.util
import math
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxcnn import mesh as meshes
from jaxcnn.config import MeshConfig
from jaxcnn.errors import InputError
from jaxcnn.plan.chips import GIB, Chip, chip_named

_TOPOLOGY = "a generation and the chips along each axis, such as v5e:2x4, v5e:16x16, v4:2x2x4, v5p:2x2x1 or v6e:2x4"
_LONGEST = 16
"""Chips along an axis of the largest slice of v5e and v6e, a pod of 16x16; libtpu describes longer ones too."""
_AVAILABLE = re.compile(r"available HBM \(([\d.]+)([KMGT]?)\)")
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": GIB, "T": 2**40}


@dataclass(frozen=True)
class Place:
    """Chips of one kind, connected.

    Attributes:
      name: as it was given: "v5e:2x4", "a100:8".
      chip: their published figures.
      shape: chips along each axis of a TPU slice; (count,) of GPUs.
    """

    name: str
    chip: Chip
    shape: tuple[int, ...]

    @property
    def chips(self) -> int:
        return math.prod(self.shape)

    @property
    def links(self) -> int:
        """Interconnect ports that the least connected chip uses.

        An axis of a slice is a line, at whose ends a chip has one neighbour, or a ring: of v5e and v6e where it is 16
        long, of v4 and v5p where all axes are multiples of 4 (Google's pages of these).
        """
        if self.chips == 1:
            return 0
        if self.chip.kind == "gpu":
            return self.chip.links
        cubes = all(length % 4 == 0 for length in self.shape)
        rings = [length == 16 if self.chip.links == 4 else cubes for length in self.shape]
        return sum((2 if ring else 1) for length, ring in zip(self.shape, rings, strict=True) if length > 1)

    @property
    def send_bandwidth(self) -> float:
        """Bytes a second that such a chip can send."""
        return self.links * self.chip.link_bandwidth


def place_named(name: str) -> Place:
    """Returns the chips of a name: "v5e:2x4" or "a100:8"; "a100" is one.

    Raises:
      InputError: no such chip, or not a shape.
    """
    kind, _, shape = name.partition(":")
    chip = chip_named(kind)
    if chip.kind == "gpu":
        if not re.fullmatch(r"([1-9]\d*)?", shape):
            raise InputError(f"{name!r}: of GPUs it is a name and their number, such as {chip.name}:8")
        return Place(name, chip, (int(shape or 1),))
    axes = 3 if chip.links == 6 else 2
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)+", shape) or shape.count("x") + 1 != axes:
        example = f"{chip.name}:2x2x1" if axes == 3 else f"{chip.name}:2x4"
        raise InputError(f"topology={name!r}: a slice of {chip.name} has {axes} axes, such as {example}")
    lengths = tuple(map(int, shape.split("x")))
    if axes == 2 and max(lengths) > _LONGEST:
        raise InputError(f"topology={name!r}: a slice of {chip.name} has at most {_LONGEST} chips along an axis")
    return Place(name, chip, lengths)


def described_devices(topology: str) -> list[Any]:
    """Returns the devices of a TPU topology, which need not be here: one a chip.

    Raises:
      InputError: libtpu is not installed, does not know the topology, or is held by another process.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise InputError('compiling for a TPU needs libtpu: pip install -e ".[tpu]"')
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # else it asks a metadata server, which only a TPU machine has
    from jax.experimental import topologies

    # The two cores of a v4 chip are one device for JAX, as on the machines themselves.
    options: dict[str, Any] = {"chip_config_name": "megacore"} if topology.startswith("v4:") else {}
    if re.fullmatch(r"\w+:1x1", topology):  # libtpu takes a host to have four chips; one chip alone has to be said
        options["chips_per_host_bounds"] = [1, 1, 1]
    try:
        with _silent():
            return list(topologies.get_topology_desc(platform="tpu", topology_name=topology, **options).devices)
    except Exception as error:  # JaxRuntimeError or NotImplementedError, by version and cause
        cause = str(error).splitlines()[0] if str(error) else type(error).__name__
        if "lockfile" in cause:
            raise InputError(
                "libtpu is held by another process; wait for it, or set ALLOW_MULTIPLE_LIBTPU_LOAD=1 (safe here: "
                "compiling needs no chip)"
            ) from None
        raise InputError(f"topology={topology!r}: libtpu knows no such; it is {_TOPOLOGY} ({cause})") from None


def topology_mesh(topology: str, config: MeshConfig | None = None) -> Mesh:
    """Returns the mesh of `mesh.py` over the described chips, to compile for.

    Raises:
      InputError: the axes of the config are not of so many chips, or as `described_devices`.
    """
    devices = described_devices(topology)
    return meshes.make_mesh(*axes_over(topology, len(devices), config or MeshConfig()), devices)


def axes_over(name: str, chips: int, config: MeshConfig) -> tuple[int, int]:
    """Returns (data, fsdp) over all chips of a place: those that a run leaves idle are paid for too.

    Raises:
      InputError: the axes are not of so many chips.
    """
    data = config.data or chips // config.fsdp
    if data * config.fsdp != chips:
        told = f"mesh.fsdp={config.fsdp} must divide" if config.data is None else (
            f"mesh.data={config.data} x mesh.fsdp={config.fsdp} is not"
        )  # fmt: skip
        raise InputError(f"{told} the {chips} chip{'s' if chips > 1 else ''} of {name}")
    return data, config.fsdp


def usable_bytes(device: Any) -> int:
    """Returns what XLA may use of the memory of a described chip: less than what is on it.

    It says so where a program does not fit, so it is given one that cannot.
    """
    return _usable_bytes(device.device_kind, _Hidden(device))


class _Hidden:
    """An argument of a cached function that does not count."""

    def __init__(self, value: Any):
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Hidden)

    def __hash__(self) -> int:
        return 0


@functools.cache
def _usable_bytes(kind: str, hidden: _Hidden) -> int:
    everywhere = NamedSharding(Mesh(np.array([hidden.value]), ("x",)), PartitionSpec())
    huge = jax.ShapeDtypeStruct((2**40,), jnp.uint8, sharding=everywhere)
    try:
        jax.jit(lambda x: x + 1).lower(huge).compile()
    except jax.errors.JaxRuntimeError as error:
        if found := _AVAILABLE.search(str(error)):
            return round(float(found[1]) * _UNITS[found[2]])
        raise
    raise AssertionError(f"{kind}: XLA took a tebibyte")


@contextmanager
def _silent() -> Iterator[None]:
    """Keeps what libtpu prints when it is loaded, all of it on machines it is not running on, from the terminal."""
    with tempfile.TemporaryFile() as file:
        held = os.dup(2)
        try:
            os.dup2(file.fileno(), 2)
            yield
        finally:
            os.dup2(held, 2)
            os.close(held)
