"""The findings of a sweep: a row a setting, the best one, tables as CSV, Markdown and JSON."""

import csv
import io
import json
import math
import shlex
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from jaxcnn.tuning.axes import Axis
from jaxcnn.tuning.sweep_figure import draw
from jaxcnn.tuning.sweep_folder import Outcome, Sweep, SweepFolder, Trial, text_of


@dataclass(frozen=True)
class Row:
    """A setting.

    Attributes:
      values: of the fields that differ, in the order of the axes.
      top1: best validation top-1 of each seed that is done, 0..1.
      loss: validation loss of the last weights of each seed that is done, in nats.
      test_top1: top-1 on test of each seed that is done; empty where it is not asked for, or there is no such split.
      failed, pruned, open: seeds that failed, were pruned, or are not through yet.
      seconds: that all seeds took.
      stopped_top1: of pruned ones, the best validation top-1 until they were.
    """

    values: tuple[Any, ...]
    top1: tuple[float, ...]
    loss: tuple[float, ...]
    test_top1: tuple[float, ...]
    failed: int
    pruned: int
    open: int
    seconds: float
    stopped_top1: tuple[float, ...] = ()

    @property
    def mean(self) -> float:
        """Mean over the seeds that are done, of which there is one at least."""
        return statistics.fmean(self.top1)

    @property
    def std(self) -> float:
        """Standard deviation of a sample; not a number of a single seed."""
        return std_of(self.top1)


def std_of(values: Sequence[float]) -> float:
    """Returns the standard deviation of a sample (n - 1); not a number where there is but one."""
    return statistics.stdev(values) if len(values) > 1 else math.nan


def rows_of(ends: Iterable[tuple[Trial, Outcome | None]], *, test: bool) -> list[Row]:
    """Returns a row a setting, in the order of the trials; the figures of test where they are asked for."""
    by_setting: dict[tuple[Any, ...], list[Outcome | None]] = {}
    for trial, end in ends:
        by_setting.setdefault(tuple(value for _, value in trial.values), []).append(end)
    return [_row(values, outcomes, test) for values, outcomes in by_setting.items()]


def _row(values: tuple[Any, ...], ends: list[Outcome | None], test: bool) -> Row:
    known = [end for end in ends if end is not None]
    done = [end for end in known if end.status == "done"]
    count = {status: sum(end.status == status for end in known) for status in ("failed", "pruned")}
    return Row(
        values,
        tuple(end.top1 for end in done if end.top1 is not None),
        tuple(end.loss for end in done if end.loss is not None),
        tuple(end.test_top1 for end in done if end.test_top1 is not None) if test else (),
        count["failed"],
        count["pruned"],
        len(ends) - len(done) - sum(count.values()),
        sum(end.seconds for end in known),
        tuple(end.top1 for end in known if end.status == "pruned" and end.top1 is not None),
    )


def best_of(rows: Sequence[Row]) -> Row | None:
    """Returns the setting of the highest mean validation top-1, of equal ones that of the lowest loss; none if none is.

    One of which a seed failed, or is not through, comes after all that are whole: the mean of the seeds that a setting
    survives flatters it.
    """
    done = [row for row in rows if row.top1]
    return max(done, key=lambda row: (_is_whole(row), row.mean, -statistics.fmean(row.loss)), default=None)


def _is_whole(row: Row) -> bool:
    return not (row.failed or row.pruned or row.open)


def near_best(rows: Sequence[Row]) -> list[Row]:
    """Returns the settings whose mean is within two standard errors of the best one's: seeds do not tell them apart.

    The error of a difference of two means is sqrt(s1^2 / n1 + s2^2 / n2) (Welch 1947). Single seeds have none.
    """
    best = best_of(rows)
    if best is None or len(best.top1) < 2:
        return []
    others = [row for row in rows if row is not best and len(row.top1) > 1]
    return [
        row
        for row in others
        if best.mean - row.mean <= 2 * math.sqrt(best.std**2 / len(best.top1) + row.std**2 / len(row.top1))
    ]


def table_of(rows: Sequence[Row], axes: Sequence[Axis]) -> list[list[str]]:
    """Returns head and rows: accuracies in percent, the best setting first; what is not known is empty."""
    has_test = any(row.test_top1 for row in rows)
    test_head = ["test_top1_mean", "test_top1_std"] if has_test else []
    head = [axis.label for axis in axes] + ["validation_top1_mean", "validation_top1_std", "validation_loss_mean"]
    table = [[*head, *test_head, "seeds_done", "seeds_failed", "seeds_pruned", "seeds_open", "seconds"]]
    for row in sorted_rows(rows):
        counts = [str(count) for count in (len(row.top1), row.failed, row.pruned, row.open)]
        figures = [*_mean_std(row.top1, 100, 2), *_mean_std(row.loss, 1, 4)[:1]]
        test = _mean_std(row.test_top1, 100, 2) if has_test else []
        values = map(cell_of, axes, row.values)
        table.append([*values, *figures, *test, *counts, f"{row.seconds:.0f}"])
    return table


def cell_of(axis: Axis, value: Any) -> str:
    """Returns a value as the table shows it: of one drawn from an interval four digits."""
    return f"{value:.4g}" if axis.range is not None and isinstance(value, float) else text_of(value)


def sorted_rows(rows: Sequence[Row]) -> list[Row]:
    """Returns the best setting, then the others by their mean; those without a figure last."""
    best = best_of(rows)
    return sorted(rows, key=lambda row: (row is not best, -row.mean if row.top1 else 1.0))


