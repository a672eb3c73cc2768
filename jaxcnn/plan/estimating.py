"""Figures of a step where no compiler of the chip is at hand: the program as XLA compiles it for one CPU device.

A chip's share of a batch is compiled alone. What XLA fuses on a CPU is not what it fuses on a GPU, and there are no
collectives in it: these are counted from what has to be added up and gathered. So it is an estimate, and says so.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh

from jaxcnn.config import MeshConfig
from jaxcnn.mesh import AXES
from jaxcnn.plan.compiling import StepFigures
from jaxcnn.plan.counting import countable_phase
from jaxcnn.plan.program import Collective
from jaxcnn.plan.subject import Planned, bytes_of_a_chip
from jaxcnn.plan.topology import Place, axes_over
from jaxcnn.runtime import compiler_options

_COUNTED = 8
"""Images that are compiled; all but the state's share grows with their number."""


def mesh_of(place: Place, config: MeshConfig) -> Any:
    """Returns the mesh of a config over chips of which nothing is here, not even a description.

    Raises:
      InputError: the axes are not of so many chips.
    """
    data, fsdp = axes_over(place.name, place.chips, config)
    return AbstractMesh((data, fsdp), AXES)


def estimate_run(planned: Planned, place: Place) -> StepFigures:
    """Returns the estimated figures of one step of a run, a chip."""
    job = planned.job
    config, parts = job.config, job.config.optim.accumulation
    share = config.train.batch_size // parts // place.chips
    small, large = (_counted(planned, count) for count in (_COUNTED, 2 * _COUNTED))
    # Two sizes give what grows with the images and what does not: the optimizer's part, done once a step.
    grown = {name: (large[name] - small[name]) / _COUNTED for name in small}
    fixed = {name: max(0.0, small[name] - _COUNTED * grown[name]) for name in small}
    state = job.state_shapes(planned.phase)
    argument = bytes_of_a_chip((state, planned.source, planned.inputs))
    gradients = bytes_of_a_chip(state.params) if parts > 1 else 0
    collectives = _collectives(state, place.chips, job.mesh.shape["fsdp"], parts)
    return StepFigures(
        flops=fixed["flops"] + parts * share * grown["flops"],
        bytes_accessed=fixed["bytes"] + parts * share * grown["bytes"],
        temp_bytes=round(fixed["temp"] + share * grown["temp"] + gradients),
        argument_bytes=argument,
        output_bytes=bytes_of_a_chip(state),
        alias_bytes=bytes_of_a_chip(state),
        collective_bytes=sum(each.bytes for each in collectives),
        collectives=collectives,
    )


def _counted(planned: Planned, images: int) -> dict[str, float]:
    """Operations, bytes and temporary memory of a step of so many images on one device."""
    job = planned.job
    state = job.phases[planned.phase].state_shapes(job.network)
    given = jax.ShapeDtypeStruct((images, *job.feed.image_shape), job.feed.image_dtype)
    labels = jax.ShapeDtypeStruct((images,), jnp.int32)
    step = countable_phase(planned, images).step
    options = compiler_options(training=True)
    compiled = jax.jit(step, donate_argnums=0, compiler_options=options).lower(state, given, labels).compile()
    cost: Any = compiled.cost_analysis()
    memory: Any = compiled.memory_analysis()
    return {"flops": cost["flops"], "bytes": cost["bytes accessed"], "temp": memory.temp_size_in_bytes}


def _collectives(state: Any, chips: int, fsdp: int, parts: int) -> tuple[Collective, ...]:
    """Gradients are added up over all chips; divided leaves are gathered for the way there and for the way back."""
    if chips == 1:
        return ()
    leaves = jax.tree.leaves(state.params)
    whole = [leaf for leaf in leaves if leaf.sharding.shard_shape(leaf.shape) == leaf.shape]
    divided = [leaf for leaf in leaves if leaf.sharding.shard_shape(leaf.shape) != leaf.shape]
    found = [Collective("all-reduce", chips, parts * len(whole), parts * _size(whole))] if whole else []
    if divided:
        turns, size = parts * len(divided), parts * _size(divided)
        found.append(Collective("all-gather", fsdp, 2 * turns, 2 * size))
        found.append(Collective("reduce-scatter", fsdp, turns, size // fsdp))
        if chips > fsdp:
            found.append(Collective("all-reduce", chips // fsdp, turns, size // fsdp))
    return tuple(found)


def _size(leaves: list[Any]) -> int:
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves)
