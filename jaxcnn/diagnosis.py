"""What the curves of a run say, by stated rules: what is wrong, the figures that show it, and what to try.

The rules, in this order; the first that holds is the diagnosis. *fit* is the clean train figures where the lines have
them (evaluation mode, no augmentation), else the running ones; *learned* the lower loss of the two at each evaluation;
*late* a median over the last 3 evaluations; *peak* the highest learning rate so far; K classes, so that guessing has a
loss of ln K and a top-1 of 1 / K. A train loss has *risen* where it is above 1.2 times the lowest before it plus
0.05 ln K. A run *guesses* where its late train, clean and validation losses are all above 0.95 ln K. It is *done* when
it has a result or its planned epochs, or, where neither is known, once its rate is below a tenth of the peak.

| kind            | holds where                                                                                      |
|-----------------|--------------------------------------------------------------------------------------------------|
| diverged        | the run stopped on a loss that is not finite; or the last loss is not; or the late train loss is |
|                 | above 2 ln K with a top-1 below 2 / K                                                            |
| early           | fewer than 4 evaluations                                                                         |
| rate too high   | at half the peak or more, 2 evaluations have risen; or the run guesses, after a train loss that  |
|                 | had risen or was above 2 ln K: units may be dead; or the median of 3 evaluations or more at      |
|                 | half the peak is above 0.95 ln K, below it the loss falls under 0.9 of that, and while the rate  |
|                 | was high it did not fall steadily: it had risen, or fell less than a quarter as fast as later    |
| evaluation lags | not while the rate is above half the peak and the run is not done: at each of the last 3         |
|                 | evaluations the clean loss is above 1.5 times the train loss, the clean top-1 10 points below    |
| plateau         | 6 evaluations or more, late train and fit top-1 below 90 %, a mean rate over the last third      |
|                 | above half the peak, and the run guesses; or over the last third as against the third before the |
|                 | learned loss is above 0.97, and validation errors (no fewer than in training) above 0.95         |
| overfit         | late fit top-1 10 points above validation's; or 3 points, with a late validation loss 1.15 times |
|                 | the lowest of its running medians, and the fit loss no higher than there. While the rate is      |
|                 | above half the peak and the run is not done: 20 points, 1.5 times, and 6 evaluations or more     |
| early           | not done, and late fit top-1 below 80 %                                                          |
| underfit        | late fit top-1 below 80 %                                                                        |
| healthy         | all else                                                                                         |

Thresholds are in shares and ratios, not in nats, so that they hold for 2 classes as for 1,000. What a task allows they
cannot know: where labels are noisy, 75 % may be the best there is, and "underfit" then says only that train and
validation agree.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from jaxcnn.learning_curves import LearningCurves

Kind = Literal["early", "diverged", "rate too high", "evaluation lags", "plateau", "overfit", "underfit", "healthy"]

_MOST_LOSS = 2.0  # times ln K
_FEWEST, _FEWEST_UNSETTLED = 4, 6
_STUCK, _RECOVERED, _FEWEST_STUCK, _STEADY = 0.95, 0.9, 3, 0.25
_LAG, _LAG_TOP1 = 1.5, 0.10
_PLATEAU, _PLATEAU_ERRORS, _PLATEAU_TOP1, _FEWEST_PLATEAU = 0.97, 0.95, 0.9, 6
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
      result: that of the run, if it has ended; one whose final step is not that of the last line does not count.
      num_classes: K.
      epochs: planned length of the run; none: not known.
      failed: whether the run stopped on a loss that is not finite, which leaves no line.
    """
    curves = LearningCurves(lines, num_classes, result, epochs)
    if failed or (lines and curves.not_finite):
        return Diagnosis("diverged", _told_not_finite(curves))
    if lines and curves.train_loss[-3:].min() > _MOST_LOSS * curves.guess and curves.late("train") < 2 / num_classes:
        return Diagnosis("diverged", _told_far(curves))
    if len(lines) < _FEWEST:
        return Diagnosis("early", f"too early to say: {len(lines)} evaluation{'s' * (len(lines) != 1)}")
    for rule in (_rate_too_high, _evaluation_lags, _plateau, _overfit, _underfit):
        found = rule(curves)
        if found is not None:
            return found
    return _healthy(curves)


