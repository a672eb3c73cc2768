"""A step compiled for chips that are not here, and what the compiler says of it."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxcnn import mesh as meshes
from jaxcnn.config import Preprocessing, TrainConfig
from jaxcnn.errors import InputError
from jaxcnn.job import Job
from jaxcnn.network import build_network
from jaxcnn.phases import make_phases
from jaxcnn.plan.program import Collective, collectives_of, loop_factors
from jaxcnn.plan.topology import topology_mesh
from jaxcnn.training.learning_rates import peak_rate

_TOO_MUCH = re.compile(r"required for HLO temporaries \(([\d.]+)([KMGT]?)\) exceeds available HBM")
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclass(frozen=True)
class StepFigures:
    """What the compiler says of one step, a chip."""

    flops: float
    """Floating-point operations."""
    bytes_accessed: float
    """Bytes that all instructions read and write, those moved to fast memory ahead of use among them."""
    temp_bytes: int
    """Memory besides arguments and outputs: mostly the maps that are kept for the way back."""
    argument_bytes: int
    """The state and the batch."""
    output_bytes: int
    """The new state and the sums; the state takes the place of the old one."""
    alias_bytes: int = 0
    """Those outputs that take the place of arguments."""
    collective_bytes: int = 0
    """Results of the collectives: gradients and batch statistics, added over the chips."""
    collectives: tuple[Collective, ...] = ()
    """The same by kind."""

    @property
    def needed_bytes(self) -> int:
        """Memory that the program needs: what XLA compares with the memory there is."""
        return self.argument_bytes + self.temp_bytes + self.output_bytes - self.alias_bytes


class DoesNotFit(Exception):
    """XLA refused a program for its memory: `needed_bytes` is its figure, of the same parts as `StepFigures`'."""

    def __init__(self, needed_bytes: int):
        super().__init__(needed_bytes)
        self.needed_bytes = needed_bytes


def plan_step(config: TrainConfig, image_shape: tuple[int, int, int], num_classes: int, topology: str) -> StepFigures:
    """Returns the figures of a single training step of a config with all the state on each chip; no data are read.

    Args:
      config: what to train; `train.batch_size` images over all chips.
      image_shape: height, width and channels of the network's input.
      num_classes: outputs of the head.
      topology: the TPUs, such as "v5e:2x4".

    Raises:
      InputError: what does not fit in the config, a batch that the chips cannot share, and as `topology_mesh`.
      DoesNotFit: it does not fit the memory.
    """
    mesh = topology_mesh(topology)
    if config.train.batch_size % mesh.size:
        raise InputError(f"train.batch_size={config.train.batch_size} must be a multiple of the {mesh.size} chips")
    channels = image_shape[2]
    preprocessing = Preprocessing(image_shape, (0.5,) * channels, (0.25,) * channels)
    network = build_network(config, preprocessing, tuple(map(str, range(num_classes))))
    phase = make_phases(config, network, lambda _: peak_rate(config))[-1]  # the one in which most trains
    images = jax.ShapeDtypeStruct((config.train.batch_size, *image_shape), jnp.uint8)
    return figures_of(compile_step(phase.step, phase.state_shapes(network), images, mesh), mesh.size)


def compile_step(step: Callable, state: Any, images: jax.ShapeDtypeStruct, mesh: Mesh) -> jax.stages.Compiled:
    """Returns (state, images, labels) -> ... compiled for a mesh: the batch divided, the state whole and donated."""
    everywhere, divided = meshes.replicated(mesh), meshes.over_data(mesh)
    state = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=everywhere), state)
    batch = jax.ShapeDtypeStruct(images.shape, images.dtype, sharding=divided)
    labels = jax.ShapeDtypeStruct(images.shape[:1], jnp.int32, sharding=divided)
    return _compiled(jax.jit(step, donate_argnums=0, out_shardings=everywhere).lower(state, batch, labels))


def lower_run(job: Job, phase: int, source: Any, inputs: Any) -> jax.stages.Lowered:
    """Returns the program that a run sends to its devices, the chunk of `Job`, ready to be compiled.

    Args:
      job: the run; its mesh may be of described devices.
      phase: which of its phases.
      source, inputs: shapes with placements of what the chunk reads.
    """
    everywhere = meshes.replicated(job.mesh)

    def placed(leaf: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=everywhere)

    out = (job.placements(phase), everywhere, everywhere)
    jitted = jax.jit(job.chunk(phase), donate_argnums=(0, 1), out_shardings=out)
    sums = jax.tree.map(placed, job.zero_sums())
    steps = jax.ShapeDtypeStruct((), jnp.int32, sharding=everywhere)
    return jitted.lower(job.state_shapes(phase), sums, source, inputs, steps)


def compiled_figures(lowered: jax.stages.Lowered, chips: int) -> StepFigures:
    """Returns the figures of a program compiled for so many chips: of one turn of its loop of steps.

    Raises:
      DoesNotFit: it does not fit the memory.
    """
    return figures_of(_compiled(lowered), chips)


def _compiled(lowered: jax.stages.Lowered) -> jax.stages.Compiled:
    try:
        return lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if (needed := needed_bytes(str(error))) is None:
            raise
        raise DoesNotFit(needed) from None


def needed_bytes(message: str) -> int | None:
    """Returns the memory that XLA says a program would need, where that is why it refused it."""
    found = _TOO_MUCH.search(message)
    return None if found is None else round(float(found[1]) * _UNITS[found[2]])


def figures_of(compiled: jax.stages.Compiled, chips: int = 1) -> StepFigures:
    """Returns the figures that a compiled program gives of itself, loops counted as often as they turn."""
    cost, memory = compiled.cost_analysis(), compiled.memory_analysis()
    assert cost is not None
    assert memory is not None
    program = compiled.as_text() or ""
    more_flops, more_bytes = loop_factors(program)
    collectives = collectives_of(program, chips)
    return StepFigures(
        flops=cost["flops"] * more_flops,
        bytes_accessed=cost["bytes accessed"] * more_bytes,
        temp_bytes=memory.temp_size_in_bytes,
        argument_bytes=memory.argument_size_in_bytes,
        output_bytes=memory.output_size_in_bytes,
        alias_bytes=memory.alias_size_in_bytes,
        collective_bytes=sum(each.bytes for each in collectives),
        collectives=collectives,
    )
