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


def widest_mesh(batch_size: int) -> Mesh:
    """Returns a mesh over as many devices as there are and can share a batch evenly."""
    return make_mesh(max(count for count in range(1, len(jax.devices()) + 1) if batch_size % count == 0))
