"""The loss over a sweep of the learning rate, and what it suggests.

Smith 2015, Cyclical Learning Rates, section 3.3, with fastai's exponential sweep and smoothing: the rate grows by the
same factor from step to step, and the loss falls while the rate is right, then rises.
"""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

SMOOTHING = 0.9
"""Weight of what was before in the moving average of the loss."""
DIVERGED = 2.0
"""How many times the lowest smoothed loss, and more than the first, is a loss that has diverged."""
FALLS = 0.05
"""Least share of the first loss by which the smoothed loss must fall for a suggestion."""
FIRST = 10
"""Steps at the start of a sweep whose mean loss is that before the rate does anything."""
SURE = 3.0
"""Standard deviations of a fall of the smoothed loss by noise alone, from which it counts as a fall: in a hundred steps
of nothing but noise some three sweeps in a hundred have one."""
RISES = 0.15
"""Of what the smoothed loss has fallen: a rise by more ends the descent. What a normalised network does at rates
far beyond, where its loss may fall again, says nothing of the rate to train at."""
BACK_OFF = {"sgd": 1.5, "adaptive": 10.0}
"""What the rate of the minimum is divided by. Gradient descent with momentum diverges soon after it. Adam's steps have
one length whatever the gradient, and a network with norms bears for a few steps ten times what it can be trained at."""


@dataclass(frozen=True)
class LrCurve:
    """A sweep of the learning rate.

    Attributes:
      rates: of each step, rising by one factor.
      losses: objective of each step before its update; the last may be not finite.
      smoothed: its exponential average with bias correction, as long as it is finite.
      steepest: the rate where the smoothed loss falls fastest over the logarithm of the rate.
      minimum: the rate where it is lowest before it rises for the first time (see `RISES`); minimum_tenth: its tenth.
      suggestion: `minimum` divided by a back-off (`BACK_OFF`, or what `find_lr` takes); none: no rate lowers the loss.
      diverged_at: the rate at which the sweep stopped; none: it came to its end.
      noisy: none is suggested, but a fall that would do could not be told from the noise between batches.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    steepest: float
    minimum: float
    minimum_tenth: float
    suggestion: float | None
    diverged_at: float | None
    noisy: bool = False

    def sentence(self) -> str:
        """Returns what a person is told."""
        swept = f"{self.rates[0]:.3g} to {self.rates[-1]:.3g} in {len(self.rates)} steps"
        if self.noisy:
            return (
                f"too noisy to tell in {len(self.rates)} steps which rate between {self.rates[0]:.3g} and "
                f"{self.rates[-1]:.3g} lowers the loss: a larger batch or more steps"
            )
        if self.suggestion is None:
            return f"no rate between {self.rates[0]:.3g} and {self.rates[-1]:.3g} lowers the loss by {100 * FALLS:g} %"
        end = "" if self.diverged_at is None else f", diverged at {self.diverged_at:.3g}"
        return (
            f"learning rate {self.suggestion:.2g} suggested (swept {swept}: steepest at {self.steepest:.2g}, "
            f"first minimum at {self.minimum:.2g}{end})"
        )

    def to_json(self) -> dict[str, Any]:
        """Returns the curve for `json.dumps`: numbers that are not finite are none."""

        def plain(value: Any) -> Any:
            if isinstance(value, tuple):
                return [plain(each) for each in value]
            if isinstance(value, bool):
                return value
            return None if value is None or not math.isfinite(value) else float(value)

        return {name: plain(value) for name, value in asdict(self).items()}

    def draw(self, axes: Any, planned: float | None = None) -> None:
        """Draws the curve on matplotlib axes, with the planned rate where there is one."""
        shown = [loss if math.isfinite(loss) else np.nan for loss in self.losses]
        axes.plot(self.rates, shown, color="#bbbbbb", linewidth=0.8, label="loss of a step")
        axes.plot(self.rates[: len(self.smoothed)], self.smoothed, color="#4477aa", label="smoothed")
        marks = [("steepest", self.steepest, "#228833", ":"), ("minimum / 10", self.minimum_tenth, "#ccbb44", ":")]
        marks += [] if self.suggestion is None else [("suggestion", self.suggestion, "#ee6677", "-")]
        marks += [] if planned is None else [("planned", planned, "#aa3377", "--")]
        for name, rate, colour, line in marks:
            axes.axvline(rate, color=colour, linestyle=line, linewidth=1.2, label=f"{name}: {rate:.2g}")
        if self.smoothed:
            low, high = min(self.smoothed), max(self.smoothed[:5])
            axes.set_ylim(low - 0.15 * (high - low) - 1e-3, high + 0.6 * (high - low) + 1e-3)
        axes.set_xscale("log")
        axes.set(xlabel="learning rate", ylabel="objective (nats)", title="learning-rate range test")
        axes.grid(alpha=0.25, which="both")
        axes.legend(frameon=False, loc="lower left", fontsize=8)

    def plot(self, path: str | Path, title: str = "", planned: float | None = None) -> None:
        """Draws the curve to a PNG, replaced whole."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7, 4.2), layout="constrained")
        FigureCanvasAgg(figure)
        self.draw(figure.subplots(), planned)
        figure.suptitle(title, parse_math=False)
        part = Path(path).with_name(f".{Path(path).name}")
        figure.savefig(part, dpi=110, format="png")
        part.replace(path)


