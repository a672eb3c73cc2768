"""The figure of the study of activations."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxcnn.inspection.derivatives import slopes
from jaxcnn.models.layers import ACTIVATIONS
from jaxcnn.studies.spread import Spread

COLOURS = {"sigmoid": "#ee6677", "tanh": "#ccbb44", "relu": "#4477aa", "gelu": "#228833"}


def draw_study(
    figure: Any,
    line: np.ndarray,
    curves: Mapping[str, np.ndarray],
    gradients: Mapping[tuple[str, int], Spread],
    accuracy: Mapping[tuple[str, int], Spread],
    depths: Sequence[int],
    chance: float,
) -> None:
    """Draws derivatives, gradients by depth, accuracies by depth, and the slopes on both sides of 0.

    Args:
      figure: an empty matplotlib figure.
      line: [n], where `curves` has the derivatives, by activation.
      gradients, accuracy: by (activation, layers).
      depths: in ascending order.
      chance: top-1 of a guess, 0..1.
    """
    axes = figure.subplots(2, 2)
    draw_derivatives(axes[0, 0], line, curves)
    _draw_kink(axes[0, 1])
    draw_by_depth(axes[1, 0], gradients, depths)
    axes[1, 0].set(title="gradient of the first kernel before training", ylabel="norm", yscale="log")
    draw_by_depth(axes[1, 1], accuracy, depths, factor=100)
    axes[1, 1].axhline(100 * chance, color="#999999", linewidth=1, linestyle=":")
    axes[1, 1].annotate(
        "chance", (depths[0], 100 * chance), xytext=(0, 3), textcoords="offset points", fontsize=8, color="#777777"
    )
    axes[1, 1].set(title="after training", ylabel="top-1 on validation (%)", ylim=(0, 100))


def draw_derivatives(axes: Any, line: np.ndarray, curves: Mapping[str, np.ndarray]) -> None:
    """Draws f' over x."""
    for name, values in curves.items():
        axes.plot(line, values, color=COLOURS[name], label=name, linewidth=1.6)
    axes.axhline(0.25, color="#999999", linewidth=1, linestyle=":")
    axes.annotate("1/4", (line[0], 0.25), xytext=(2, 3), textcoords="offset points", fontsize=8, color="#777777")
    axes.set(title="derivatives", xlabel="x", ylabel="f '(x)")
    axes.legend(fontsize=8)


def _draw_kink(axes: Any) -> None:
    """Draws the difference of the slopes on both sides of 0 against the step."""
    for name in COLOURS:
        own = slopes(ACTIVATIONS[name])
        jumps = np.maximum(np.abs(own.jump), 1e-12)  # sigmoid and tanh are odd about 0: they differ by rounding alone
        axes.loglog(own.steps, jumps, color=COLOURS[name], marker="o", markersize=3, label=name)
    axes.set(
        title="slope to the right of 0 less that to the left",
        xlabel="step h",
        ylabel="difference (1e-12 where it is less)",
    )
    axes.legend(fontsize=8)


def draw_by_depth(
    axes: Any, values: Mapping[tuple[str, int], Spread], depths: Sequence[int], factor: float = 1.0
) -> None:
    """Draws the mean of each activation against the number of layers, with lowest and highest seed."""
    for name in COLOURS:
        there = [depth for depth in depths if (name, depth) in values]
        own = [values[name, depth] for depth in there]
        mean = np.asarray([factor * one.mean for one in own])
        low, high = (np.asarray([factor * getattr(one, end) for one in own]) for end in ("low", "high"))
        axes.plot(there, mean, color=COLOURS[name], marker="o", markersize=4, label=name)
        axes.fill_between(there, low, high, color=COLOURS[name], alpha=0.2, linewidth=0)
    axes.set_xlabel("layers with weights")
    axes.set_xticks(depths)
