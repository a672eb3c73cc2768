"""Panels that several studies draw: errors over the epochs, and a figure of each seed as a dot."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxcnn.studies.spread import Spread
from jaxcnn.studies.trials import Trial

COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#aa3377", "#777777")
"""Of groups."""
SHADES = ("#66ccee", "#4477aa", "#228833", "#ee6677", "#aa3377")
"""Of an ordered quantity, such as depth, from the smallest."""


def draw_errors(axes: Any, trials: Sequence[Trial], colour: str, label: str) -> None:
    """Draws 1 - top1 in percent over the epochs, the mean of the trials that came to their end.

    In training mode solid, on validation dashed.
    """
    whole = [trial for trial in trials if trial.finite]
    for part, style in (("train", "-"), ("validation", "--")) if whole else ():
        errors = [[100 * (1 - line["top1"]) for line in getattr(trial, part)] for trial in whole]
        axes.plot(whole[0].epochs, np.mean(errors, axis=0), style, color=colour, linewidth=1.5,
                  label=label if part == "train" else None)  # fmt: skip


def draw_spreads(
    axes: Any, groups: Mapping[str, Mapping[Any, Spread]], factor: float = 1.0, colours: Sequence[str] = COLOURS
) -> None:
    """Draws, a line a group, the means over what they are taken at, and a dot a seed; values times a factor."""
    for (label, spreads), colour in zip(groups.items(), colours, strict=False):
        axes.plot(list(spreads), [factor * spread.mean for spread in spreads.values()], "-", color=colour, label=label,
                  linewidth=1.5)  # fmt: skip
        for place, spread in spreads.items():
            values = [factor * value for value in spread.values]
            axes.plot([place] * len(values), values, "o", color=colour, markersize=4, alpha=0.7)


def finish(axes: Any, *, legend: bool = True, **settings: Any) -> None:
    """Sets labels and limits of axes, a faint grid and a legend without a frame."""
    axes.set(**settings)
    axes.grid(alpha=0.25)
    if legend and axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=9)
