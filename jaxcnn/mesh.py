"""Devices and where arrays lie on them: one mesh with a `data` axis; a single device is a mesh of one."""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxcnn.errors import InputError


def make_mesh(devices: int | None = None) -> Mesh:
    """Returns a mesh over the first `devices` devices, all by default.

    Raises:
      InputError: there are fewer devices.
    """
    available = jax.devices()
    if devices is not None and devices > len(available):
        raise InputError(f"mesh.devices={devices}: only {len(available)} {available[0].platform} device(s) are here")
    return Mesh(np.array(available[:devices]), ("data",))


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the placement of a whole copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def over_data(mesh: Mesh) -> NamedSharding:
    """Returns the placement that divides the first axis over the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def replicate(mesh: Mesh, tree: Any) -> Any:
    """Returns the tree with a copy of each leaf on every device."""
    return jax.device_put(tree, replicated(mesh))


def check_divides(mesh: Mesh, **sizes: int) -> None:
    """Raises InputError where a batch cannot be divided evenly over the devices."""
    for name, size in sizes.items():
        if size % mesh.size:
            field = name.replace("__", ".")
            raise InputError(f"{field}={size} must be a multiple of the {mesh.size} devices of the mesh")
