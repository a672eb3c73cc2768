"""What the curves of a run say, by stated rules: what is wrong, the figures that show it, and what to try.

The rules, in this order; the first that holds is the diagnosis. *fit* is the clean train figures where the lines have
them (evaluation mode, no augmentation), else the running ones; *late* a median over the last 3 evaluations; *peak* the
highest learning rate so far; K classes, so that guessing has a loss of ln K and a top-1 of 1 / K. A run is *done* when
it has a result or its planned epochs, or, where neither is known, once its rate is below a tenth of the peak.

| kind          | holds where                                                                                        |
|---------------|----------------------------------------------------------------------------------------------------|
| diverged      | the run stopped on a loss that is not finite; or the last loss is not; or the late train loss is   |
|               | above 2 ln K with a top-1 below 2 / K                                                              |
| early         | fewer than 4 evaluations                                                                           |
| rate too high | at half the peak or more, 2 evaluations have a train loss above 1.2 times the lowest before them   |
|               | plus 0.05 ln K; or the median there is above 0.95 ln K, and below half the peak it falls under 0.9 |
|               | of that                                                                                            |
| plateau       | 6 evaluations or more, train top-1 late below 90 %, a mean rate over the last third above half the |
|               | peak, and a median train loss there above 0.97 of that of the third before or above 0.95 ln K      |
| overfit       | late fit top-1 10 points above validation's; or 3 points, with a late validation loss 1.15 times   |
|               | the lowest of its running medians, and the fit loss no higher than there. While the rate is above  |
|               | half the peak and the run is not done: 20 points, 1.5 times, and 6 evaluations or more             |
| early         | not done, and late fit top-1 below 80 %                                                            |
| underfit      | late fit top-1 below 80 %                                                                          |
| healthy       | all else                                                                                           |

Thresholds are in shares and ratios, not in nats, so that they hold for 2 classes as for 1,000. What a task allows they
cannot know: where labels are noisy, 75 % may be the best there is, and "underfit" then says only that train and
validation agree.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

Kind = Literal["early", "diverged", "rate too high", "plateau", "overfit", "underfit", "healthy"]

_MOST_LOSS = 2.0  # times ln K
_FEWEST, _FEWEST_UNSETTLED = 4, 6
_RISE, _RISE_LN_K = 1.2, 0.05
_STUCK, _RECOVERED = 0.95, 0.9
_PLATEAU, _PLATEAU_TOP1, _FEWEST_PLATEAU = 0.97, 0.9, 6
_GAP, _GAP_UNSETTLED, _GAP_WITH_RISE = 0.10, 0.20, 0.03
_VALIDATION_RISE, _VALIDATION_RISE_UNSETTLED = 1.15, 1.5
_FIT_TOP1 = 0.8


@dataclass(frozen=True)
class Diagnosis:
    """What the curves of a run say.

    Attributes:
      kind: which rule held.
      sentence: the figures that it rests on, and what to try.
    """

    kind: Kind
    sentence: str

    @property
    def is_alarm(self) -> bool:
        """Whether something is wrong."""
        return self.kind not in ("early", "healthy")


def diagnose(
    lines: Sequence[Mapping[str, Any]],
    result: Mapping[str, Any] | None = None,
    *,
    num_classes: int,
    epochs: float | None = None,
    failed: bool = False,
) -> Diagnosis:
    """Returns what the lines of metrics.jsonl say by the rules of this module.

    Args:
      lines: with epoch, train, validation, learning_rate and perhaps clean; as many as there are so far.
      result: that of the run, if it has ended.
      num_classes: K.
      epochs: planned length of the run; none: not known.
      failed: whether the run stopped on a loss that is not finite, which leaves no line.
    """
    curves = _Curves(lines, math.log(max(num_classes, 2)), result is not None, epochs)
    if failed or (lines and curves.not_finite):
        return Diagnosis("diverged", _told_not_finite(curves))
    if lines and curves.train_loss[-3:].min() > _MOST_LOSS * curves.guess and curves.late_train < 2 / num_classes:
        return Diagnosis("diverged", _told_far(curves))
    if len(lines) < _FEWEST:
        return Diagnosis("early", f"too early to say: {len(lines)} evaluation{'s' * (len(lines) != 1)}")
    for rule in (_rate_too_high, _plateau, _overfit, _underfit):
        found = rule(curves)
        if found is not None:
            return found
    return _healthy(curves)


@dataclass(frozen=True)
class _Curves:
    """The lines as arrays [evaluations], and what the rules ask of them."""

    lines: Sequence[Mapping[str, Any]]
    guess: float
    """Loss of guessing, ln K."""
    has_result: bool
    planned: float | None

    def _of(self, part: str, figure: str) -> np.ndarray:
        return np.array([line[part][figure] for line in self.lines], np.float64)

    @cached_property
    def epoch(self) -> np.ndarray:
        return np.array([line["epoch"] for line in self.lines], np.float64)

    @cached_property
    def rate(self) -> np.ndarray:
        return np.array([line["learning_rate"] for line in self.lines], np.float64)

    @cached_property
    def train_loss(self) -> np.ndarray:
        return self._of("train", "loss")

    @cached_property
    def validation_loss(self) -> np.ndarray:
        return self._of("validation", "loss")

    @cached_property
    def fit_part(self) -> str:
        """Which figures say how well the network fits its examples: a run that was gone on with may lack clean ones."""
        return "clean" if all("clean" in line for line in self.lines) else "train"

    @property
    def fit_name(self) -> str:
        return "clean train" if self.fit_part == "clean" else "train"

    @cached_property
    def fit_loss(self) -> np.ndarray:
        return self._of(self.fit_part, "loss")

    def late(self, part: str, figure: str = "top1") -> float:
        return float(np.median(self._of(part, figure)[-3:]))

    @property
    def late_train(self) -> float:
        return self.late("train")

    @property
    def not_finite(self) -> bool:
        return not (math.isfinite(self.train_loss[-1]) and math.isfinite(self.validation_loss[-1]))

    @property
    def done(self) -> bool:
        if self.has_result:
            return True
        if self.planned is not None:
            return bool(self.epoch[-1] >= self.planned - 1e-6)
        return bool(self.rate[-1] < 0.1 * self.rate.max())

    @property
    def settled(self) -> bool:
        """Whether figures no longer jump with each step of a high rate."""
        return self.done or bool(self.rate[-1] < 0.5 * self.rate.max())

    @property
    def third(self) -> int:
        return max(2, len(self.lines) // 3)

    @property
    def progress(self) -> float:
        """Train loss over the last third as a part of that of the third before: medians."""
        before = self.train_loss[-2 * self.third : -self.third]
        return float(np.median(self.train_loss[-self.third :]) / max(np.median(before), 1e-12))

    @property
    def figures(self) -> str:
        return (
            f"{self.fit_name} top-1 {100 * self.late(self.fit_part):.1f} %, "
            f"validation {100 * self.late('validation'):.1f} %"
        )


_LOWER = "lower optim.peak_lr 3 to 10 times, lengthen schedule.warmup_epochs, or set optim.clip_norm"


def _told_not_finite(curves: _Curves) -> str:
    where = f"after epoch {curves.epoch[-1]:g}" if len(curves.lines) else "before the first evaluation"
    return f"diverged: the loss is not finite {where}; {_LOWER}; check model.norm and model.init"


def _told_far(curves: _Curves) -> str:
    return (
        f"diverged: train loss {curves.train_loss[-1]:.3g} where guessing has {curves.guess:.2f}, train top-1 "
        f"{100 * curves.late_train:.1f} %; {_LOWER}"
    )


def _rate_too_high(curves: _Curves) -> Diagnosis | None:
    loss, high = curves.train_loss, curves.rate >= 0.5 * curves.rate.max()
    lowest = np.concatenate([[np.inf], np.minimum.accumulate(loss)[:-1]])
    risen = high & (loss > _RISE * lowest + _RISE_LN_K * curves.guess)
    low = loss[np.flatnonzero(high)[0] :][~high[np.flatnonzero(high)[0] :]]  # after the rate was high
    middle = float(np.median(loss[high]))
    recovered = bool(low.size) and low.min() < _RECOVERED * middle
    after = f" and fell to {low.min():.3g} when the rate did" if recovered else ""
    if risen.sum() >= 2:
        worst = int(np.argmax(np.where(risen, loss, -np.inf)))
        text = (
            f"the train loss rose from {lowest[worst]:.3g} to {loss[worst]:.3g} at epoch {curves.epoch[worst]:g}, with "
            f"a rate of {curves.rate[worst]:.3g},{after}"
        ).rstrip(",")
    elif recovered and middle > _STUCK * curves.guess:
        text = f"the train loss stayed at {middle:.3g} (guessing has {curves.guess:.2f}) while the rate was high{after}"
    else:
        return None
    return Diagnosis("rate too high", f"learning rate too high: {text}; {_LOWER}")


def _plateau(curves: _Curves) -> Diagnosis | None:
    rate, loss = float(curves.rate[-curves.third :].mean()), float(np.median(curves.train_loss[-curves.third :]))
    if (
        len(curves.lines) < _FEWEST_PLATEAU
        or curves.late_train >= _PLATEAU_TOP1
        or rate < 0.5 * curves.rate.max()
        or (curves.progress < _PLATEAU and loss < _STUCK * curves.guess)
    ):
        return None
    if loss > _STUCK * curves.guess:
        where = f"no better than guessing ({curves.guess:.2f})"
        advice = "check labels, model.init, model.norm and freeze, then try another optim.peak_lr"
    else:
        where = f"train top-1 {100 * curves.late_train:.1f} %"
        advice = (
            "let the rate fall (schedule.name=cosine), try another optim.peak_lr, less optim.weight_decay, or a larger "
            "model.width"
        )
    return Diagnosis(
        "plateau",
        f"plateau: no progress over the last {curves.third} evaluations, with a rate of {rate:.3g}: train loss "
        f"{loss:.3g}, {where}; {advice}",
    )


def _overfit(curves: _Curves) -> Diagnosis | None:
    if not curves.settled and len(curves.lines) < _FEWEST_UNSETTLED:
        return None
    gap = curves.late(curves.fit_part) - curves.late("validation")
    smooth = np.array(
        [np.median(curves.validation_loss[max(0, end - 3) : end]) for end in range(3, len(curves.lines) + 1)]
    )
    lowest = int(np.argmin(smooth))
    rise = smooth[-1] / max(smooth[lowest], 1e-12)
    fits_better = curves.late(curves.fit_part, "loss") <= np.median(curves.fit_loss[lowest : lowest + 3])
    rises = rise > (_VALIDATION_RISE if curves.settled else _VALIDATION_RISE_UNSETTLED) and fits_better
    if gap < (_GAP if curves.settled else _GAP_UNSETTLED) and not (rises and gap >= _GAP_WITH_RISE):
        return None
    risen = f"; the validation loss is {100 * (rise - 1):.0f} % above its lowest, at epoch {curves.epoch[lowest + 2]:g}"
    return Diagnosis(
        "overfit",
        f"overfit: {curves.figures}, {100 * gap:.1f} points apart{risen if rises else ''}; try stronger augment.*, "
        "more optim.weight_decay or model.dropout, train.label_smoothing, pretrained weights (init_from), or more data",
    )


def _underfit(curves: _Curves) -> Diagnosis | None:
    if curves.late(curves.fit_part) >= _FIT_TOP1:
        return None
    if not curves.done:
        return Diagnosis("early", f"too early to say: {curves.figures} at epoch {curves.epoch[-1]:g}, still learning")
    loss = curves.late(curves.fit_part, "loss")
    if loss > _STUCK * curves.guess:
        advice = "nothing was learned: raise optim.peak_lr 3 to 100 times, check labels, model.init and freeze"
    elif curves.progress < _PLATEAU and curves.rate[-1] > 0.1 * curves.rate.max():
        advice = "the loss still falls: more train.epochs, or a higher optim.peak_lr"
    else:
        advice = "try a larger model.width or network, a higher optim.peak_lr, more train.epochs, or weaker augment.*"
    return Diagnosis("underfit", f"underfit: {curves.figures}, {curves.fit_name} loss {loss:.3g}; {advice}")


def _healthy(curves: _Curves) -> Diagnosis:
    best = int(np.flatnonzero(curves._of("validation", "top1") == curves._of("validation", "top1").max())[-1])
    text = f"healthy{'' if curves.done else ' so far'}: {curves.figures}"
    if curves.done and best >= len(curves.lines) - 2:
        text += ", best at the end: more train.epochs may gain a little"
    return Diagnosis("healthy", text)
