"""What steps and inference have in common: comparisons of a network, and the table of their rows."""

from collections.abc import Sequence
from typing import Any

from benchmarks import report
from benchmarks.candidates import CANDIDATES
from benchmarks.comparison import Comparison
from benchmarks.workloads import WORKLOADS, Kind, task_of

PEERS = ("ours", "pytorch", "torch.compile", "flax")
GPU_STEPS = 10  # a turn: a step takes milliseconds there, and a run does not wait for each
BASELINES = ("pytorch", "flax")
"""To what the ratios are: the first of these that takes part, or else the first candidate."""


def comparison_of(network: str, candidates: Sequence[str], kind: Kind, settings: dict[str, Any]) -> Comparison:
    """Returns the comparison of candidates on a network; settings may have a number of `steps` a turn."""
    given = {"steps": GPU_STEPS if settings["device"] == "gpu" else 1, **settings}
    tasks = tuple(task_of(WORKLOADS[network], name, kind, **given) for name in candidates)
    baseline = next((name for name in BASELINES if name in candidates), candidates[0])
    return Comparison(WORKLOADS[network].title, tasks, baseline)


def table(rows: list[dict[str, Any]]) -> str:
    """Returns the Markdown table of measured rows."""
    has_mfu = any("mfu" in row for row in rows)
    header = ["network", "images", "batch", "type", "candidate", "images/s", "ms a step", "ratio", "to", "16 to 84 %"]
    return report.markdown([*header, "MFU"] if has_mfu else header, [_line(row, has_mfu) for row in rows])


def _line(row: dict[str, Any], has_mfu: bool) -> list[str]:
    task = row["task"]
    px = task["image_px"]
    line = [row["network"], f"{px}x{px}", str(task["batch"]), task["dtype"], row["title"]]
    if "skipped" in row:
        return [*line, "", "", "", "", f"skipped: {row['skipped']}", *[""] * has_mfu]
    line += [f"{row['images_per_second']:,.4g}", f"{1000 * row['median_seconds']:,.4g}"]
    ratio = row.get("ratio")
    if ratio is None:
        line += ["", "", ""]
    else:
        to = CANDIDATES[row["baseline"]].title
        line += [f"{ratio['median']:.2f}", to, f"{ratio['low']:.2f} to {ratio['high']:.2f}"]
    return [*line, f"{row['mfu']:.1%}" if "mfu" in row else ""] if has_mfu else line
