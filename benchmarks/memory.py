"""`python -m benchmarks memory`: temporary memory of our train step and plain flax's, as the compiler states it."""

from collections.abc import Sequence
from typing import Any

from benchmarks import report
from benchmarks.arguments import chosen, parse, parser_of, settings_of
from benchmarks.processes import Worker
from benchmarks.workloads import TIMED, WORKLOADS, Workload, task_of


def main(argv: Sequence[str]) -> int:
    """Compiles, prints and writes."""
    found = parse(parser_of("memory", __doc__), argv)
    report.check_folder(found.out)
    rows = [
        _row(WORKLOADS[network], settings_of(found))
        for network in chosen(found.networks, WORKLOADS, TIMED[found.device], "--networks")
    ]
    report.write(found.out, "memory", argv, rows, _table(rows))
    return 0


def _row(workload: Workload, settings: dict[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {"network": workload.title}
    for candidate in ("ours", "flax"):
        task = task_of(workload, candidate, "train", **settings)
        with Worker(task) as worker:
            row[candidate] = worker.compile()["temp_bytes"]
        row["batch"] = task.batch
    return {**row, "ratio": row["ours"] / row["flax"]}


def _table(rows: list[dict[str, Any]]) -> str:
    lines = []
    for row in rows:
        mib = [f"{row[name] / 2**20:,.0f}" for name in ("ours", "flax")]
        lines.append([row["network"], str(row["batch"]), *mib, f"{row['ratio']:.2f}"])
    return report.markdown(["network", "batch", "jaxcnn, MiB", "plain flax, MiB", "ratio"], lines)
