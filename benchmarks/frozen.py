"""`python -m benchmarks frozen`: what freezing the backbone saves in a step, beside what it could save and the peers.

The probe is the training step of a run with freeze=("backbone/**",): uint8 images normalised in the program, the head's
gradient, its norm summed for the log, SGD with momentum, in the loop of steps of `make_chunk`, one dispatch a step.
Forward only is one call of the network in evaluation mode on the same uint8 images, compiled as for prediction.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from benchmarks import report
from benchmarks.arguments import add_timing, chosen, parse, parser_of, settings_of
from benchmarks.comparison import Comparison, measure
from benchmarks.processes import Worker
from benchmarks.ratios import pairwise
from benchmarks.timings import comparison_of, table
from benchmarks.workloads import WORKLOADS, Task

STEPS = {"ours-probe": "linear probe", "ours-clip": "linear probe with clipping"}
"""The steps that are judged."""
NAMES = ("ours-forward", *STEPS, "ours", "ours-head", "flax", "flax-frozen", "pytorch", "pytorch-frozen")
HEAD_STEPS = 200  # a turn, in one dispatch: one takes some 0.1 ms to some ms
MOST_MEMORY = 1.1  # temporary memory of a step, as a multiple of that of the forward pass


@dataclass(frozen=True)
class Claim:
    """A ratio of the times of two candidates, and what it has to be.

    Attributes:
      what: the ratio in words; {step} is the step that is judged.
      over, under: the candidates; none stands for that step.
      bound: what is asked; none: nothing.
      at_most: whether the ratio may not be above the bound, instead of not below.
      per_flops: whether it is divided by how many times the FLOPs of the step our full step has.
    """

    what: str
    over: str | None
    under: str | None
    bound: float | None
    at_most: bool = False
    per_flops: bool = False


CLAIMS = (
    Claim("{step} / forward only", None, "ours-forward", 1.05, at_most=True),
    Claim("plain flax's full step / {step}", "flax", None, 3.5),
    Claim("our full step / {step}, over {flops:.2f} of the FLOPs", "ours", None, 0.9, per_flops=True),
    Claim("{step} / head step on cached features", None, "ours-head", 100),
    Claim("PyTorch's frozen step / {step}", "pytorch-frozen", None, 0.95),
    Claim("plain flax's frozen step / {step}", "flax-frozen", None, None),
)


def main(argv: Sequence[str]) -> int:
    """Measures, prints and writes."""
    parser = parser_of("frozen", __doc__)
    add_timing(parser)
    found = parse(parser, argv)
    report.check_folder(found.out)
    candidates = chosen(found.candidates, NAMES, NAMES, "--candidates")
    timed, judged = [], []
    for network in chosen(found.networks, WORKLOADS, ("resnet50",), "--networks"):
        comparison = _comparison(network, candidates, settings_of(found))
        tasks = {task.candidate: task for task in comparison.tasks}
        memory = _memory(tasks)  # before anything is timed, since it is soon done
        rows = measure(comparison, found.rounds, found.warmup)
        timed += rows
        for step in [step for step in STEPS if step in tasks]:
            judged += judge(step, rows, flops_ratio(tasks[step]), memory)
    text = f"{table(timed)}\n\n{_judged_table(judged)}"
    report.write(found.out, "frozen", argv, [*timed, *judged], text)
    return 0


def _comparison(network: str, candidates: Sequence[str], settings: dict[str, Any]) -> Comparison:
    """The candidates on a network, with ratios to the first of `NAMES` that takes part: the forward pass."""
    usual = comparison_of(network, candidates, "train", settings)
    tasks = (replace(task, steps=HEAD_STEPS) if task.candidate == "ours-head" else task for task in usual.tasks)
    return Comparison(usual.title, tuple(tasks), next(name for name in NAMES if name in candidates))


def _memory(tasks: dict[str, Task]) -> dict[str, float]:
    """Bytes of temporary memory of the forward pass and of the steps that are judged, as the compiler states it."""
    found = {}
    for name in ("ours-forward", *STEPS):
        if name in tasks:
            with Worker(tasks[name]) as worker:
                found[name] = worker.compile()["temp_bytes"]
    return found


def flops_ratio(task: Task) -> float:
    """Returns how many times the FLOPs of a step with the backbone frozen the full step has.

    Those of the lowered programs of one step each, by XLA's count, which leaves out multiplications with padding. The
    network is the plain one: in our convolutions for CPUs a loop over images would be counted as one turn of it.
    """
    import jax

    from benchmarks.frozen_ours import PROBE
    from benchmarks.ours import Chunk, shapes_of
    from jaxcnn.paths import GlobRule

    plain = replace(task, options={**task.options, "plain": True})
    flops = []
    for freeze in (GlobRule(), PROBE):
        chunk = Chunk(plain, freeze)
        state = jax.eval_shape(chunk.state_of, shapes_of(plain))
        flops.append(jax.jit(chunk.step).lower(state, *chunk.batch_shapes()).cost_analysis()["flops"])
    return flops[0] / flops[1]


def judge(step: str, rows: list[dict[str, Any]], flops: float, memory: dict[str, float]) -> list[dict[str, Any]]:
    """Returns what was found of each claim about a step, where its candidates took part.

    Args:
      step: a name of `STEPS`.
      rows: of `measure`, with the seconds of each round.
      flops: ratio of the FLOPs of our full step to those of the step.
      memory: bytes of temporary memory by candidate.
    """
    seconds = {row["candidate"]: row["seconds"] for row in rows if "seconds" in row}
    judged = []
    for claim in CLAIMS:
        over, under = claim.over or step, claim.under or step
        if over in seconds and under in seconds:
            ratio, by = pairwise(seconds[over], seconds[under]), flops if claim.per_flops else 1.0
            what = claim.what.format(step=STEPS[step], flops=flops)
            found = {"found": ratio.median / by, "low": ratio.low / by, "high": ratio.high / by}
            judged.append({"what": what, **_verdict(claim.bound, claim.at_most, found["found"]), **found})
    if {step, "ours-forward"} <= memory.keys():
        found = memory[step] / memory["ours-forward"]
        what = f"temporary memory of {STEPS[step]} / of forward only"
        judged.append({"what": what, **_verdict(MOST_MEMORY, True, found), "found": found, "memory": memory})
    return [{"network": rows[0]["network"], **row} for row in judged]


def _verdict(bound: float | None, at_most: bool, found: float) -> dict[str, Any]:
    if bound is None:
        return {"asked": None, "holds": None}
    return {"asked": f"{'<=' if at_most else '>='} {bound:g}", "holds": found <= bound if at_most else found >= bound}


def _judged_table(judged: list[dict[str, Any]]) -> str:
    lines = []
    for row in judged:
        spread = f"{_number(row['low'])} to {_number(row['high'])}" if "low" in row else ""
        verdict = "" if row["holds"] is None else "yes" if row["holds"] else "no"
        lines.append([row["network"], row["what"], row["asked"] or "", _number(row["found"]), spread, verdict])
    return report.markdown(["network", "what", "asked", "found", "16 to 84 %", "holds"], lines)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3f}"
