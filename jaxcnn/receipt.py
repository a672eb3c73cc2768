"""What a run pays for and what freezing saves it: told before its first step."""

import dataclasses
import logging
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxcnn import mesh as meshes
from jaxcnn.config import TrainConfig
from jaxcnn.data.loader import Arrays
from jaxcnn.inputs import batches_over_data
from jaxcnn.job import Job
from jaxcnn.network import Network
from jaxcnn.phases import Phase
from jaxcnn.runtime import compiler_options
from jaxcnn.training.partition import trains_backbone
from jaxcnn.training.step import make_chunk, zero_sums

LOG = logging.getLogger("jaxcnn")
_TURNS = 3  # of each program, in rotation, where steps are measured


@dataclass(frozen=True)
class Tree:
    """Leaves, numbers and bytes of a part of the state."""

    leaves: int
    numbers: int
    bytes: int


@dataclass(frozen=True)
class Receipt:
    """The cost of a step in one phase of a run.

    Attributes:
      epoch: where the phase begins.
      trainable, frozen: parameters.
      moving_statistics, frozen_statistics: running statistics of batch norms.
      optimizer: moments and counts.
      flops: floating-point operations of a step, by XLA's count of the lowered program; that of the network without
        our own forms of convolutions, whose loops XLA counts once. None: not asked for.
      full_flops: of the same step with nothing frozen or cached.
      memory: with "full": temporary bytes of the compiled program; full_memory: with nothing frozen.
      step_seconds, full_step_seconds: with "full": median of a few steps, measured in rotation.
    """

    epoch: float
    trainable: Tree
    frozen: Tree
    moving_statistics: Tree
    frozen_statistics: Tree
    optimizer: Tree
    flops: float | None = None
    full_flops: float | None = None
    memory: int | None = None
    full_memory: int | None = None
    step_seconds: float | None = None
    full_step_seconds: float | None = None

    def lines(self) -> list[str]:
        """Returns what a person is told."""
        total = self.trainable.numbers + self.frozen.numbers
        still, moving = self.frozen_statistics.leaves, self.moving_statistics.leaves
        told = f"{still} of {still + moving} statistics do not move; " if still + moving else ""
        lines = [
            f"receipt from epoch {self.epoch:g}: {self.trainable.leaves} leaves train, {_bytes(self.trainable.bytes)} "
            f"({100 * self.trainable.numbers / total:.3g} %); {self.frozen.leaves} are frozen, "
            f"{_bytes(self.frozen.bytes)}; {told}"
            f"optimizer {_bytes(self.optimizer.bytes)}"
        ]
        if self.flops is not None and self.full_flops:
            lines.append(
                f"  a step: {_flops(self.flops)}, full fine-tuning {_flops(self.full_flops)}"
                f" ({self.full_flops / self.flops:.3g} times as many)"
            )
        if self.memory is not None and self.full_memory is not None:
            lines.append(f"  temporary memory: {_bytes(self.memory)}, full fine-tuning {_bytes(self.full_memory)}")
        if self.step_seconds is not None and self.full_step_seconds is not None:
            ratio = self.full_step_seconds / self.step_seconds
            lines.append(
                f"  measured: {1e3 * self.step_seconds:.4g} ms a step, full fine-tuning "
                f"{1e3 * self.full_step_seconds:.4g} ms ({ratio:.3g} times as long)"
            )
        return lines


def receipts_of(job: Job, detail: str = "auto") -> list[Receipt]:
    """Returns the receipt of each phase of a run.

    Args:
      job: the run.
      detail: "leaves": sizes only; "auto": the operations too, where something is frozen or starts from weights;
        "full": besides, compiled memory and the measured time of a step, which compiles a program a phase and that of
        full fine-tuning; where the latter does not fit the memory, these stay none.
    """
    receipts = [_sizes(job, phase) for phase in job.phases]
    if detail == "full" or (detail == "auto" and (job.config.freeze or job.config.init_from)):
        *flops, full = [program.flops() for program in _programs(job, countable=True)]
        pairs = zip(receipts, flops, strict=True)
        receipts = [dataclasses.replace(receipt, flops=own, full_flops=full) for receipt, own in pairs]
    return _measured(job, receipts) if detail == "full" else receipts


