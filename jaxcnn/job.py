"""A training run, built: what `build.py` makes of a config, and all that training, checks and plans work on."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxcnn import mesh as meshes
from jaxcnn.config import TrainConfig
from jaxcnn.data.feed import Batches, Feed
from jaxcnn.errors import InputError
from jaxcnn.evaluation import Measured
from jaxcnn.inputs import Inputs
from jaxcnn.network import Network
from jaxcnn.phases import Phase
from jaxcnn.runtime import compiler_options
from jaxcnn.training.metrics import Sums
from jaxcnn.training.partition import trains_backbone
from jaxcnn.training.state import TrainState
from jaxcnn.training.step import make_chunk


@dataclass(frozen=True)
class Job:
    """A training run, built: all that the loop needs and nothing that changes."""

    config: TrainConfig
    network: Network
    mesh: Mesh
    feed: Feed
    """What training reads, as arguments of the chunk."""
    measured: Measured
    """What is measured on the splits: the network, or what goes on from its kept features."""
    start: str | None
    """The point of the network whose output is kept and read in the place of images; none: images are read."""
    splits: dict[str, Batches]
    """The splits to measure on: validation and, if there is one, test."""
    clean: Batches | None
    """Training examples that are measured as the splits are, without augmentation."""
    inputs: Inputs
    """The data as they were read."""
    schedule: Callable
    steps_per_epoch: float
    total_steps: int
    phases: tuple[Phase, ...]
    """Steps in which the same leaves train, in order."""
    phases_of: Callable[..., tuple[Phase, ...]]
    """(another config, start, schedule of the run's) -> its phases on the same data: for `receipt.py`, `tuning/`."""
    initial_state: Callable[[], TrainState]
    zero_sums: Callable[[], Sums]

    @property
    def num_train(self) -> int:
        """Examples of the training split."""
        return self.inputs.num_train

    def step_of(self, epoch: float) -> int:
        """Returns the step after which so many epochs are complete."""
        return min(steps_of(epoch, self.steps_per_epoch), self.total_steps)

    def examples_of(self, step: int) -> list[str]:
        """Returns what the training examples of the step that follows `step` others are called."""
        places = np.asarray(self.feed.order(step, 1))[0] % self.num_train  # of several views, which follow each other
        return [self.inputs.where(int(place)) for place in places]

    def phase_at(self, step: int) -> int:
        """Returns the phase, by its place, of the step that follows `step` others."""
        return sum(self.step_of(phase.epoch) <= step for phase in self.phases[1:])

    def chunk(self, phase: int) -> Callable:
        """Returns (state, sums, source, inputs, num_steps) -> (state, sums, progress), not jitted; see `make_chunk`."""
        step = self.phases[phase].step
        if self.mesh.shape["fsdp"] > 1:
            step = meshes.placed_step(step, self.placements(phase))
        return make_chunk(step, self.take)

    def take(self, source: Any, item: Any) -> Any:
        """The batch of one step, divided over the devices."""
        return jax.lax.with_sharding_constraint(self.feed.take(source, item), meshes.over_data(self.mesh))

    def state_shapes(self, phase: int) -> TrainState:
        """Returns the state of a phase as shapes with placements: what a checkpoint is restored into."""
        shapes = self.phases[phase].state_shapes(self.network)
        return jax.tree.map(
            lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
            shapes,
            self.placements(phase),
        )

    def placements(self, phase: int) -> TrainState:
        """Returns where each leaf of the state of a phase lies."""
        return meshes.state_placements(self.mesh, self.phases[phase].state_shapes(self.network), self.config.mesh)

    def go_on(self, state: TrainState, phase: int) -> TrainState:
        """Returns the state after the last step before a phase in the form and the places of that phase."""
        return meshes.place_state(self.phases[phase].go_on(state), self.placements(phase))

    def compile_chunk(self, state: TrainState, sums: Sums, phase: int = 0, inputs: Any = None) -> Callable:
        """Returns the compiled chunk of a phase; ahead of time, so that nothing can compile again during it.

        `inputs` are of the form that the feed gives; none: they are asked of it.
        """
        everywhere = meshes.replicated(self.mesh)
        jitted = jax.jit(
            self.chunk(phase),
            donate_argnums=(0, 1),
            out_shardings=(self.placements(phase), everywhere, everywhere),
            compiler_options=self._compiler_options(state),
        )
        if inputs is None:
            inputs = self.feed.inputs(int(state.step), 1)
        return jitted.lower(state, sums, self.feed.source, inputs, np.int32(0)).compile()

    def _compiler_options(self, state: TrainState) -> Any:
        return compiler_options(trains_backbone(state.params), self.config.train.deterministic)

    def compile_look(self, state: TrainState, inputs: Any, phase: int = 0) -> Callable:
        """Returns the compiled (state, source, inputs) -> figures of the first step of `inputs`; nothing is donated."""

        def look(state: TrainState, source: Any, inputs: Any) -> dict[str, Any]:
            batch = self.take(source, jax.tree.map(lambda leaf: leaf[0], inputs))
            return self.phases[phase].look(state, batch.images, batch.labels)

        everywhere = meshes.replicated(self.mesh)
        jitted = jax.jit(look, out_shardings=everywhere, compiler_options=self._compiler_options(state))
        return jitted.lower(state, self.feed.source, inputs).compile()


def steps_of(epochs: float, steps_per_epoch: float) -> int:
    """Steps after which so many epochs are complete; at least one."""
    return max(1, math.ceil(epochs * steps_per_epoch - 1e-9))


def check_batches(
    config: TrainConfig, num_train: int, devices: int, called: str = "the training split", device: str = "device"
) -> None:
    """Raises InputError for batches that do not fit the data, their parts or the devices.

    Args:
      config: of the run.
      num_train: examples that it trains on.
      devices: how many there are.
      called, device: how the training split, and one of the devices, are called.
    """
    size, parts, virtual = config.train.batch_size, config.optim.accumulation, config.model.virtual_batch_size
    if size > num_train:
        raise InputError(f"train.batch_size={size} is larger than {called} ({num_train} examples)")
    if size % parts:
        raise InputError(f"optim.accumulation={parts} must divide train.batch_size={size}")
    if config.train.class_weights != "none" and config.data.sampling == "balanced":
        raise InputError(
            f"train.class_weights={config.train.class_weights!r} and data.sampling='balanced' would correct the same "
            "imbalance twice: choose one"
        )
    if virtual is not None and config.mesh.batch_norm == "device":
        raise InputError(f"mesh.batch_norm='device' and model.virtual_batch_size={virtual}: choose one")
    told = f"train.batch_size={size}{f' (in {parts} parts)' if parts > 1 else ''}"
    if virtual is not None and (size // parts) % virtual:
        each = f", and each of its {parts} parts" if parts > 1 else ""
        raise InputError(f"model.virtual_batch_size={virtual} must divide train.batch_size={size}{each}")
    if (size // parts) % devices or config.evaluation.batch_size % devices:
        raise InputError(
            f"{told} and evaluation.batch_size={config.evaluation.batch_size} must be multiples of the {devices} "
            f"{device}s"
        )


def check_steps(phases: tuple[Phase, ...], steps_per_epoch: float, total_steps: int) -> None:
    """Raises InputError for a phase that ends where it begins."""
    begins = [0, *(steps_of(phase.epoch, steps_per_epoch) for phase in phases[1:]), total_steps]
    for place, (phase, next_begin) in enumerate(zip(phases, begins[1:], strict=True)):
        if next_begin <= begins[place]:
            raise InputError(
                f"unfreeze: the phase from epoch {phase.epoch:g} has no step before the next or the end of the run "
                f"(an epoch has {steps_per_epoch:g} steps)"
            )