_LOWER = "lower optim.peak_lr 3 to 10 times, lengthen schedule.warmup_epochs, or set optim.clip_norm"


def _told_not_finite(curves: LearningCurves) -> str:
    where = f"after epoch {curves.epoch[-1]:g}" if len(curves.lines) else "before the first evaluation"
    return f"diverged: the loss is not finite {where}; {_LOWER}; check model.norm and model.init"


def _told_far(curves: LearningCurves) -> str:
    return (
        f"diverged: train loss {curves.train_loss[-1]:.3g} where guessing has {curves.guess:.2f}, train top-1 "
        f"{100 * curves.late('train'):.1f} %; {_LOWER}"
    )


def _rate_too_high(curves: LearningCurves) -> Diagnosis | None:
    found = _dead(curves) or _rises(curves) or _stuck(curves)
    return None if found is None else Diagnosis("rate too high", f"learning rate too high: {found}")


def _dead(curves: LearningCurves) -> str | None:
    """Steps that are too large may leave units without a gradient, which no later rate brings back."""
    far = curves.risen | (curves.train_loss > _MOST_LOSS * curves.guess)
    if not far.any() or not curves.guesses:
        return None
    worst = int(np.argmax(np.where(far, curves.train_loss, -np.inf)))
    since = "" if worst == len(curves.lines) - 1 else f", and is now {curves.train_loss[-1]:.3g}"
    return (
        f"the train loss went to {curves.train_loss[worst]:.3g} at epoch {curves.epoch[worst]:g}{since}, no better "
        f"than guessing ({curves.guess:.2f}), train top-1 {100 * curves.late('train'):.1f} %: units may have died; "
        f"{_LOWER}, or set model.norm"
    )


def _rises(curves: LearningCurves) -> str | None:
    loss, risen = curves.train_loss, curves.is_high & curves.risen
    if risen.sum() < 2:
        return None
    worst, low = int(np.argmax(np.where(risen, loss, -np.inf))), _after_high(curves)
    recovered = bool(low.size) and low.min() < _RECOVERED * np.median(loss[curves.is_high])
    after = f", and fell to {low.min():.3g} when the rate did" if recovered else ""
    return (
        f"the train loss rose from {curves.lowest_before[worst]:.3g} to {loss[worst]:.3g} at epoch "
        f"{curves.epoch[worst]:g}, with a rate of {curves.rate[worst]:.3g}{after}; {_LOWER}"
    )


def _stuck(curves: LearningCurves) -> str | None:
    """Nothing is learned until the rate falls; a loss that falls slowly from the start has too low a rate instead."""
    high, low = curves.train_loss[curves.is_high], _after_high(curves)
    middle = float(np.median(high))
    if len(high) < _FEWEST_STUCK or not low.size or middle <= _STUCK * curves.guess or low.min() >= _RECOVERED * middle:
        return None
    capped = np.minimum(high, curves.guess)  # a fall to guessing is that of the first weights' loss: no learning
    while_high = -float(np.polyfit(np.arange(len(high)), capped, 1)[0])  # nats an evaluation
    later = float(capped[-1] - low.min()) / (int(np.argmin(low)) + 1)
    if while_high >= _STEADY * later and not curves.risen[curves.is_high].any():
        return None
    return (
        f"the train loss stayed at {middle:.3g} (guessing has {curves.guess:.2f}) while the rate was high, and fell to "
        f"{low.min():.3g} when the rate did; {_LOWER}"
    )


def _after_high(curves: LearningCurves) -> np.ndarray:
    """Train losses below half the peak, after the rate was high."""
    first = int(np.argmax(curves.is_high))
    return curves.train_loss[first:][~curves.is_high[first:]]