@dataclass(frozen=True)
class _Program:
    """A step of a run, or of the same with nothing frozen or cached, and what it is given."""

    phase: Phase
    network: Network
    images: jax.ShapeDtypeStruct
    mesh: Mesh
    config: TrainConfig

    @property
    def labels(self) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(self.images.shape[:1], jnp.int32)

    def flops(self) -> float:
        """Operations of a step, by XLA's count of the lowered program."""
        state = self.phase.state_shapes(self.network)
        cost: Any = jax.jit(self.phase.step).lower(state, self.images, self.labels).cost_analysis()
        return float(cost["flops"])

    def compiled(self) -> tuple[int, Callable[[], float]]:
        """Temporary bytes of the program of a run, and a function that does one step of it and returns the seconds."""
        state, sums, batches = jax.tree.map(
            lambda leaf: jnp.zeros(leaf.shape, leaf.dtype),
            (
                self.phase.state_shapes(self.network),
                zero_sums(self.phase.step, self.phase.state_shapes(self.network), self.images, self.labels),
                [jax.ShapeDtypeStruct((2, *each.shape), each.dtype) for each in (self.images, self.labels)],
            ),
        )
        placements, everywhere = (
            meshes.state_placements(self.mesh, state, self.config.mesh),
            meshes.replicated(self.mesh),
        )
        state, sums = meshes.place_state(state, placements), meshes.replicate(self.mesh, sums)
        batches = batches_over_data(self.mesh)(batches, len(batches[1][0]))
        step = meshes.placed_step(self.phase.step, placements)
        chunk = make_chunk(step, lambda source, batch: Arrays(*batch))
        options = compiler_options(trains_backbone(state.params), self.config.train.deterministic)
        out = (placements, everywhere, everywhere)
        jitted = jax.jit(chunk, donate_argnums=(0, 1), out_shardings=out, compiler_options=options)
        compiled = jitted.lower(state, sums, (), batches, np.int32(1)).compile()
        held = [state, sums]

        def turn() -> float:
            began = time.perf_counter()
            held[0], held[1], _ = compiled(held[0], held[1], (), batches, np.int32(1))
            jax.block_until_ready(held)
            return time.perf_counter() - began

        memory: Any = compiled.memory_analysis()
        return int(memory.temp_size_in_bytes), turn


def _programs(job: Job, *, countable: bool) -> list[_Program]:
    """The program of each phase, then that of full fine-tuning on images.

    A countable one has JAX's own convolutions: XLA counts the loops in ours as one turn.
    """
    config = job.config
    if countable:
        model = dataclasses.replace(config.model, plain=True, scan_blocks=False)
        optim = dataclasses.replace(config.optim, accumulation=1)
        config = dataclasses.replace(config, model=model, optim=optim)
    full = dataclasses.replace(config, freeze=(), unfreeze=())
    (whole,) = job.phases_of(full, None)
    size = config.train.batch_size
    given = jax.ShapeDtypeStruct((size, *job.feed.image_shape), job.feed.image_dtype)
    images = jax.ShapeDtypeStruct((size, *job.network.preprocessing.image_shape), jnp.uint8)
    programs = [(phase, given) for phase in job.phases_of(config, job.start)]
    programs.append((whole, given if job.start is None else images))
    return [_Program(phase, job.network, images, job.mesh, config) for phase, images in programs]


def _measured(job: Job, receipts: list[Receipt]) -> list[Receipt]:
    """The receipts with compiled memory and the time of a step: the median of a few, programs in rotation."""
    try:
        built = [program.compiled() for program in _programs(job, countable=False)]
        for _, turn in built:
            turn()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        LOG.warning("warning: full fine-tuning does not fit the memory, so its step is not measured")
        return receipts
    turns = [[turn() for _, turn in built] for _ in range(_TURNS)]
    seconds = [statistics.median(times) for times in zip(*turns, strict=True)]
    memory = [temporary for temporary, _ in built]
    return [
        dataclasses.replace(
            receipt,
            memory=memory[index],
            full_memory=memory[-1],
            step_seconds=seconds[index],
            full_step_seconds=seconds[-1],
        )
        for index, receipt in enumerate(receipts)
    ]


def _sizes(job: Job, phase: Phase) -> Receipt:
    state = phase.state_shapes(job.network)
    return Receipt(
        phase.epoch,
        _tree(state.params),
        _tree(state.frozen["params"]),
        _tree(state.batch_stats),
        _tree(state.frozen["batch_stats"]),
        _tree(state.opt_state),
    )


def _tree(tree: Any) -> Tree:
    leaves = jax.tree.leaves(tree)
    sizes = [int(np.prod(leaf.shape)) for leaf in leaves]
    return Tree(len(leaves), sum(sizes), sum(n * leaf.dtype.itemsize for n, leaf in zip(sizes, leaves, strict=True)))


def _bytes(count: float) -> str:
    """In decimal units, as disks and papers have them."""
    return _short(count, ("B", "kB", "MB", "GB"))


def _flops(count: float) -> str:
    return _short(count, ("FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP"))


def _short(count: float, units: tuple[str, ...]) -> str:
    """Three digits and the unit that makes them less than 1000."""
    for unit in units[:-1]:
        if float(f"{count:.3g}") < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} {units[-1]}"
