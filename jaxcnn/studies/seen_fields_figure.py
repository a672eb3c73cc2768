"""The figure of the study `receptive-field`."""

from typing import Any

import numpy as np

from jaxcnn.inspection.effective_field import random_walk
from jaxcnn.studies.seen_pixels import Seen

_FIELD, _COUNTS, _THEORY = "#4477aa", "#ee6677", "#777777"


def draw(
    networks: dict[str, list[Seen]], growth: dict[int, Seen], trained: list[dict[str, np.ndarray]], figure: Any
) -> None:
    """Draws heat maps of two networks and of the deepest stack, the growth with depth, and a map that was trained."""
    above, below = figure.subplots(2, 3)
    chosen = [(name, fields[-1]) for name, fields in networks.items() if name in ("vgg16", "resnet50")]
    depth, deepest = list(growth.items())[-1]
    _draw_seen(above[0], deepest, f"{depth} 3x3 layers in a row")
    for axes, (name, seen) in zip(above[1:], chosen, strict=True):
        _draw_seen(axes, seen, f"{name}, {seen.part}")
    _draw_growth(below[0], growth)
    for axes, when in zip(below[1:], ("before", "after"), strict=True):
        _draw_heat(axes, np.mean([of[when] / of[when].sum() for of in trained], axis=0))
        axes.set_title(f"last map of a small ResNet, {when} training", fontsize=9)


def _draw_seen(axes: Any, seen: Seen, title: str) -> None:
    from matplotlib.patches import Rectangle

    _draw_heat(axes, seen.heats.mean(axis=0))
    first, size = seen.expected[0] - 0.5, seen.theory.size
    axes.add_patch(Rectangle((first, first), size, size, fill=False, edgecolor="#66ccee", linewidth=1.2))
    axes.set_title(f"{title}: can see {size} px, sigma {np.mean(seen.sigmas):.3g} px", fontsize=9)


def _draw_heat(axes: Any, heat: np.ndarray) -> None:
    axes.imshow(heat / heat.max(), cmap="inferno", vmin=0, vmax=1, interpolation="nearest")
    axes.set(xlabel="pixel", ylabel="pixel")
    axes.tick_params(labelsize=7)


def _draw_growth(axes: Any, growth: dict[int, Seen]) -> None:
    depths = np.array(list(growth))
    sigmas = np.array([seen.sigmas for seen in growth.values()])  # [depths, seeds]
    axes.plot(depths, [seen.theory.size for seen in growth.values()], "s-", color=_FIELD, label="theoretical field")
    axes.errorbar(depths, sigmas.mean(axis=1), yerr=_deviation(sigmas), fmt="o", color=_COUNTS, capsize=3,
                  label="sigma of the squared gradient")  # fmt: skip
    line = np.geomspace(depths[0], depths[-1], 50)
    walk = random_walk([(3, 1)])
    axes.plot(line, walk * np.sqrt(line), "--", color=_THEORY, label="random walk: sqrt(2 n / 3)")
    axes.set(xscale="log", yscale="log", xlabel="3x3 layers", ylabel="pixels")
    axes.set_xticks(depths, [str(depth) for depth in depths])
    axes.minorticks_off()
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_title("what could be seen, and what counts", fontsize=9)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize=8)


def _deviation(values: np.ndarray) -> np.ndarray:
    return values.std(axis=1, ddof=1) if values.shape[1] > 1 else np.zeros(len(values))
