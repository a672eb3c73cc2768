"""Curves of a run: train and validation on the same axes."""

from pathlib import Path
from typing import Any


def plot_curves(lines: list[dict[str, Any]], path: Path, title: str) -> None:
    """Draws loss and top-1 of train and validation against epochs, and the learning rate, to a PNG.

    Args:
      lines: lines of metrics.jsonl.
      path: file to write, replaced whole.
      title: heading.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    loss, accuracy = figure.subplots(1, 2)
    epochs = [line["epoch"] for line in lines]
    for part, colour in (("train", "#4477aa"), ("validation", "#ee6677")):
        have = [(epoch, line[part]) for epoch, line in zip(epochs, lines, strict=True) if part in line]
        at = [epoch for epoch, _ in have]
        style = {"color": colour, "label": part, "marker": "o" if len(have) < 40 else None, "markersize": 3}
        loss.plot(at, [figures["loss"] for _, figures in have], **style)
        accuracy.plot(at, [100 * figures["top1"] for _, figures in have], **style)
    loss.set(xlabel="epoch", ylabel="cross-entropy (nats)", title="loss")
    if any(line[part]["loss"] > 0 for line in lines for part in ("train", "validation") if part in line):
        loss.set_yscale("log")
    for format_ticks in (loss.yaxis.set_major_formatter, loss.yaxis.set_minor_formatter):
        format_ticks("{x:g}")
    accuracy.set(xlabel="epoch", ylabel="top-1 (%)")
    rate = loss.twinx()
    rate.plot(epochs, [line["learning_rate"] for line in lines], color="#bbbbbb", linestyle="--", linewidth=1)
    rate.set_ylabel("learning rate (dashed)", color="#888888")
    rate.tick_params(colors="#888888")
    best = max(lines, key=lambda line: (line["validation"]["top1"], line["epoch"]))  # of equal ones the latest
    accuracy.axvline(best["epoch"], color="#ee6677", alpha=0.3, linewidth=1)
    accuracy.set_title(f"accuracy: best validation {100 * best['validation']['top1']:.2f} % at epoch {best['epoch']:g}")
    for axes in (loss, accuracy):
        axes.grid(alpha=0.25, which="both")
        axes.legend(frameon=False, loc="center right")
    figure.suptitle(title, parse_math=False)
    part_file = path.with_name(f".{path.name}")
    figure.savefig(part_file, dpi=110, format="png")
    part_file.replace(path)
