"""Devices and where arrays lie on them: one mesh, `data` x `fsdp`; a single device is a mesh of one.

Batches are divided over both axes. The state is whole on each device, but for leaves that a rule over paths divides
over `fsdp` (Rajbhandari et al. 2020, ZeRO, section 5; Xu et al. 2021, GSPMD, section 3.2). The program is the same in
all cases: placements are all that XLA's partitioner is told, and the collectives follow from them.

With several processes each holds the arrays of its own devices. What a process has whole goes onto the mesh by `place`,
what it has its part of by `divide`, and comes back by `to_host`.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxcnn.config_mesh import MeshConfig
from jaxcnn.errors import InputError
from jaxcnn.paths import GlobRule, flatten
from jaxcnn.training.metrics import Sums
from jaxcnn.training.state import TrainState
from jaxcnn.training.step import Step

AXES = ("data", "fsdp")


def make_mesh(data: int | None = None, fsdp: int = 1, devices: Sequence[Any] | None = None) -> Mesh:
    """Returns a mesh [data, fsdp] over the first devices.

    Args:
      data: devices along `data`; none: as many as there are for `fsdp`.
      fsdp: devices along `fsdp`; neighbours, so that they share a host where they can.
      devices: those to take; none: all of all processes.

    Raises:
      InputError: there are fewer devices, they do not divide, or those of some process would be left out.
    """
    # In the order of the processes: then the part of a batch that a process reads is one slice of it.
    if devices is None:
        devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    kind = f"{len(devices)} {devices[0].platform} device(s)"
    if data is None:
        if len(devices) % fsdp:
            raise InputError(f"mesh.fsdp={fsdp} must divide the {kind}; or set mesh.data too")
        data = len(devices) // fsdp
    if data * fsdp > len(devices):
        told = f"mesh.data={data}" + (f" x mesh.fsdp={fsdp}" if fsdp > 1 else "")
        raise InputError(f"{told}: only {kind} are here")
    chosen = devices[: data * fsdp]
    if left_out := {device.process_index for device in devices} - {device.process_index for device in chosen}:
        raise InputError(
            f"mesh.data={data} x mesh.fsdp={fsdp} leaves process {min(left_out)} without a device: use all {kind}"
        )
    return Mesh(np.array(chosen).reshape(data, fsdp), AXES)


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the placement of a whole copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def over_data(mesh: Mesh, axis: int = 0) -> NamedSharding:
    """Returns the placement that divides an axis, the first by default, over all devices."""
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, AXES))


def state_placements(mesh: Mesh, shapes: TrainState, config: MeshConfig) -> TrainState:
    """Returns the placement of each leaf of a state: what `config.shard` matches is divided over `fsdp`.

    Args:
      mesh: the devices.
      shapes: the state, or its shapes.
      config: `shard` and `shard_min`.

    Raises:
      InputError: fsdp is above 1 and a glob matches no parameter.
    """
    everywhere = replicated(mesh)
    fsdp = mesh.shape["fsdp"]
    if fsdp == 1:
        return jax.tree.map(lambda _: everywhere, shapes)
    rule = GlobRule(config.shard)
    params = {**flatten(shapes.params), **flatten(shapes.frozen["params"])}
    rule.check(params, "mesh.shard")
    divided = {path: _spec(leaf.shape, fsdp, config.shard_min) for path, leaf in params.items() if rule.matches(path)}

    def placement(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        # Moments and averages lie in trees like that of the parameters: theirs are the last keys of the path.
        keys = [entry.key for entry in path if isinstance(entry, jax.tree_util.DictKey)]
        names = ("/".join(map(str, keys[first:])) for first in range(len(keys)))
        found = next((name for name in names if name in divided and params[name].shape == leaf.shape), None)
        return everywhere if found is None else NamedSharding(mesh, divided[found])

    return jax.tree_util.tree_map_with_path(placement, shapes)


def placed_step(step: Step, placements: TrainState) -> Step:
    """Returns a step whose new state lies where the old one does.

    In a loop of steps XLA is free to choose for what it carries, and may gather all of it once, before the loop.
    """

    def placed(state: TrainState, images: jax.Array, labels: jax.Array) -> tuple[TrainState, Sums]:
        new, sums = step(state, images, labels)
        moving = jax.lax.with_sharding_constraint(new.replace(frozen=()), placements.replace(frozen=()))
        return moving.replace(frozen=new.frozen), sums

    return placed


def _spec(shape: tuple[int, ...], parts: int, smallest: int) -> PartitionSpec:
    """The longest axis that divides evenly, of equal ones the last: it is that of the outputs, which a gather joins."""
    axes = [axis for axis, length in enumerate(shape) if length % parts == 0]
    if not axes or math.prod(shape) < smallest:
        return PartitionSpec()
    axis = max(axes, key=lambda axis: (shape[axis], axis))
    return PartitionSpec(*[None] * axis, "fsdp")


def replicate(mesh: Mesh, tree: Any) -> Any:
    """Returns the tree with a copy of each leaf on every device."""
    return jax.tree.map(lambda leaf: place(leaf, replicated(mesh)), tree)


def place(leaf: Any, sharding: jax.sharding.Sharding) -> jax.Array:
    """Returns an array that every process has whole, or that is on the mesh already, in a placement."""
    if sharding.is_fully_addressable or _is_global(leaf):
        return jax.device_put(leaf, sharding)
    host = np.asarray(leaf)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])


def place_state(tree: Any, placements: Any) -> Any:
    """Returns a tree, each leaf in the placement at its place in another tree."""
    return jax.tree.map(place, tree, placements)


def divide(mesh: Mesh, tree: Any, batch_size: int, axis: int = 0) -> Any:
    """Returns arrays with the axis of the batch divided over the devices.

    Args:
      mesh: the devices.
      tree: arrays of a batch, which each process has whole; or its own part of it, of `own_part`.
      batch_size: examples of the batch over all processes.
      axis: of the batch in each array.
    """
    sharding = over_data(mesh, axis)

    def divided(leaf: Any) -> jax.Array:
        if sharding.is_fully_addressable or _is_global(leaf):
            return jax.device_put(leaf, sharding)
        shape = (*leaf.shape[:axis], batch_size, *leaf.shape[axis + 1 :])
        return jax.make_array_from_process_local_data(sharding, np.asarray(leaf), shape)

    return jax.tree.map(divided, tree)


def own_part() -> tuple[int, int]:
    """Returns (index, count): which of the equal parts of a batch, in order, this process is to read."""
    return jax.process_index(), jax.process_count()


def to_host(tree: Any) -> Any:
    """Returns the tree in numpy, gathered from all processes where it is divided over them: all have to call this."""
    return jax.tree.map(_fetched, tree)


def _fetched(leaf: Any) -> np.ndarray:
    if _is_global(leaf) and not leaf.is_fully_replicated:
        from jax.experimental import multihost_utils

        return multihost_utils.process_allgather(leaf, tiled=True)
    return np.asarray(leaf)


def _is_global(leaf: Any) -> bool:
    """Whether parts of an array lie on devices of other processes."""
    return isinstance(leaf, jax.Array) and not leaf.is_fully_addressable


def widest_mesh(batch_size: int) -> Mesh:
    """Returns a mesh over as many devices as there are and can share a batch evenly."""
    return make_mesh(max(count for count in range(1, len(jax.devices()) + 1) if batch_size % count == 0))
