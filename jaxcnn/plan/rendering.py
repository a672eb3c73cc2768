"""A plan as lines for a person, and as JSON."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from jaxcnn.plan.advice import Candidate, best, fewest_chips
from jaxcnn.plan.chips import GIB
from jaxcnn.plan.planning import GPU_SHARE, Plan


def lines_of(plan: Plan) -> list[str]:
    """Returns what a person is told of a plan."""
    lines = [_heading(plan), _memory(plan), *_memory_parts(plan)]
    if plan.figures is None:
        return lines
    lines = [*lines, _work(plan), *_collectives(plan), _time(plan), _pace(plan), *_run(plan)]
    if plan.estimated:
        lines += [
            "  estimated    a program for a CPU keeps and moves more than one for a GPU: one was measured at half",
            "               the time and a third of the memory (docs/planning.md); jaxcnn preflight there measures",
        ]
    return lines


def _heading(plan: Plan) -> str:
    config, place = plan.subject.config, plan.place
    shape = "x".join(map(str, plan.subject.preprocessing.image_shape))
    shares = f"mesh data {plan.mesh['data']} x fsdp {plan.mesh['fsdp']}" if place.chips > 1 else "one chip"
    parts = f" in {config.optim.accumulation} parts" if config.optim.accumulation > 1 else ""
    how = "an estimate: compiled for a CPU, held against published peaks" if plan.estimated else "compiled by XLA"
    return (
        f"{place.name}: {config.model.name} in {config.model.dtype}, images {shape}, "
        f"{len(plan.subject.class_names):,} classes, batch {config.train.batch_size:,}{parts} "
        f"({config.train.batch_size // place.chips:,} a chip), {shares}; {how} ({plan.seconds:.0f} s)"
    )


def _memory(plan: Plan) -> str:
    free = plan.usable_bytes - plan.needed_bytes
    refused = "MAY NOT FIT" if plan.estimated else "DOES NOT FIT"
    told = f"fits, {_gib(free)} GiB to spare" if plan.fits else f"{refused}, by {_gib(-free)} GiB"
    share = 100 * plan.needed_bytes / plan.usable_bytes
    return f"  memory       {told}: {_gib(plan.needed_bytes)} of {_gib(plan.usable_bytes)} GiB a chip ({share:.3g} %)"


def _memory_parts(plan: Plan) -> list[str]:
    figures, held = plan.figures, ""
    if plan.held_bytes:
        what = "resident splits to measure on" if plan.subject.kind == "resident" else "batches sent ahead"
        held = f" + {what} {_gib(plan.held_bytes)}"
    if figures is None:
        parts = (
            f"{_gib(plan.program_bytes)} by XLA, which refused it (state and batches are {_gib(plan.argument_bytes)})"
        )
    else:
        parts = (
            f"state and batches {_gib(figures.argument_bytes)} + temporary {_gib(figures.temp_bytes)} + outputs "
            f"{_gib(figures.output_bytes)} - in the place of inputs {_gib(figures.alias_bytes)}"
        )
    chip = plan.place.chip
    if plan.estimated:
        limit = (
            f"JAX takes {100 * GPU_SHARE:.0f} % of the {_gib(chip.memory_bytes)} GiB (XLA_PYTHON_CLIENT_MEM_FRACTION)"
        )
    else:
        limit = f"XLA may use {_gib(plan.usable_bytes)} GiB of a chip, published are {_gib(chip.memory_bytes)}"
    return [f"               {parts}{held}; {limit}"]


def _work(plan: Plan) -> str:
    assert plan.figures is not None
    size = plan.subject.config.train.batch_size / plan.place.chips
    return (
        f"  a step       {_short(plan.figures.flops, 'FLOP')} a chip, {_short(plan.model_flops, 'FLOP')} of them the "
        f"model's own ({_short(plan.model_flops / size, 'FLOP')} an image); "
        f"{_short(plan.figures.bytes_accessed, 'B')} read and written"
    )


def _collectives(plan: Plan) -> list[str]:
    assert plan.figures is not None
    told = [
        f"{each.count} {each.kind} among {each.chips} chips, {_short(each.bytes, 'B')}"
        for each in plan.figures.collectives
    ]
    return [f"  collectives  {'; '.join(told)} a chip"] if told else []


def _time(plan: Plan) -> str:
    bounds = plan.bounds
    assert bounds is not None
    parts = f"compute {_ms(bounds.compute)}, memory {_ms(bounds.memory)}"
    if bounds.interconnect:
        parts += f", interconnect {_ms(bounds.interconnect)}"
    about = "about" if plan.estimated else "at least"
    return (
        f"  time         {about} {_ms(bounds.seconds)} a step, bound by {bounds.bound}: {parts} "
        f"({_ms(bounds.summed)} if nothing overlaps)"
    )


def _pace(plan: Plan) -> str:
    each = plan.images_per_second / plan.place.chips
    about = "about" if plan.estimated else "at most"
    return (
        f"  pace         {about} {plan.images_per_second:,.0f} images/s ({each:,.0f} a chip), "
        f"{100 * plan.utilisation:.2g} % of the peak in the model's own FLOPs"
    )


def _run(plan: Plan) -> list[str]:
    config, examples = plan.subject.config, plan.subject.examples
    about = "about" if plan.estimated else "at least"
    lines = [
        f"  the run      {about} {_hours(plan.run_seconds)}, {plan.chip_hours:,.3g} chip-hours: "
        f"{plan.subject.total_steps:,} steps, {config.train.epochs:g} epochs of {examples['train']:,} examples"
    ]
    beside = "compiling, reading and checkpoints are not in it"
    if "validation" in examples:
        beside = (
            f"{plan.evaluations:,} evaluation{'s' if plan.evaluations > 1 else ''} of {examples['validation']:,} "
            f"come{'' if plan.evaluations > 1 else 's'} to it, some "
            f"{_hours(plan.evaluation_seconds)}; {beside}"
        )
    return [*lines, f"               {beside}"]


def advice_lines(plan: Plan, candidates: Sequence[Candidate]) -> list[str]:
    """Returns what a person is told of changes: which were tried, and which makes the shortest run."""
    lines = ["  what was tried:" if candidates else "  nothing was tried: no change is expected to make it fit"]
    for each in candidates:
        lines.append(f"    {each.change.flags:34s} {_outcome(each.plan)}; {each.change.means}")
    chosen = best(tuple(candidates))
    if plan.fits and (chosen is None or chosen.plan.run_seconds >= plan.run_seconds):
        lines.append("  shortest run that fits: as it is")
    elif chosen is not None:
        lines.append(f"  shortest run that fits: {chosen.change.flags}")
    elif (chips := fewest_chips(plan)) is not None:
        lines.append(f"  or more chips: {chips} of these hold the batch, if all but the state is divided over them")
    return lines


def _outcome(plan: Plan) -> str:
    needs = f"{_gib(plan.needed_bytes)} GiB"
    if not plan.fits:
        return f"does not fit: {needs}"
    assert plan.bounds is not None
    return f"fits: {needs}, {_ms(plan.bounds.seconds)} a step, {_hours(plan.run_seconds)}"


def to_json(plan: Plan, candidates: Sequence[Candidate] = ()) -> dict[str, Any]:
    """Returns a plan for machines; bytes, FLOPs and seconds, of a chip unless it says otherwise."""
    found: dict[str, Any] = {
        "place": plan.place.name,
        "chips": plan.place.chips,
        "mesh": plan.mesh,
        "estimated": plan.estimated,
        "config": plan.subject.config.name,
        "batch_size": plan.subject.config.train.batch_size,
        "fits": plan.fits,
        "needed_bytes": plan.needed_bytes,
        "program_bytes": plan.program_bytes,
        "held_bytes": plan.held_bytes,
        "usable_bytes": plan.usable_bytes,
        "chip": dataclasses.asdict(plan.place.chip),
        "model_flops": plan.model_flops,
        "plan_seconds": plan.seconds,
        "notes": list(plan.subject.notes),
    }
    if plan.figures is not None and plan.bounds is not None:
        bounds = plan.bounds
        found |= {
            "figures": dataclasses.asdict(plan.figures),
            "step_seconds": {
                "least": bounds.seconds,
                "bound": bounds.bound,
                **dataclasses.asdict(bounds),
                "summed": bounds.summed,
            },
            "images_per_second": plan.images_per_second,
            "utilisation": plan.utilisation,
            "steps": plan.subject.total_steps,
            "run_hours": plan.run_seconds / 3600,
            "chip_hours": plan.chip_hours,
            "evaluation_hours": plan.evaluation_seconds / 3600,
        }
    if candidates:
        found["candidates"] = [
            {"flags": each.change.flags, "means": each.change.means, **to_json(each.plan)} for each in candidates
        ]
    return found


def _gib(count: float) -> str:
    gib = count / GIB
    return f"{gib:.2f}" if gib >= 0.1 or not gib else f"{gib:.2g}"


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.3g} ms"


def _hours(seconds: float) -> str:
    hours = seconds / 3600
    if hours >= 48:
        return f"{hours / 24:.3g} days"
    if hours >= 1:
        return f"{hours:.3g} h"
    return f"{seconds / 60:.2g} min" if seconds >= 60 else f"{seconds:.2g} s"


def _short(count: float, unit: str) -> str:
    """Three digits with the prefix that makes them less than 1000."""
    for prefix in ("", "k", "M", "G", "T"):
        if float(f"{count:.3g}") < 1000:
            return f"{count:.3g} {prefix}{unit}"
        count /= 1000
    return f"{count:.3g} P{unit}"
