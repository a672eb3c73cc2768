"""The findings of the study of transferability as CSV, Markdown and a figure."""

import csv
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from jaxcnn.studies.transferability import Findings

_SOURCE, _TARGET, _RANDOM = "#888888", "#4477aa", "#ee6677"


def write_report(findings: Findings, folder: Path, label: str) -> dict[str, str]:
    """Writes LABEL.csv, LABEL_few.csv, LABEL.md and LABEL.png and returns their paths by kind.

    Raises:
      OSError: the folder cannot be made or written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = {kind: folder / f"{label}{end}" for kind, end in _ENDS.items()}
    for kind, table in (("csv", points_table(findings)), ("few", few_table(findings))):
        with open(paths[kind], "w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(table)
    paths["markdown"].write_text(as_markdown(findings, paths["figure"].name))
    draw(findings, paths["figure"])
    return {kind: str(path) for kind, path in paths.items()}


_ENDS = {"csv": ".csv", "few": "_few.csv", "markdown": ".md", "figure": ".png"}


def as_json(findings: Findings) -> dict[str, Any]:
    """Returns the findings as JSON takes them; accuracies are shares, 0..1."""
    return asdict(findings)


def points_table(findings: Findings) -> list[list[str]]:
    """Returns head and rows by point, accuracies in percent; without a source task it has no column."""
    has_source = findings.source is not None
    head = ["point", "features", *(["source_top1"] if has_source else []), "target_top1"]
    rows = [[*head, "random_target_top1_mean", "random_target_top1_std"]]
    for row in findings.rows:
        source = [_percent(row.source)] if row.source is not None else []
        rows.append([row.point, str(row.num_features), *source, _percent(row.target), *_mean_std(row.random)])
    return rows


def few_table(findings: Findings) -> list[list[str]]:
    """Returns head and rows by images a class, accuracies in percent."""
    head = ["images_a_class", "pretrained_top1_mean", "pretrained_top1_std", "random_top1_mean", "random_top1_std"]
    return [head] + [
        ["all" if few.count is None else str(few.count), *_mean_std(few.pretrained), *_mean_std(few.random)]
        for few in findings.few
    ]


def as_markdown(findings: Findings, figure: str | None = None) -> str:
    """Returns both tables with what was measured, and how, in a sentence each."""
    seeds = len(findings.rows[0].random)
    has_source = findings.source is not None
    head = [
        "point",
        "features",
        *(["source task"] if has_source else []),
        "target",
        f"random weights ({seeds} seed{'s' * (seeds > 1)})",
    ]
    rows = [
        [row.point, str(row.num_features)]
        + ([_percent(row.source)] if row.source is not None else [])
        + [_percent(row.target), _plus_minus(row.random)]
        for row in findings.rows
    ]
    few_head = ["images a class", f"pretrained, {findings.best_point}", f"random, {findings.best_random_point}"]
    few = [
        ["all" if one.count is None else str(one.count), _plus_minus(one.pretrained), _plus_minus(one.random)]
        for one in findings.few
    ]
    tasks = f"Source task: {findings.source}. " if has_source else ""
    text = (
        f"Linear probes on {findings.weights}: top-1 in % on validation.\n\n"
        f"{tasks}Target: {findings.target}, {findings.num_train:,} images to train on, {findings.num_validation:,} to "
        "measure on. Maps are averaged over height and width; `pooled` is what the head sees. Logistic regression, "
        f"its penalty chosen within the training split.\n\n{_table(head, rows)}\n\n"
        "Of few images a class, at the point that a held-out fifth of the training split chose:\n\n"
        f"{_table(few_head, few)}\n"
    )
    return text if figure is None else f"{text}\n![Accuracy by point and by number of images]({figure})\n"


def draw(findings: Findings, path: Path) -> None:
    """Draws accuracy against the point and against the number of images a class, to a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    by_point, by_count = figure.subplots(1, 2)
    at = range(len(findings.rows))
    if findings.source is not None:
        own = [100 * row.source for row in findings.rows if row.source is not None]
        by_point.plot(at, own, color=_SOURCE, marker="s", linestyle="--", label=f"source task: {findings.source}")
    by_point.plot(at, [100 * row.target for row in findings.rows], color=_TARGET, marker="o",
                  label=f"target: {findings.target}")  # fmt: skip
    _with_spread(by_point, at, [row.random for row in findings.rows], "target, random weights", _RANDOM)
    by_point.set_xticks(at, [row.point for row in findings.rows])
    by_point.set(xlabel="point of the network", ylabel="top-1 on validation (%)", title="what each stage knows")
    places = range(len(findings.few))
    _with_spread(by_count, places, [few.pretrained for few in findings.few],
                 f"pretrained, {findings.best_point}", _TARGET)  # fmt: skip
    _with_spread(by_count, places, [few.random for few in findings.few],
                 f"random weights, {findings.best_random_point}", _RANDOM)  # fmt: skip
    by_count.set_xticks(places, ["all" if few.count is None else str(few.count) for few in findings.few])
    by_count.set(xlabel="training images a class", ylabel="top-1 on validation (%)", title="from few images: target")
    for axes in (by_point, by_count):
        axes.grid(alpha=0.25)
        legend = axes.legend(frameon=False, fontsize=8)
        for text in legend.get_texts():
            text.set_parse_math(False)  # a name may hold a $
    figure.suptitle(f"linear probes on {findings.weights}", parse_math=False)
    part_file = path.with_name(f".{path.name}")
    figure.savefig(part_file, dpi=110, format="png")
    part_file.replace(path)


def _with_spread(axes: Any, at: Sequence[int], values: Sequence[tuple[float, ...]], label: str, colour: str) -> None:
    """A line through the means with a standard deviation to each side."""
    means, stds = np.array([(100 * np.mean(one), 100 * _std(one)) for one in values]).T
    axes.errorbar(at, means, stds, color=colour, marker="o", capsize=3, label=label)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _mean_std(values: tuple[float, ...]) -> list[str]:
    return [_percent(float(np.mean(values))), _percent(_std(values))]


def _plus_minus(values: tuple[float, ...]) -> str:
    return " ± ".join(_mean_std(values)) if len(values) > 1 else _percent(values[0])


def _std(values: tuple[float, ...]) -> float:
    """The standard deviation of a sample; 0 of a single value."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
