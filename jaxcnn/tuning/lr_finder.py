"""The learning-rate finder: a pure function of state. What it is given is as it was afterwards, bit by bit."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn.config import TrainConfig
from jaxcnn.data.feed import HostFeed
from jaxcnn.errors import InputError
from jaxcnn.job import Job
from jaxcnn.training.learning_rates import batch_factor
from jaxcnn.training.state import TrainState
from jaxcnn.tuning.lr_curve import BACK_OFF, LrCurve, back_off_of, curve_of, first_diverged

RATES = {"sgd": (1e-4, 10.0), "adamw": (1e-6, 1.0), "lars": (1e-2, 1e3), "lamb": (1e-5, 1.0)}
"""The range that is swept, by optimizer. A step of lars has the rate times optim.trust_coefficient of the norm of the
kernel at most, one of lamb the rate."""
NUM_STEPS = 100
WARMED = 1.5
"""Factor on the rate of the minimum for SGD in a run that warms up, which a sweep does not: by brute force on digits
and CIFAR-10 (docs/tuning.md) such runs bear and want more."""
_STEPS_A_DISPATCH = 10  # after each it is looked at whether the loss has diverged


def exponential(first: int, rate_min: float, rate_max: float, num_steps: int) -> Callable[[Any], jax.Array]:
    """Returns step -> rate: rate_min at step `first`, rate_max `num_steps` - 1 later, the same factor between steps."""

    def schedule(step: Any) -> jax.Array:
        share = (jnp.asarray(step, jnp.float32) - first) / max(num_steps - 1, 1)
        return rate_min * (rate_max / rate_min) ** share

    return schedule


def find_lr(
    job: Job,
    state: TrainState | None = None,
    *,
    num_steps: int = NUM_STEPS,
    rate_min: float | None = None,
    rate_max: float | None = None,
) -> LrCurve:
    """Returns the loss of a run over a sweep of its learning rate, from any state of it.

    The steps are those of the run: its data in its order, its augmentation, its frozen leaves, its optimizer with the
    moments that it has; only the learning rate is another. They pass over small data several times. The state that is
    given is copied, and the batches of a step are a function of the step, so nothing of the run changes.

    Args:
      job: the run.
      state: where the sweep starts; of the first step of a phase also the last one of the phase before. None: that
        before step 0.
      num_steps: steps of the sweep, if it does not diverge.
      rate_min, rate_max: where it starts and ends; none: `RATES` of the optimizer.

    Raises:
      InputError: a range that does not rise, or too few steps.
    """
    low, high = _range(job.config.optim.name, rate_min, rate_max, num_steps)
    state = job.initial_state() if state is None else state
    first = int(state.step)
    phase = job.phase_at(first)
    phases = job.phases_of(job.config, job.start, exponential(first, low, high, num_steps))
    if str(jax.tree.structure(state)) != str(jax.tree.structure(job.state_shapes(phase))):
        state = job.go_on(state, phase)
    feed = own_feed(job.feed, first + num_steps, min(_STEPS_A_DISPATCH, num_steps))
    sweep = dataclasses.replace(job, phases=phases, feed=feed)
    try:
        losses = _swept(sweep, jax.tree.map(jnp.copy, state), phase, num_steps)
    finally:
        feed.close()
    rates = np.geomspace(low, high, num_steps)
    back_off = back_off_of(state.opt_state)
    if back_off == BACK_OFF["sgd"]:
        back_off = 1 / WARMED if job.config.schedule.warmup_epochs else 1.0
    return curve_of(rates[: len(losses)], losses, back_off)


def with_rate(config: TrainConfig, curve: LrCurve) -> TrainConfig:
    """Returns the config with the suggested learning rate, rounded to two digits.

    A sweep finds the rate of the run's own batch. Where optim.lr_scaling multiplies optim.peak_lr, this is divided by
    the factor, so that the run has the rate that was found.

    Raises:
      InputError: the curve suggests none.
    """
    if curve.noisy:
        raise InputError(f"{curve.sentence()}, or set optim.peak_lr yourself (it is {config.optim.peak_lr:g})")
    if curve.suggestion is None:
        raise InputError(
            f"{curve.sentence()}: check data, labels and loss first, or set optim.peak_lr yourself "
            f"(it is {config.optim.peak_lr:g})"
        )
    rate = float(f"{curve.suggestion:.1e}") / batch_factor(config)
    return dataclasses.replace(config, optim=dataclasses.replace(config.optim, peak_lr=rate))


def _range(optimizer: str, rate_min: float | None, rate_max: float | None, num_steps: int) -> tuple[float, float]:
    low, high = (
        own if given is None else given for given, own in zip((rate_min, rate_max), RATES[optimizer], strict=True)
    )
    if not 0 < low < high < math.inf:
        raise InputError(f"learning rates from {low:g} to {high:g}: the sweep must rise, from above 0")
    if num_steps < 20:
        raise InputError(f"num_steps={num_steps}: a sweep needs 20 steps at least")
    return low, high


def own_feed(feed: Any, end: int, max_steps: int | None = None) -> Any:
    """Returns a feed of the same batches with a stream of its own: that of the run stays where it is.

    Args:
      feed: of a job.
      end: the step after its last; it may be beyond the end of the run, for data are passed over again and again.
      max_steps: most steps of a dispatch; none: as the feed has it.
    """
    rows = feed.max_steps if max_steps is None else max_steps
    if isinstance(feed, HostFeed):
        return dataclasses.replace(feed, total_steps=end, max_steps=rows, _stream=None, _next=-1)
    return dataclasses.replace(feed, max_steps=rows)


def _swept(job: Job, state: TrainState, phase: int, num_steps: int) -> list[float]:
    """The objective of each step until it diverges; the state is donated."""
    sums = job.zero_sums()
    compiled = job.compile_chunk(state, sums, phase)
    first, losses = int(state.step), list[float]()
    while len(losses) < num_steps:
        begin = first + len(losses)
        count = min(max(job.feed.rows, 1), num_steps - len(losses))
        inputs = job.feed.inputs(begin, count)
        state, sums, brief = compiled(state, sums, job.feed.source, inputs, np.int32(count))
        done, stopped = int(brief["step"]) - begin, int(brief["nonfinite"])
        objectives = np.asarray(brief["trace"]["objective"])[: done + min(stopped, 1)]
        losses += objectives.tolist()
        if stopped and np.isfinite(losses[-1]):  # the gradient alone was not
            losses[-1] = math.inf
        if stopped or first_diverged(losses) is not None:
            break
    return losses
