"""The figure of the study `receptive-field`."""

from typing import Any

import numpy as np

from jaxcnn.inspection.effective_field import random_walk
from jaxcnn.studies.seen_pixels import Seen, Trained

_CELLS = 64  # along an axis of a heat map, about
_FIELD, _COUNTS, _THEORY = "#4477aa", "#ee6677", "#777777"


def draw(networks: dict[str, list[Seen]], growth: dict[int, Seen], trained: list[Trained], figure: Any) -> None:
    """Draws heat maps of two networks and of the deepest stack, the growth with depth, and a map that was trained."""
    above, below = figure.subplots(2, 3)
    chosen = [(name, fields[-1]) for name, fields in networks.items() if name in ("vgg16", "resnet50")]
    depth, deepest = list(growth.items())[-1]
    _draw_seen(above[0], deepest, f"{depth} 3x3 layers in a row")
    for axes, (name, seen) in zip(above[1:], chosen, strict=True):
        _draw_seen(axes, seen, f"{name}, {seen.part}")
    _draw_growth(below[0], growth)
    for axes, when in zip(below[1:], ("before", "after"), strict=True):
        heats = [getattr(of, when) for of in trained]
        _draw_heat(axes, np.mean([heat / heat.sum() for heat in heats], axis=0))
        axes.set_title(f"last map of a ResNet, {when} training", fontsize=8.5)


def _draw_seen(axes: Any, seen: Seen, title: str) -> None:
    from matplotlib.patches import Rectangle

    _draw_heat(axes, seen.heats.mean(axis=0))
    first, size = seen.expected[0] - 0.5, seen.theory.size
    axes.add_patch(Rectangle((first, first), size, size, fill=False, edgecolor="#66ccee", linewidth=1.2))
    axes.set_title(f"{title}: can see {size} px, sigma {np.mean(seen.sigmas):.3g} px", fontsize=8.5)


def _draw_heat(axes: Any, heat: np.ndarray) -> None:
    step = max(1, min(heat.shape) // _CELLS)  # of large images means of squares, since few draws are grainy
    height, width = (size // step for size in heat.shape)
    cells = heat[: height * step, : width * step].reshape(height, step, width, step).mean(axis=(1, 3))
    extent = (-0.5, width * step - 0.5, height * step - 0.5, -0.5)
    shown = np.sqrt(cells / cells.max())
    axes.imshow(shown, cmap="inferno", vmin=0, vmax=1, interpolation="nearest", extent=extent)
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
    axes.set_yticks([2, 5, 10, 20, 50, 100], ["2", "5", "10", "20", "50", "100"])
    axes.minorticks_off()
    axes.set_title("what could be seen, and what counts", fontsize=8.5)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize=8)


def _deviation(values: np.ndarray) -> np.ndarray:
    return values.std(axis=1, ddof=1) if values.shape[1] > 1 else np.zeros(len(values))