def _evaluation_lags(curves: LearningCurves) -> Diagnosis | None:
    if not (curves.settled and curves.has_clean):
        return None
    behind = (curves.fit_loss > _LAG * curves.train_loss) & (
        curves.of("clean", "top1") <= curves.of("train", "top1") - _LAG_TOP1
    )
    if not behind[-3:].all():
        return None
    return Diagnosis(
        "evaluation lags",
        f"evaluation mode is far behind training mode: clean train top-1 {100 * curves.late('clean'):.1f} % (loss "
        f"{curves.late('clean', 'loss'):.3g}) on what training itself has {100 * curves.late('train'):.1f} % of (loss "
        f"{curves.late('train', 'loss'):.3g}): the moving average of weights or the running statistics of norms have "
        f"not caught up; lower optim.ema_decay (or none), {curves.longer}, or another model.norm (group, layer)",
    )


def _plateau(curves: LearningCurves) -> Diagnosis | None:
    rate, part = float(curves.rate[-curves.third :].mean()), curves.learned_part
    if (
        len(curves.lines) < _FEWEST_PLATEAU
        or max(curves.late("train"), curves.late(curves.fit_part)) >= _PLATEAU_TOP1
        or rate < 0.5 * curves.rate.max()
    ):
        return None
    still = curves.progress >= _PLATEAU and curves.validation_progress >= _PLATEAU_ERRORS
    if not (still or curves.guesses):
        return None
    if curves.guesses:
        where = f"no better than guessing ({curves.guess:.2f})"
        advice = "check labels, model.init, model.norm and freeze, then try another optim.peak_lr"
    else:
        where = f"top-1 {100 * curves.late(part):.1f} %"
        advice = (
            "let the rate fall (schedule.name=cosine), try another optim.peak_lr, less optim.weight_decay, or a larger "
            "model.width"
        )
    return Diagnosis(
        "plateau",
        f"plateau: no progress over the last {curves.third} evaluations, with a rate of {rate:.3g}: "
        f"{'clean train' if part == 'clean' else 'train'} loss {curves.late(part, 'loss'):.3g}, {where}; {advice}",
    )


def _overfit(curves: LearningCurves) -> Diagnosis | None:
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


def _underfit(curves: LearningCurves) -> Diagnosis | None:
    if curves.late(curves.fit_part) >= _FIT_TOP1:
        return None
    if not curves.done:
        return Diagnosis("early", f"too early to say: {curves.figures} at epoch {curves.epoch[-1]:g}, still learning")
    if curves.guesses:
        advice = (
            "nothing was learned: optim.peak_lr may be far too low, or units dead from the start, leaves frozen "
            "(freeze) or labels wrong; `jaxcnn preflight` tells which"
        )
    elif curves.progress < _PLATEAU and curves.rate[-1] > 0.1 * curves.rate.max():
        advice = f"the loss still falls: {curves.longer}, or a higher optim.peak_lr"
    else:
        advice = f"try a larger model.width or network, a higher optim.peak_lr, {curves.longer}, or weaker augment.*"
    loss = curves.late(curves.fit_part, "loss")
    return Diagnosis("underfit", f"underfit: {curves.figures}, {curves.fit_name} loss {loss:.3g}; {advice}")


def _healthy(curves: LearningCurves) -> Diagnosis:
    top1 = curves.of("validation", "top1")
    best = int(np.flatnonzero(top1 == top1.max())[-1])
    text = f"healthy{'' if curves.done else ' so far'}: {curves.figures}"
    if curves.stopped_early:
        of = "" if curves.planned is None else f" of {curves.planned:g}"
        text += (
            f", stopped early at epoch {curves.epoch[-1]:g}{of}: no higher validation top-1 for train.patience_epochs; "
            "only a longer patience would let it go on"
        )
    elif curves.done and best >= len(curves.lines) - 2:
        text += ", best at the end: more train.epochs may gain a little"
    return Diagnosis("healthy", text)
