"""The figure of a sweep: validation top-1 against what was varied."""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxcnn.tuning.axes import Axis
from jaxcnn.tuning.sweep_folder import Sweep, text_of

_MEAN, _SEED, _BEST, _PRUNED = "#4477aa", "#99bbdd", "#ee6677", "#aaaaaa"
_PANELS = 6  # most fields of a search that are drawn
_BARS = 40  # most settings of a chart of all


def draw(rows: Sequence[Any], sweep: Sweep, best: Any, path: Path) -> None:
    """Draws a sweep to a PNG, which is replaced whole.

    One field: top-1 against its value, a dot a seed, mean and standard deviation; two of a grid: a map with the mean of
    each pair; more of a grid: all settings in the order of their means; a search: a panel a field.

    Args:
      rows: of the table (`sweep_report.Row`); those without a figure are left out.
      sweep: what was varied.
      best: the row that is marked.
      path: file to write.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = [row for row in rows if row.top1 or row.stopped_top1]
    figure = Figure(layout="constrained")
    FigureCanvasAgg(figure)
    if sweep.search is not None or len(sweep.axes) == 1:
        _panels(figure, shown, sweep.axes[:_PANELS], best, lines=sweep.search is None)
    elif len(sweep.axes) == 2:
        _map(figure, shown, sweep.axes, best)
    else:
        _ranking(figure, shown, sweep.axes, best)
    figure.suptitle(f"{sweep.base.name}: best validation top-1 of each setting", parse_math=False)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")  # workers of a search draw the same file
    figure.savefig(part, dpi=110, format="png")
    part.replace(path)


def is_log(values: Sequence[Any]) -> bool:
    """Returns whether values are numbers that span more than a decade, and so want a logarithmic axis."""
    return _are_numbers(values) and min(values) > 0 and max(values) / min(values) > 10


def _are_numbers(values: Sequence[Any]) -> bool:
    return all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)


def _panels(figure: Any, rows: Sequence[Any], axes: Sequence[Axis], best: Any, *, lines: bool) -> None:
    """Top-1 against each field; of one field of a grid the means are joined."""
    columns = min(3, len(axes))
    height = math.ceil(len(axes) / columns)
    figure.set_size_inches(max(7.0, 4.2 * columns), 4.4 * height)
    for index, axis in enumerate(axes):
        panel = figure.add_subplot(height, columns, index + 1)
        _panel(panel, rows, index, axis, best, lines=lines)
        panel.set_xlabel(axis.label, parse_math=False)
        panel.set_ylabel("validation top-1 (%)")
        panel.grid(alpha=0.25)
    panel.legend(frameon=False, fontsize=8)


def _panel(panel: Any, rows: Sequence[Any], index: int, axis: Axis, best: Any, *, lines: bool) -> None:
    values = [row.values[index] for row in rows]
    ends = [axis.range.low, axis.range.high] if axis.range else list(axis.values)
    order = ends if axis.range else [value for value in ends if value in values]
    if _are_numbers(ends):
        place = {value: value for value in values}
        if axis.range.log if axis.range else is_log(ends):
            panel.set_xscale("log")
    else:
        place = {value: order.index(value) for value in values}
        panel.set_xticks(range(len(order)), [text_of(value) for value in order], parse_math=False)
    if not axis.range and _are_numbers(ends) and len(order) <= 10:
        panel.set_xticks(order, [text_of(value) for value in order])
        panel.set_xticks([], minor=True)
    done = sorted((row for row in rows if row.top1), key=lambda row: place[row.values[index]])
    at = [place[row.values[index]] for row in done]
    if any(len(row.top1) > 1 for row in done):
        dots = [(x, 100 * top1) for x, row in zip(at, done, strict=True) for top1 in row.top1]
        panel.plot(*zip(*dots, strict=True), "o", color=_SEED, markersize=4, label="a seed", zorder=1)
    means = [100 * row.mean for row in done]
    bars = [0.0 if math.isnan(row.std) else 100 * row.std for row in done]
    several = any(bars)
    panel.errorbar(at, means, bars if several else None, color=_MEAN, marker="o", markersize=5, capsize=3,
                   linestyle="-" if lines and _are_numbers(ends) else "none",
                   label="mean and standard deviation" if several else "a setting")  # fmt: skip
    stopped = [(place[row.values[index]], 100 * max(row.stopped_top1)) for row in rows if row.stopped_top1]
    if stopped:
        panel.plot(*zip(*stopped, strict=True), "x", color=_PRUNED, label="pruned, until then")
    panel.plot([place[best.values[index]]], [100 * best.mean], "o", color=_BEST, markersize=11, fillstyle="none",
               markeredgewidth=2, label=f"best: {100 * best.mean:.2f} %", zorder=3)  # fmt: skip


def _map(figure: Any, rows: Sequence[Any], axes: Sequence[Axis], best: Any) -> None:
    """The mean of each pair of values, as colour and number."""
    down, across = axes
    means = np.full((len(down.values), len(across.values)), np.nan)
    texts = {}
    for row in rows:
        if row.top1:
            at = (down.values.index(row.values[0]), across.values.index(row.values[1]))
            means[at] = 100 * row.mean
            texts[at] = f"{means[at]:.2f}" + ("" if math.isnan(row.std) else f"\n± {100 * row.std:.2f}")
    figure.set_size_inches(3.2 + 1.1 * len(across.values), 2.2 + 0.8 * len(down.values))
    panel = figure.add_subplot()
    image = panel.imshow(means, cmap="viridis", aspect="auto")
    middle = (np.nanmin(means) + np.nanmax(means)) / 2
    for at, text in texts.items():
        is_best = (down.values[at[0]], across.values[at[1]]) == best.values
        colour = "black" if means[at] > middle else "white"
        panel.text(at[1], at[0], text, ha="center", va="center", color=colour, fontsize=9,
                   fontweight="bold" if is_best else "normal")  # fmt: skip
        if is_best:
            panel.add_patch(_frame(at))
    panel.set_xticks(range(len(across.values)), [text_of(value) for value in across.values], parse_math=False)
    panel.set_yticks(range(len(down.values)), [text_of(value) for value in down.values], parse_math=False)
    panel.set_xlabel(across.label, parse_math=False)
    panel.set_ylabel(down.label, parse_math=False)
    figure.colorbar(image, label="validation top-1 (%), mean over seeds")


def _frame(at: tuple[int, int]) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((at[1] - 0.49, at[0] - 0.49), 0.98, 0.98, fill=False, edgecolor=_BEST, linewidth=3)


def _ranking(figure: Any, rows: Sequence[Any], axes: Sequence[Axis], best: Any) -> None:
    """All settings, the best at the top, with a dot a seed and the standard deviation."""
    done = sorted((row for row in rows if row.top1), key=lambda row: (row is not best, -row.mean))[:_BARS]
    figure.set_size_inches(9, 1.6 + 0.32 * len(done))
    panel = figure.add_subplot()
    names = []
    for place, row in enumerate(done):
        colour = _BEST if row is best else _MEAN
        panel.plot([100 * top1 for top1 in row.top1], [place] * len(row.top1), "o", color=_SEED, markersize=4)
        bar = None if math.isnan(row.std) else [100 * row.std]
        panel.errorbar([100 * row.mean], [place], xerr=bar, color=colour, marker="o", capsize=3)
        names.append(", ".join(f"{axis.label} {text_of(one)}" for axis, one in zip(axes, row.values, strict=True)))
    panel.set_yticks(range(len(done)), names, parse_math=False, fontsize=8)
    panel.invert_yaxis()
    panel.set_xlabel("validation top-1 (%): a dot a seed, mean and standard deviation")
    panel.grid(alpha=0.25, axis="x")
