"""A plan: whether a run fits the chips, what a step of it costs there, and how long the whole takes at least."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from jaxcnn.plan.compiling import DoesNotFit, StepFigures, compiled_figures, lower_run
from jaxcnn.plan.counting import model_flops
from jaxcnn.plan.estimating import estimate_run, mesh_of
from jaxcnn.plan.kept import kept_figures
from jaxcnn.plan.roofline import Roofline, roofline
from jaxcnn.plan.subject import Subject, bytes_of_a_chip, planned_on
from jaxcnn.plan.topology import Place, topology_mesh, usable_bytes

GPU_SHARE = 0.75
"""Of a GPU's memory JAX takes so much when it starts (XLA_PYTHON_CLIENT_MEM_FRACTION)."""


@dataclass(frozen=True)
class Plan:
    """What a run will cost on chips.

    Attributes:
      subject: the run; place: the chips; mesh: {"data": ..., "fsdp": ...}.
      figures: of the compiled program, a chip; none: XLA refused it for its memory.
      program_bytes: memory that the program needs, by XLA.
      argument_bytes: of these the state, resident images and batches.
      held_bytes: memory besides, that the program does not know of; see `Planned`.
      usable_bytes: what XLA may use.
      model_flops: operations of the model alone, a chip and step: without what is computed again.
      seconds: that compiling took.
    """

    subject: Subject
    place: Place
    mesh: dict[str, int]
    figures: StepFigures | None
    program_bytes: int
    argument_bytes: int
    held_bytes: int
    usable_bytes: int
    model_flops: float
    seconds: float

    @property
    def estimated(self) -> bool:
        """Whether another compiler than that of the chips was asked."""
        return self.place.chip.kind == "gpu"

    @property
    def needed_bytes(self) -> int:
        """Memory of a chip that the run needs."""
        return self.program_bytes + self.held_bytes

    @property
    def fits(self) -> bool:
        return self.figures is not None and self.needed_bytes <= self.usable_bytes

    @property
    def bounds(self) -> Roofline | None:
        """The least times of a step; none where the program was refused."""
        if self.figures is None:
            return None
        dtype, each = self.subject.config.model.dtype, self.figures
        return roofline(each.flops, each.bytes_accessed, each.collectives, self.place, dtype)

    @property
    def images_per_second(self) -> float:
        """Of all chips, at most."""
        return self.subject.config.train.batch_size / self._step_seconds

    @property
    def run_seconds(self) -> float:
        """All steps of the run, at least."""
        return self.subject.total_steps * self._step_seconds

    @property
    def chip_hours(self) -> float:
        return self.run_seconds / 3600 * self.place.chips

    @property
    def utilisation(self) -> float:
        """The model's own operations as a share of the peak, in a step of the least time: no run can be above it."""
        peak = self.place.chip.peak(self.subject.config.model.dtype)
        return self.model_flops / (peak * self._step_seconds)

    @property
    def evaluations(self) -> int:
        """Passes over the validation split: one every so many epochs, and one at the end."""
        config = self.subject.config
        return max(1, math.ceil(config.train.epochs / config.evaluation.every_epochs))

    @property
    def evaluation_seconds(self) -> float:
        """All evaluations, an example taken to cost a third of one in training, which goes forward and back."""
        examples = self.evaluations * self.subject.examples.get("validation", 0)
        return examples / self.images_per_second / 3

    @property
    def _step_seconds(self) -> float:
        bounds = self.bounds
        return math.nan if bounds is None else bounds.seconds


def plan_of(subject: Subject, place: Place, say: Callable[[str], None] = lambda text: None) -> Plan:
    """Returns the plan of a run on chips: compiled by libtpu for TPUs, estimated for GPUs.

    Args:
      subject: the run.
      place: the chips.
      say: called with a line before what takes long.

    Raises:
      InputError: what does not fit together, or libtpu is not there.
    """
    began = time.perf_counter()
    if place.chip.kind == "gpu":
        planned = planned_on(subject, mesh_of(place, subject.config.mesh))
        usable = round(GPU_SHARE * place.chip.memory_bytes)
    else:
        mesh = topology_mesh(place.name, subject.config.mesh)
        planned = planned_on(subject, mesh)
        usable = usable_bytes(mesh.devices.flat[0])
    argument = bytes_of_a_chip((planned.job.state_shapes(planned.phase), planned.source, planned.inputs))
    model = model_flops(planned) / place.chips
    say(f"{place.name}: compiling a step of {subject.config.train.batch_size} images for {_count(place)} ...")
    figures: StepFigures | None = None
    try:
        if place.chip.kind == "gpu":
            figures = estimate_run(planned, place)
        else:
            lowered = lower_run(planned.job, planned.phase, planned.source, planned.inputs)
            figures = kept_figures(lowered, place.name, place.chips, compiled_figures)
        needed = figures.needed_bytes
    except DoesNotFit as refusal:
        needed = refusal.needed_bytes
    return Plan(
        subject=subject,
        place=place,
        mesh=dict(planned.job.mesh.shape),
        figures=figures,
        program_bytes=needed,
        argument_bytes=argument if figures is None else figures.argument_bytes,
        held_bytes=planned.held_bytes,
        usable_bytes=usable,
        model_flops=model,
        seconds=time.perf_counter() - began,
    )


def _count(place: Place) -> str:
    return f"{place.chips} chip{'s' if place.chips > 1 else ''}"
