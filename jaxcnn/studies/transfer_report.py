"""Tables and figure of the study of transferability."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxcnn.studies.few_images import CONTROL, FROZEN, SCRATCH, TUNED, Few
from jaxcnn.studies.findings import Cell, Table
from jaxcnn.studies.spread import Spread
from jaxcnn.studies.stage_probes import PRETRAINED

_COLOURS = ("#4477aa", "#228833", "#ccbb44", "#aa3377")
_SOURCE = "#777777"
_METHODS = {FROZEN: "#4477aa", TUNED: "#aa3377", SCRATCH: "#ee6677", CONTROL: "#bbbbbb"}


@dataclass(frozen=True)
class Curve:
    """Top-1 on validation, 0..1, of the probes on each point in order: one value a network."""

    name: str
    kind: str
    is_source: bool
    top1: tuple[Spread, ...]

    def gain(self) -> Spread:
        """What the last point adds to the one before it."""
        return Spread.of(np.subtract(self.top1[-1].values, self.top1[-2].values).tolist())


def points_table(points: Sequence[str], curves: Sequence[Curve]) -> Table:
    """Returns top-1 by point and curve."""
    head = ["point"]
    for curve in curves:
        name = f"{'source: ' if curve.is_source else ''}{curve.name}{'' if curve.kind == PRETRAINED else ', random'}"
        head += [name, "std"]
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (point, *(100 * value for curve in curves for value in (curve.top1[place].mean, curve.top1[place].std)))
        for place, point in enumerate(points)
    )
    caption = (
        "Top-1 in percent on validation of linear probes by point of the network, with the deviation over networks: of "
        "pretrained weights on their own task and on others, and of random weights."
    )
    return Table("points", caption, tuple(head), rows)


def few_table(curve: Sequence[Few]) -> Table:
    """Returns top-1 by images a class and method; a method that was not run has a dash."""
    methods = [name for name in _METHODS if any(name in few.top1 for few in curve)]
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (
            "all" if few.count is None else few.count,
            *(None if name not in few.top1 else 100 * value(few.top1[name]) for name in methods for value in _MEAN_STD),
        )
        for few in curve
    )
    head = ("images a class", *(part for name in methods for part in (name, "std")))
    return Table("few", "Top-1 in percent on validation of the first target, from few images a class.", head, rows)


_MEAN_STD = (lambda spread: spread.mean, lambda spread: spread.std)


def draw(figure: Any, points: Sequence[str], curves: Sequence[Curve], few: Sequence[Few]) -> None:
    """Draws accuracy against the point, and against the number of images a class."""
    by_point, by_count = figure.subplots(1, 2)
    names = list(dict.fromkeys(curve.name for curve in curves if not curve.is_source))
    for curve in curves:
        colour = _SOURCE if curve.is_source else _COLOURS[names.index(curve.name) % len(_COLOURS)]
        told = f"{'source: ' if curve.is_source else ''}{curve.name}"
        if curve.kind == PRETRAINED:
            style: dict[str, Any] = {"marker": "s" if curve.is_source else "o", "label": told}
        else:
            style = {"marker": ".", "linestyle": ":", "label": f"{told}, random weights"}
        _with_spread(by_point, curve.top1, colour, **style)
    by_point.set_xticks(range(len(points)), points)
    by_point.set(xlabel="point of the network", ylabel="top-1 of a probe (%)", title="what each stage knows")
    for name, colour in _METHODS.items():
        held = [(place, one.top1[name]) for place, one in enumerate(few) if name in one.top1]
        if held:
            _with_spread(by_count, [spread for _, spread in held], colour, places=[place for place, _ in held],
                         marker="o", label=name)  # fmt: skip
    by_count.set_xticks(range(len(few)), ["all" if one.count is None else str(one.count) for one in few])
    by_count.set(
        xlabel="training images a class", ylabel="top-1 on validation (%)", title=f"from few images: {names[0]}"
    )
    for axes in (by_point, by_count):
        axes.grid(alpha=0.25)
        for text in axes.legend(frameon=False, fontsize=8).get_texts():
            text.set_parse_math(False)
        axes.title.set_parse_math(False)


def _with_spread(axes: Any, spreads: Sequence[Spread], colour: str, places: Any = None, **style: Any) -> None:
    at = list(range(len(spreads))) if places is None else places
    mean, std = (np.array([100 * value(spread) for spread in spreads]) for value in _MEAN_STD)
    axes.plot(at, mean, color=colour, **style)
    axes.fill_between(at, mean - std, mean + std, color=colour, alpha=0.15, linewidth=0)
