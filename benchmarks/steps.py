"""`python -m benchmarks steps`: training steps beside PyTorch and plain flax."""

import argparse
from collections.abc import Sequence
from typing import Any

from benchmarks import report
from benchmarks.arguments import add_timing, chosen, parse, parser_of, settings_of
from benchmarks.cards import peak_flops, utilisation
from benchmarks.comparison import Comparison, measure
from benchmarks.machine import gpu_name
from benchmarks.timings import PEERS, comparison_of, table
from benchmarks.workloads import TIMED, WORKLOADS, Task
from jaxcnn.errors import InputError

RUNS = ("ours-chunk", "ours-input")
"""Ours as in a run, where a dispatch has many steps: the batches given, or taken from a set and augmented."""
DISPATCH = "dispatch"
"""The name, among the candidates, of the comparison of one dispatch of several steps with several of one."""
DISPATCH_NETWORKS = ("resnet20", "resnet18")
DISPATCH_STEPS = 8


def main(argv: Sequence[str]) -> int:
    """Measures, prints and writes."""
    parser = parser_of("steps", __doc__)
    add_timing(parser)
    found = parse(parser, argv)
    report.check_folder(found.out)
    rows = []
    for comparison in _comparisons(found):
        rows += measure(comparison, found.rounds, found.warmup)
    if found.device == "gpu":
        rows = [_with_utilisation(row) for row in rows]
    report.write(found.out, "steps", argv, rows, table(rows))
    return 0


def _comparisons(found: argparse.Namespace) -> list[Comparison]:
    """What to measure: each network beside the peers, and our own dispatches."""
    networks = chosen(found.networks, WORKLOADS, TIMED[found.device], "--networks")
    default = (*PEERS, *RUNS) if found.device == "gpu" else (*PEERS, DISPATCH)
    candidates = chosen(found.candidates, (*PEERS, *RUNS, DISPATCH), default, "--candidates")
    peers = [name for name in candidates if name != DISPATCH]
    settings = settings_of(found)
    listed = [comparison_of(name, peers, "train", settings) for name in networks if peers]
    for name in DISPATCH_NETWORKS:
        if DISPATCH in candidates and name in networks:
            both = comparison_of(name, ["ours", "ours-chunk"], "train", {**settings, "steps": DISPATCH_STEPS})
            listed.append(Comparison(f"{both.title}, {DISPATCH_STEPS} steps", both.tasks, "ours"))
    if not listed:
        raise InputError(f"--candidates {DISPATCH}: compared on {' and '.join(DISPATCH_NETWORKS)} only")
    return listed


def _with_utilisation(row: dict[str, Any]) -> dict[str, Any]:
    """The row with the share of the card's peak, where that is known and it computes in bfloat16."""
    from benchmarks.ours import model_of
    from jaxcnn.models.cost import cost_of

    task, peak = Task(**row["task"]), peak_flops(gpu_name())
    if peak is None or task.dtype != "bfloat16" or "skipped" in row:
        return row
    cost = cost_of(model_of(task, task.dtype), task.image_shape)
    return {**row, "mfu": utilisation(cost.multiply_adds, task.batch, row["median_seconds"], peak)}
