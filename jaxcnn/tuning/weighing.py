"""What checks that train say of what they measured: verdicts that do not claim more than was computed, and words."""

import dataclasses
import math
import time
from collections.abc import Callable

import numpy as np

from jaxcnn.tuning.entropies import entropy_of
from jaxcnn.tuning.findings import Finding, Verdict
from jaxcnn.tuning.fitting import Fit, Fitting
from jaxcnn.tuning.lr_curve import back_off_of
from jaxcnn.tuning.subject import Subject

LEAST_HIGH, LEAST_LOW = 0.1, 0.03
"""Of what the loss falls at the suggested rate: less is a fail at a planned one above it, or far below it. A low rate
may be meant for a long run."""
FAR_ABOVE, FAR_BELOW = 8.0, 30.0
"""Factors from the suggested rate from which the planned one is worth a look."""
LOST = 200.0
"""Factor below it from which `LEAST_HIGH` is asked of the planned one too."""


def timed(check: Callable[[Subject], Finding]) -> Callable[[Subject], Finding]:
    """Returns the check with the seconds that it took."""

    def run(subject: Subject) -> Finding:
        began = time.perf_counter()
        return dataclasses.replace(check(subject), seconds=time.perf_counter() - began)

    run.__name__, run.__doc__ = check.__name__, check.__doc__
    return run


def bounded(fit: Fitting, finding: Finding, *, sure: bool) -> Finding:
    """Returns the finding, or a warning in the place of a failure that more computing might not have had."""
    if finding.verdict != "fail" or sure or not fit.tells_little:
        return finding
    advice = (
        f"Too little could be computed on this machine to tell (batch {fit.batch_size} of {fit.planned_batch}): check "
        "again on an accelerator. If it stays: "
    )
    return dataclasses.replace(finding, verdict="warn", advice=advice + finding.advice)


def rate_told(fit: Fitting, subject: Subject) -> str:
    """Returns the planned rate in words, and what it is for the batch that is trained on."""
    if fit.batch_size == subject.batch_size:
        return f"{subject.peak_lr:.3g}"
    which = "of" if fit.batch_size < subject.batch_size else "in the place of"
    here = f"{fit.subject.peak_lr:.3g} at batch {fit.batch_size} {which} {subject.batch_size}"
    return f"{subject.peak_lr:.3g}, here {here},"


def rate_verdict(share: float, ratio: float) -> Verdict:
    """Returns the verdict on a rate that is `ratio` times the suggested one and gains `share` of what the best does."""
    if ratio > 1:
        return "fail" if share < LEAST_HIGH else "warn" if ratio > FAR_ABOVE else "pass"
    if ratio > 1 / FAR_BELOW or share >= LEAST_HIGH:
        return "pass"
    return "fail" if share < LEAST_LOW or ratio < 1 / LOST else "warn"


def steps_of(**fits: Fit) -> dict[str, list[float]]:
    """Returns the objectives of trainings by step, as long as all are finite, to draw."""
    count = min(int(np.isfinite(fit.objectives).sum()) for fit in fits.values())  # only the last may be not finite
    return {"step": list(range(count))} | {name: fit.objectives[:count].tolist() for name, fit in fits.items()}


def nats(value: float) -> str:
    """Returns a loss in words."""
    return f"{value:.3f} nats" if math.isfinite(value) else "not finite"


def number(value: float) -> float | None:
    """Returns a number for JSON."""
    return float(value) if math.isfinite(value) else None


def rates_to_try(fit: Fitting) -> list[float]:
    """Returns learning rates at which a sample may be learned, the likeliest first; each once."""
    sane, curve = fit.sane_rate, fit.curve
    likely = [sane, fit.subject.peak_lr, 10 * sane, sane / 10]
    if curve.suggestion is None and len(curve.smoothed):
        likely.insert(1, curve.minimum / back_off_of(fit.state.opt_state))
    return list(dict.fromkeys(likely))


def chance_of(fit: Fitting, first: float) -> float:
    """Returns the loss that the classes alone allow, or the first one if that is lower, or of another scale."""
    entropy = entropy_of(np.asarray(fit.source.labels)[: fit.num_train])
    return entropy if entropy < first < 3 * entropy else first


def beats_largest(real: float, shuffled: float, labels: np.ndarray) -> bool:
    """Returns whether hits on unseen labels [N] are above the share of the largest class, and above `shuffled`."""
    share = float(np.bincount(labels).max() / len(labels))
    error = math.sqrt(share * (1 - share) / len(labels))
    return real > share + 3 * error and real > shuffled + 2 * error