def smooth(losses: Any, weight: float = SMOOTHING) -> np.ndarray:
    """Returns the exponential average of losses [N] with bias correction (Kingma & Ba 2014, section 3)."""
    average, smoothed = 0.0, []
    for place, loss in enumerate(losses):
        average = weight * average + (1 - weight) * float(loss)
        smoothed.append(average / (1 - weight ** (place + 1)))
    return np.asarray(smoothed)


def first_diverged(losses: Any, factor: float = DIVERGED, weight: float = SMOOTHING) -> int | None:
    """Returns the place of the first loss that is not finite, or at which the smoothed loss has diverged; none: of no.

    Diverged is a smoothed loss above the first one and above `factor` times the lowest before it.
    """
    for place, loss in enumerate(losses):
        if not math.isfinite(loss):
            return place
    smoothed = smooth(losses, weight)
    if not len(smoothed):
        return None
    limit = np.maximum(factor * np.minimum.accumulate(smoothed), smoothed[0])
    above = np.flatnonzero(smoothed > limit)
    return int(above[0]) if len(above) else None


def curve_of(
    rates: Any, losses: Any, back_off: float = BACK_OFF["sgd"], factor: float = DIVERGED, weight: float = SMOOTHING
) -> LrCurve:
    """Returns the curve of a sweep, cut where it diverges.

    Args:
      rates: of each step, rising by one factor.
      losses: of each step, before its update; as many.
      back_off: what the rate of the minimum is divided by.
      factor, weight: see `first_diverged`, `smooth`.
    """
    end = first_diverged(losses, factor, weight)
    rates, losses = [np.asarray(each, float)[: None if end is None else end + 1] for each in (rates, losses)]
    finite = losses if np.isfinite(losses[-1]) else losses[:-1]
    smoothed = smooth(finite, weight)
    noise = _noise(finite)
    lowest = _first_minimum(finite, smoothed, noise, weight)
    steepest = _steepest(rates, smoothed, lowest)
    least = _least_fall(finite, noise, weight)
    falls = len(smoothed) > 0 and _start(finite) - smoothed[lowest] >= least
    return LrCurve(
        rates=tuple(rates.tolist()),
        losses=tuple(losses.tolist()),
        smoothed=tuple(smoothed.tolist()),
        steepest=float(rates[steepest]),
        minimum=float(rates[lowest]),
        minimum_tenth=float(rates[lowest] / 10),
        suggestion=float(rates[lowest] / back_off) if falls else None,
        diverged_at=None if end is None else float(rates[-1]),
        noisy=bool(len(smoothed) and not falls and least > FALLS * abs(_start(finite))),
    )


def back_off_of(opt_state: Any) -> float:
    """Returns `BACK_OFF` for an optimizer by its state: adaptive is what holds second moments (`nu`), as Adam does.

    Others that make their steps of one length, such as lion and adafactor, hold none by that name and count as SGD.
    """
    held = "".join(jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(opt_state))
    return BACK_OFF["adaptive" if ".nu" in held else "sgd"]


def _start(losses: np.ndarray) -> float:
    """The loss before the rate does anything."""
    return float(np.mean(losses[:FIRST]))


def _noise(losses: np.ndarray) -> float:
    """The standard deviation of the loss between batches.

    It is had from neighbours, whose differences have a median of 0.954 of it where they are normal.
    """
    return float(np.median(np.abs(np.diff(losses)))) / 0.954 if len(losses) > 1 else 0.0


def _of_smoothed(noise: float, weight: float) -> float:
    """The standard deviation of the smoothed loss: of an exponential average of independent losses."""
    return noise * math.sqrt((1 - weight) / (1 + weight))


def _least_fall(losses: np.ndarray, noise: float, weight: float) -> float:
    """What counts as a fall: a share of the first loss, and `SURE` deviations of a smoothed loss from the start."""
    apart = math.hypot(_of_smoothed(noise, weight), noise / math.sqrt(FIRST))
    return max(FALLS * _start(losses), SURE * apart) if len(losses) else 0.0


def _first_minimum(losses: np.ndarray, smoothed: np.ndarray, noise: float, weight: float) -> int:
    """Place of the lowest smoothed loss before it rises again by a part `RISES` of what it had fallen, not by noise.

    The first steps are left out, unless there are few: averages of a few losses jump.
    """
    if not len(smoothed):
        return 0
    begin = FIRST if len(smoothed) > 2 * FIRST else 0
    later = smoothed[begin:]
    start, lows = _start(losses), np.minimum.accumulate(later)
    fallen = start - lows
    least_rise = np.maximum(RISES * fallen, 2 * _of_smoothed(noise, weight))
    rises = np.flatnonzero((fallen > _least_fall(losses, noise, weight)) & (later > lows + least_rise))
    end = int(rises[0]) if len(rises) else len(later)
    return begin + int(np.argmin(later[:end]))


def _steepest(rates: np.ndarray, smoothed: np.ndarray, lowest: int) -> int:
    """Place before the minimum at which the smoothed loss falls fastest over the logarithm of the rate.

    The first ten are left out: averages of a few losses jump.
    """
    if lowest < 2:
        return lowest
    slopes = np.gradient(smoothed, np.log(rates[: len(smoothed)]))
    begin = min(10, lowest // 2)
    return begin + int(np.argmin(slopes[begin : lowest + 1]))
