"""What to change where a run does not fit: candidates, each of them planned as the run is."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from jaxcnn.errors import InputError
from jaxcnn.plan.planning import Plan, plan_of
from jaxcnn.plan.subject import Subject

TRIES = 2
"""Candidates of a kind that are compiled, from the mildest that may fit."""


@dataclass(frozen=True)
class Change:
    """A change of a config.

    Attributes:
      kind: what it changes.
      flags: as it is given on the command line.
      means: what it costs or changes besides.
      subject: the run with it.
      expected_bytes: memory that it is guessed to need, from what the run needs.
    """

    kind: str
    flags: str
    means: str
    subject: Subject
    expected_bytes: float


@dataclass(frozen=True)
class Candidate:
    """A change that was planned."""

    change: Change
    plan: Plan


def candidates_of(
    plan: Plan, say: Callable[[str], None] = lambda text: None, make: Callable[..., Plan] = plan_of
) -> tuple[Candidate, ...]:
    """Returns the changes that were tried for a run that does not fit: of each kind up to one that fits.

    Args:
      plan: of the run.
      say: called with a line before what takes long.
      make: plans a subject at a place: `plan_of`.
    """
    found: list[Candidate] = []
    tried: dict[str, int] = {}
    for change in changes_of(plan):
        fitted = any(each.change.kind == change.kind and each.plan.fits for each in found)
        if fitted or tried.get(change.kind, 0) >= TRIES or change.expected_bytes > plan.usable_bytes:
            continue
        tried[change.kind] = tried.get(change.kind, 0) + 1
        say(f"trying {change.flags}")
        try:
            found.append(Candidate(change, make(change.subject, plan.place, say)))
        except InputError as error:
            say(f"  {change.flags}: {error}")
    return tuple(found)


def changes_of(plan: Plan) -> Iterator[Change]:
    """Yields the changes that need less memory, those of a kind from the mildest on.

    What each needs is guessed: the state does not change but by fsdp, the rest grows with the images that are in the
    network at a time.
    """
    subject, fixed = plan.subject, plan.argument_bytes + plan.held_bytes
    rest = max(0, plan.needed_bytes - fixed)
    if subject.kind == "resident":
        yield Change(
            "loader", "--data.loader streamed", "images are decoded in each epoch, by the hosts",
            subject.changed("data", loader="streamed"), rest,
        )  # fmt: skip
    if subject.config.model.dtype == "float32":
        yield Change(
            "dtype", "--model.dtype bfloat16", "maps in half the bytes; parameters and loss stay float32",
            subject.changed("model", dtype="bfloat16"), fixed + rest / 2,
        )  # fmt: skip
    yield from _accumulation(plan, fixed, rest)
    yield from _remat(plan, fixed)
    yield from _fsdp(plan)
    yield from _batch(plan, fixed, rest)


def _accumulation(plan: Plan, fixed: int, rest: int) -> Iterator[Change]:
    config, chips = plan.subject.config, plan.place.chips
    parts = 2 * config.optim.accumulation
    while config.train.batch_size % parts == 0 and (config.train.batch_size // parts) % chips == 0:
        subject = plan.subject.changed("optim", accumulation=parts)
        share = config.train.batch_size // parts
        means = f"the same batch in {parts} parts; batch statistics are then of {share:,} images"
        expected = fixed + rest * config.optim.accumulation / parts
        yield Change("accumulation", f"--optim.accumulation {parts}", means, subject, expected)
        parts *= 2


def _remat(plan: Plan, fixed: int) -> Iterator[Change]:
    """The first stages, whose maps are the largest; then all."""
    if plan.subject.config.model.remat:
        return
    for parts in (("stage1", "stage2"), ("all",)):
        flags = f"--model.remat {' '.join(parts)}"
        means = "maps computed again on the way back, with the same result"
        yield Change("remat", flags, means, plan.subject.changed("model", remat=parts), fixed)


def _fsdp(plan: Plan) -> Iterator[Change]:
    config, chips = plan.subject.config, plan.place.chips
    wider = 2 * config.mesh.fsdp
    while chips % wider == 0 and config.mesh.data is None:
        # The state is most of the arguments; no more than all of it can go.
        expected = plan.needed_bytes - plan.argument_bytes * (1 - config.mesh.fsdp / wider)
        means = f"parameters, moments and averages over {wider} chips, gathered where they are needed"
        yield Change("fsdp", f"--mesh.fsdp {wider}", means, plan.subject.changed("mesh", fsdp=wider), expected)
        wider *= 2


def _batch(plan: Plan, fixed: int, rest: int) -> Iterator[Change]:
    config = plan.subject.config
    size = config.train.batch_size // 2
    while size and (size // config.optim.accumulation) % plan.place.chips == 0:
        subject = plan.subject.changed("train", batch_size=size)
        ratio = size / config.train.batch_size
        rate = config.optim.peak_lr * (math.sqrt(ratio) if config.optim.name in ("adamw", "lamb") else ratio)
        flags, means = f"--train.batch-size {size}", "another run: "
        if config.optim.lr_scaling == "none":
            subject = subject.changed("optim", peak_lr=rate)
            flags, means = f"{flags} --optim.peak-lr {rate:g}", "another run: the rate is scaled with the batch"
        else:
            means += "the rate follows by optim.lr_scaling"
        yield Change("batch", flags, means, subject, fixed + rest * size / config.train.batch_size)
        size //= 2


def fewest_chips(plan: Plan) -> int | None:
    """Returns how many chips of the kind would do, if all but the state is divided over them; none: no number."""
    fixed = plan.argument_bytes + plan.held_bytes
    room = plan.usable_bytes - fixed
    if room <= 0:
        return None
    return plan.place.chips * math.ceil((plan.needed_bytes - fixed) / room)


def best(candidates: tuple[Candidate, ...]) -> Candidate | None:
    """Returns the one that fits with the shortest run; of equal ones the first."""
    fitting = [each for each in candidates if each.plan.fits]
    return min(fitting, key=lambda each: each.plan.run_seconds, default=None)
