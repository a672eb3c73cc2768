"""Curves of a run, train and validation on the same axes, and of several runs beside each other."""

import io
import textwrap
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxcnn.gap import split_of_line

Lines = Sequence[Mapping[str, Any]]

PARTS = {"train": "#4477aa", "clean": "#228833", "validation": "#ee6677"}
"""What is drawn of a run, and in which colour."""
_LABELS = {"train": "train", "clean": "train, clean", "validation": "validation"}
_RUNS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#777777", "#ee8866", "#004488", "#997700")
_DASHES: tuple[Any, ...] = ("-", "-.", ":")  # of validation, where there are more runs than colours
_MOST_MARKED = 40  # evaluations up to which each has a marker

_SHORT_AXIS = 10_000  # ratio of the ends of a logarithmic axis up to which it has more ticks than the decades
_CEILING = 4  # times the lowest loss of the worst run: what is above, such as a run that diverged, is cut off


def plot_curves(lines: Lines, path: Path, title: str, note: str = "") -> None:
    """Draws loss and top-1 of train and validation against epochs, and the learning rate, to a PNG.

    *Clean* train figures, where lines have them, lie between: what is shaded above and below them is the gap between
    train and validation in its two parts, told in a line for the last evaluation.

    Args:
      lines: lines of metrics.jsonl.
      path: file to write, replaced whole.
      title: heading.
      note: a sentence below the heading, such as that of `diagnosis.diagnose`.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.9), layout="constrained")
    loss, accuracy = figure.subplots(1, 2, sharex=True)
    draw_loss(loss, lines)
    draw_accuracy(accuracy, lines)
    note = textwrap.fill(note, 140)
    figure.suptitle(f"{title}\n{note}" if note else title, parse_math=False, fontsize=10)
    if lines:
        figure.supxlabel(textwrap.fill(split_of_line(lines[-1]), 180), fontsize=8, color="#555555", parse_math=False)
    save(figure, path)


def draw_loss(axes: Any, lines: Lines) -> None:
    """Draws the cross-entropies against epochs, and the learning rate dashed behind them."""
    _draw_part(axes, lines, "loss", 1)
    axes.set(xlabel="epoch", ylabel="cross-entropy (nats)", title="loss")
    if any(line[part]["loss"] > 0 for line in lines for part in PARTS if part in line):
        axes.set_yscale("log")
    _plain_numbers(axes)
    rate = axes.twinx()
    rate.plot([line["epoch"] for line in lines], [line["learning_rate"] for line in lines],
              color="#bbbbbb", linestyle="--", linewidth=1)  # fmt: skip
    rate.set_ylabel("learning rate (dashed)", color="#777777")
    rate.tick_params(colors="#777777")
    rate.set_ylim(bottom=0)
    axes.set_zorder(rate.get_zorder() + 1)
    axes.patch.set_visible(False)


def draw_accuracy(axes: Any, lines: Lines) -> None:
    """Draws top-1 in percent against epochs, and marks the best validation."""
    _draw_part(axes, lines, "top1", 100)
    axes.set(xlabel="epoch", ylabel="top-1 (%)", title="accuracy")
    if any("validation" in line for line in lines):
        best = best_line(lines)
        top1 = 100 * best["validation"]["top1"]
        axes.plot(best["epoch"], top1, marker="*", markersize=11, color=PARTS["validation"], markeredgecolor="white")
        axes.set_title(f"accuracy: best validation {top1:.2f} % at epoch {best['epoch']:g}")


def _draw_part(axes: Any, lines: Lines, figure: str, scale: float) -> None:
    """The lines of one figure, with what lies between them shaded."""
    for part, colour in PARTS.items():
        have = [line for line in lines if part in line]
        if have:
            marker = "o" if len(have) <= _MOST_MARKED else None
            axes.plot([line["epoch"] for line in have], [scale * line[part][figure] for line in have],
                      color=colour, label=_LABELS[part], marker=marker, markersize=3, linewidth=1.6)  # fmt: skip
    clean = [line for line in lines if "clean" in line and "validation" in line]
    for other in ("train", "validation"):
        first, second = ([scale * line[part][figure] for line in clean] for part in ("clean", other))
        axes.fill_between([line["epoch"] for line in clean], first, second, color=PARTS[other], alpha=0.12, linewidth=0)
    axes.grid(alpha=0.25, which="both")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, loc="best", fontsize=9)


def best_line(lines: Lines) -> Mapping[str, Any]:
    """Returns the line with the highest validation top-1; of equal ones the latest."""
    return max(lines, key=lambda line: (line["validation"]["top1"], line["epoch"]))


def plot_several(runs: Mapping[str, Lines], path: Path) -> None:
    """Draws runs over each other to a PNG: validation solid, train dashed, one colour a run, the best marked.

    Args:
      runs: lines of metrics.jsonl by the name of the run, in the order of the legend.
      path: file to write, replaced whole.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    figure = Figure(figsize=(11, 4.8 + 0.22 * -(-len(runs) // 3)), layout="constrained")
    loss, accuracy = figure.subplots(1, 2, sharex=True)
    winner = max(runs, key=lambda name: best_line(runs[name])["validation"]["top1"])
    handles = []
    for place, (name, lines) in enumerate(runs.items()):
        colour, dashes = _RUNS[place % len(_RUNS)], _DASHES[place // len(_RUNS) % len(_DASHES)]
        epochs, best = [line["epoch"] for line in lines], best_line(lines)
        top1 = 100 * best["validation"]["top1"]
        for axes, key, scale in ((loss, "loss", 1), (accuracy, "top1", 100)):
            for part, style, width in (("train", "--", 0.9), ("validation", dashes, 1.7)):
                axes.plot(epochs, [scale * line[part][key] for line in lines], style, color=colour, linewidth=width,
                          alpha=0.7 if part == "train" else 1)  # fmt: skip
        size = 16 if name == winner else 10
        accuracy.plot(best["epoch"], top1, "*", color=colour, markersize=size, markeredgecolor="white", zorder=5)
        handles.append(Line2D([], [], color=colour, linestyle=dashes, label=f"{name}: best {top1:.2f} %"))
    loss.set(xlabel="epoch", ylabel="cross-entropy (nats)", title="loss: validation solid, train dashed")
    loss.set_yscale("log")
    losses = [[line[part]["loss"] for line in lines for part in ("train", "validation")] for lines in runs.values()]
    ceiling = _CEILING * max(min(run) for run in losses)
    if ceiling < max(max(run) for run in losses):
        lowest = min(min(run) for run in losses)
        loss.set_ylim(0.8 * lowest if lowest > 0 else None, ceiling)
    _plain_numbers(loss)
    accuracy.set(xlabel="epoch", ylabel="top-1 (%)", title="accuracy: the best of each run marked")
    for axes in (loss, accuracy):
        axes.grid(alpha=0.25, which="both")
    legend = figure.legend(handles=handles, loc="outside lower center", ncols=min(3, len(runs)), frameon=False,
                           fontsize=9)  # fmt: skip
    for text in legend.get_texts():
        text.set_parse_math(False)  # a name may hold a $
    save(figure, path)


def _plain_numbers(axes: Any) -> None:
    """Ticks of a logarithmic axis as plain numbers, where it is short at 1, 2 and 5 of each decade."""
    from matplotlib.ticker import LogLocator

    if axes.get_yscale() == "log":
        low, high = axes.get_ylim()
        if high < _SHORT_AXIS * low:
            axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("")


def save(figure: Any, path: Path, dpi: int = 110) -> None:
    """Writes a figure as PNG, whole or not at all."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    part_file = path.with_name(f".{path.name}")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # drawn as boxes where no font has them
        figure.savefig(part_file, dpi=dpi, format="png")
    part_file.replace(path)


def as_svg(draw: Callable[[Any], None], size: tuple[float, float] = (5.4, 3.9)) -> str:
    """Returns what `draw` draws into axes as an SVG element, with text as text, for a page.

    Args:
      draw: takes matplotlib axes.
      size: width and height in inches of 72 px.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasSVG(figure)
    draw(figure.subplots())
    file = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "font.family": "sans-serif"}):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = file.getvalue()
    return text[text.index("<svg") :]