def _mean_std(values: Sequence[float], scale: float, digits: int) -> list[str]:
    figures = (statistics.fmean(values) if values else math.nan, std_of(values))
    return ["" if math.isnan(figure) else f"{scale * figure:.{digits}f}" for figure in figures]


def as_markdown(rows: Sequence[Row], sweep: Sweep, folder: SweepFolder, figure: str | None = None) -> str:
    """Returns the table with what was chosen, by what, and how to run it again."""
    head, *lines = table_of(rows, sweep.axes)
    # A column of zeros says nothing, and there are four of them.
    keep = [
        index
        for index, name in enumerate(head)
        if name not in ("seeds_failed", "seeds_pruned", "seeds_open") or any(line[index] != "0" for line in lines)
    ]
    marks = ["---:" if any(_is_number(line[index]) for line in lines) else "---" for index in keep]
    names = [head[index].replace("_", " ") for index in keep]
    text = [names, marks, *([line[index] for index in keep] for line in lines)]
    table = "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in text)
    drawn = f"\n\n![Validation top-1 by setting]({figure})" if figure else ""
    return f"{table}{drawn}\n\n{conclusion(rows, sweep, folder)}\n"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def conclusion(rows: Sequence[Row], sweep: Sweep, folder: SweepFolder) -> str:
    """Returns which setting is best, which ones are as good, and the command that trains it."""
    best = best_of(rows)
    if best is None:
        return f"No trial is done; what they printed: {folder.path / 'logs'}"
    spread = f" ± {100 * best.std:.2f}" if len(best.top1) > 1 else ""
    seeds = f"{len(best.top1)} seed{'s' * (len(best.top1) > 1)}"
    lines = [
        f"best by validation top-1: {_named(best, sweep.axes)}: {100 * best.mean:.2f}{spread} % ({seeds})",
        *_doubts(rows, best, sweep.axes),
        f"train it: {command_of(best, sweep, folder)}",
    ]
    return "\n".join(lines)


def _doubts(rows: Sequence[Row], best: Row, axes: Sequence[Axis]) -> list[str]:
    """What speaks against taking the best setting for the best one."""
    doubts = []
    if near := near_best(rows):
        names = "; ".join(_named(row, axes) for row in near[:4]) + "; ..." * (len(near) > 4)
        doubts.append(f"not told apart from it by its seeds (within two standard errors): {names}")
    if not _is_whole(best):
        doubts.append("its mean is over the seeds that are done: others failed, or are not through")
    for axis, value in zip(axes, best.values, strict=True):
        ends = [one for one in axis.values if _is_real(one)]
        if axis.range is None and len(ends) > 1 and len(ends) == len(axis.values) and value in (min(ends), max(ends)):
            way = "smaller" if value == min(ends) else "larger"
            doubts.append(f"{axis.label} {text_of(value)} is at the end of its list: try {way} values too")
    return doubts


def _is_real(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _named(row: Row, axes: Sequence[Axis]) -> str:
    pairs = (f"{axis.label} {cell_of(axis, value)}" for axis, value in zip(axes, row.values, strict=True))
    return ", ".join(pairs) or "the config"


def command_of(row: Row, sweep: Sweep, folder: SweepFolder) -> str:
    """Returns the command line that trains a setting as its first seed was."""
    values = tuple((axis.field, value) for axis, value in zip(sweep.axes, row.values, strict=True))
    flags = Trial("", values, sweep.seeds[0]).flags()
    return shlex.join(["jaxcnn", "train", "--config", str(folder.path / "config.py"), *flags])


def as_json(rows: Sequence[Row], sweep: Sweep, folder: SweepFolder) -> dict[str, Any]:
    """Returns the findings as JSON takes them; accuracies are shares, 0..1, a list has an entry a seed."""
    best = best_of(rows)
    names = [axis.field for axis in sweep.axes]

    def plain(row: Row) -> dict[str, Any]:
        figures = {name: list(getattr(row, name)) for name in ("top1", "loss", "test_top1")}
        known = {"top1_mean": row.mean, "top1_std": row.std if len(row.top1) > 1 else None} if row.top1 else {}
        counts = {name: getattr(row, name) for name in ("failed", "pruned", "open", "seconds")}
        return {"values": dict(zip(names, row.values, strict=True)), **known, **figures, **counts}

    return {
        "sweep": str(folder.path),
        "seeds": list(sweep.seeds),
        "settings": [plain(row) for row in sorted_rows(rows)],
        "best": {**plain(best), "command": command_of(best, sweep, folder)} if best else None,
        "as_good": [plain(row)["values"] for row in near_best(rows)],
    }


def write_report(rows: Sequence[Row], sweep: Sweep, folder: SweepFolder) -> dict[str, str]:
    """Writes results.csv, .md, .json and, where a trial is done, .png, and returns their paths by kind.

    Raises:
      OSError: the folder cannot be written.
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(table_of(rows, sweep.axes))
    folder.write("results.csv", text.getvalue())
    folder.write("results.json", json.dumps(as_json(rows, sweep, folder), indent=2) + "\n")
    files = {"csv": "results.csv", "json": "results.json", "markdown": "results.md"}
    if best_of(rows) is not None:
        draw(rows, sweep, best_of(rows), folder.path / "results.png")
        files["figure"] = "results.png"
    folder.write("results.md", as_markdown(rows, sweep, folder, files.get("figure")))
    return {kind: str(folder.path / name) for kind, name in files.items()}
