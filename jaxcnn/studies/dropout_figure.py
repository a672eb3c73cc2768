"""The figure of the study of dropout, and what it reads from trials."""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxcnn.studies.spread import Spread
from jaxcnn.studies.trials import Trial


def spread_of(trials: Sequence[Trial], figure: str) -> Spread:
    """Returns one figure over seeds; loss_gap: cross-entropy of validation less that of training images."""
    if figure == "correlation":
        return Spread.of([one.measured["correlation"] for one in trials])
    if figure == "loss_gap":
        return Spread.of([one.validation[-1]["loss"] - one.clean[-1]["loss"] for one in trials])
    return Spread.of([getattr(one, figure) for one in trials])


def draw_study(figure: Any, runs: Mapping[float, Sequence[Trial]]) -> None:
    """Draws accuracy, the gap of the loss and the correlation of features by rate on an empty matplotlib figure."""
    accuracy, gap, correlation = figure.subplots(1, 3)
    for axes, name, factor, colour, label in (
        (accuracy, "train_top1", 100, "#228833", "training images"),
        (accuracy, "top1", 100, "#ee6677", "validation"),
        (gap, "loss_gap", 1, "#4477aa", None),
        (correlation, "correlation", 1, "#aa3377", None),
    ):
        own = [spread_of(trials, name) for trials in runs.values()]
        axes.plot(tuple(runs), [factor * one.mean for one in own], color=colour, linewidth=1.6, label=label)
        for place, one in zip(runs, own, strict=True):
            axes.plot([place] * len(one.values), [factor * value for value in one.values], "o", color=colour,
                      markersize=4, alpha=0.6)  # fmt: skip
        axes.set_xlabel("dropout rate")
    accuracy.set(title="accuracy, without dropout", ylabel="top-1 (%)")
    accuracy.legend(fontsize=8)
    gap.set(title="gap of the loss", ylabel="validation less training (nats)", ylim=(0, None))
    correlation.set(title="features before the head", ylabel="mean |correlation|", ylim=(0, None))
