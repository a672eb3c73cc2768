"""`python -m benchmarks compile`: compilation of our train step and plain flax's, cold and from the cache.

Each compilation is in a fresh process, without weights: the seconds from the shapes to the program.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from benchmarks import report
from benchmarks.arguments import chosen, count, parse, parser_of, settings_of
from benchmarks.candidates import CANDIDATES
from benchmarks.processes import Worker
from benchmarks.workloads import WORKLOADS, Task, task_of
from jaxcnn.config import ModelConfig

NETWORKS = ("resnet20", "resnet18", "resnet50", "resnet110")
CANDIDATE_NAMES = ("ours", "flax")
HAS_SCAN = "scan_blocks" in {field.name for field in fields(ModelConfig)}
SCANNED = ("resnet110",) if HAS_SCAN else ()
"""Networks that are measured also with the equal blocks of a stage as a loop."""


def main(argv: Sequence[str]) -> int:
    """Measures, prints and writes."""
    parser = parser_of("compile", __doc__)
    parser.add_argument("--rounds", type=count, default=3, help="compilations of each kind")
    found = parse(parser, argv)
    report.check_folder(found.out)
    rows = []
    for network in chosen(found.networks, WORKLOADS, NETWORKS, "--networks"):
        for candidate, options in _forms(network, found.option):
            task = task_of(WORKLOADS[network], candidate, "train", **{**settings_of(found), "options": options})
            rows.append(_row(WORKLOADS[network].title, task, found.rounds))
    report.write(found.out, "compile", argv, rows, _table(rows))
    return 0


def _forms(network: str, option: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """(candidate, options) of each row of a network."""
    forms: list[tuple[str, dict[str, Any]]] = [("ours", option), ("flax", option)]
    if network in SCANNED:
        forms.insert(1, ("ours", {**option, "scan_blocks": True}))
    return forms


def _row(network: str, task: Task, rounds: int) -> dict[str, Any]:
    row: dict[str, Any] = {"network": network, "title": CANDIDATES[task.candidate].title, "task": vars(task)}
    times: dict[str, list[dict[str, float]]] = {"cold": [], "cached": []}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as cache:
            for kind in times:
                with Worker(task, {"JAX_COMPILATION_CACHE_DIR": cache}) as worker:
                    times[kind].append(worker.compile())
    for kind, answers in times.items():
        row[kind] = answers
        row[f"{kind}_seconds"] = float(np.median([answer["trace"] + answer["compile"] for answer in answers]))
    return row


def _table(rows: list[dict[str, Any]]) -> str:
    lines = []
    for row in rows:
        form = f"{row['title']}, scanned blocks" if row["task"]["options"].get("scan_blocks") else row["title"]
        lines.append([row["network"], form, f"{row['cold_seconds']:.1f}", f"{row['cached_seconds']:.2f}"])
    return report.markdown(["network", "train step", "cold, s", "from the cache, s"], lines)
