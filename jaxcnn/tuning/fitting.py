"""Short trainings of a subject with the step of real runs, in one compiled program for all of them.

Compiling is what costs on CPU. So what differs between the checks is data of the program, not a part of it: the
learning rate of each step, the labels, which examples a step sees, and whether augmentation and dropout are on. A
program is compiled once a batch size.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxcnn.augment.mixing import Mix
from jaxcnn.augment.pipeline import Augment
from jaxcnn.data.loader import Arrays, take
from jaxcnn.runtime import compiler_options
from jaxcnn.training.state import TrainState, create_state
from jaxcnn.training.step import StepOptions, make_chunk, make_step, zero_sums
from jaxcnn.tuning.affordable import affordable
from jaxcnn.tuning.entropies import balanced
from jaxcnn.tuning.lr_curve import LrCurve, back_off_of, curve_of, first_diverged
from jaxcnn.tuning.subject import Subject

ROWS = 100
"""Most steps of one training."""
LEARN_STEPS = 60
"""Steps of a training as planned."""
WARMUP_STEPS = 10
CUT = 4
"""Factor between the planned batch and an affordable one from which short trainings tell little."""
SWEEP_STEPS = 85


@dataclass(frozen=True)
class Fit:
    """A short training.

    Attributes:
      objectives: mean loss that each step trained on, before its update [steps done]; only the last may be not finite.
      state: after the last step that was finite.
      loss, top1: mean cross-entropy and share of hits over all its examples, in training mode.
    """

    objectives: np.ndarray
    state: TrainState
    loss: float
    top1: float

    @property
    def finite(self) -> bool:
        return bool(np.isfinite(self.objectives).all())

    @property
    def start(self) -> float:
        """The objective of the first steps."""
        return float(np.mean(self.objectives[:3]))

    @property
    def end(self) -> float:
        """The objective of the last steps; infinite where one was not finite."""
        return float(np.mean(self.objectives[-8:])) if self.finite else math.inf


class Fitting:
    """Short trainings of one subject; what several checks ask for is done once.

    Attributes:
      subject: what is trained, made affordable (`affordable.py`): its rate is that of its batch. Nothing of it changes.
      batch_size: examples a step.
      planned_batch: examples a step as planned, or all that there are.
      rate_scale: learning rate here in the place of a planned one of 1.
    """

    def __init__(self, subject: Subject):
        planned, self.subject = subject, affordable(subject)
        self.rate_scale = self.subject.peak_lr / planned.peak_lr if planned.peak_lr else 1.0
        self.planned_batch = min(planned.batch_size, len(planned.train))
        subject = self.subject
        self.batch_size = subject.batch_size
        both = [np.concatenate(pair) for pair in zip(_parts(subject.train), _parts(subject.validation), strict=True)]
        self.source = Arrays(jnp.asarray(both[0]), jnp.asarray(both[1].astype(np.int32)))
        self.num_train = len(subject.train)
        optimizer = subject.optimizer(optax.constant_schedule(0.0))
        self.state = create_state(subject.variables, subject.frozen, optimizer, use_ema=False)
        trains_backbone = any(part != "head" for part in self.state.params)
        self._program = jax.jit(_program(subject), compiler_options=compiler_options(training=trains_backbone))

    def run(
        self,
        places: np.ndarray,
        rates: np.ndarray,
        *,
        plain: bool = False,
        labels: np.ndarray | None = None,
        state: TrainState | None = None,
    ) -> Fit:
        """Returns a training of S steps.

        Args:
          places: int [S, B], the examples of each step: of `subject.train` and, from `num_train` on, of validation.
          rates: [S], the learning rate of each step.
          plain: leave out augmentation and dropout. Decay of weights stays: within a hundred steps it does not matter,
            and some optimizers need the weights for other things.
          labels: in the place of those of all examples.
          state: where it starts; none: with the variables of the subject.
        """
        count = len(places)
        if not 0 < count <= ROWS:
            raise ValueError(f"{count=} steps must be in 1..{ROWS}")
        state = self.state if state is None else state
        source = self.source if labels is None else Arrays(self.source.images, jnp.asarray(labels, jnp.int32))
        inputs = np.zeros((ROWS, places.shape[1]), np.int32)
        inputs[:count] = places
        padded = np.zeros(ROWS, np.float32)
        padded[:count] = rates
        sums = self._zero_sums(places.shape[1])
        after, sums, brief = self._program(
            state, sums, source, inputs, np.int32(count), padded, np.asarray(plain, np.bool_)
        )
        stopped = int(sums["nonfinite"])
        done = int(after.step) - int(state.step)
        objectives = np.array(brief["trace"]["objective"])[: done + stopped]
        if stopped and np.isfinite(objectives[-1]):  # its gradient was not
            objectives[-1] = math.inf
        examples = max(int(sums["examples"]), 1)
        return Fit(objectives, after, float(sums["loss"]) / examples, int(sums["top1"]) / examples)

    def _zero_sums(self, batch_size: int) -> Any:
        if batch_size not in self._sums:
            step = make_step(
                self.subject.model,
                self.subject.optimizer(optax.constant_schedule(0.0)),
                self.subject.augment,
                _options(self.subject),
            )
            images = jax.ShapeDtypeStruct((batch_size, *self.source.images.shape[1:]), self.source.images.dtype)
            labels = jax.ShapeDtypeStruct((batch_size,), jnp.int32)
            self._sums[batch_size] = zero_sums(step, self.state, images, labels)
        return self._sums[batch_size]

    @functools.cached_property
    def _sums(self) -> dict[int, Any]:
        return {}

    @property
    def tells_little(self) -> bool:
        """Whether so much smaller a batch than planned was affordable that what is not learned may be for that."""
        return self.planned_batch >= CUT * self.batch_size

    def order(self, num_steps: int, by: np.ndarray | None = None) -> np.ndarray:
        """Returns the training examples of each step [num_steps, B]: permutations one after the other.

        Args:
          num_steps: how many.
          by: labels of all examples by which each class comes equally often; none: as often as it is there.
        """
        rng = np.random.default_rng(self.subject.seed)
        needed = num_steps * self.batch_size
        if by is not None:
            places = balanced(by, np.arange(self.num_train), needed, self.subject.seed)
            return places.reshape(num_steps, self.batch_size)
        epochs = [rng.permutation(self.num_train) for _ in range(-(-needed // self.num_train))]
        return np.concatenate(epochs)[:needed].reshape(num_steps, self.batch_size)

    def learn(self, rate: float, labels: np.ndarray | None = None, *, balance: bool = False) -> Fit:
        """Returns a training as planned, with this peak rate and a short warm-up and cool-down.

        Args:
          rate: the peak.
          labels: in the place of those of all examples.
          balance: show as many examples of each class of these labels.
        """
        places = self.order(LEARN_STEPS, labels if balance else None)
        return self.run(places, rate * ramp(LEARN_STEPS), labels=labels)

    def measure(self, state: TrainState, places: np.ndarray) -> Fit:
        """Returns loss and hits on examples, with the statistics of their own batches: steps at rate 0.

        Running statistics are behind after a few steps, more so in networks that average long. The last batch is filled
        with the first examples again.
        """
        batches = max(1, min(ROWS, -(-len(places) // self.batch_size)))
        return self.run(self.batches_of(places, batches), np.zeros(batches), plain=True, state=state)

    def batches_of(self, places: np.ndarray, num_steps: int) -> np.ndarray:
        """Returns [num_steps, B]: the same examples again and again; fewer than B fill a batch by being repeated."""
        if not len(places):
            raise ValueError("no examples")
        return np.resize(places, (num_steps, self.batch_size))

    @functools.cached_property
    def curve(self) -> LrCurve:
        """The loss over a sweep of the learning rate."""
        rates, places = np.geomspace(*self.subject.rates, SWEEP_STEPS), self.order(SWEEP_STEPS)
        losses, state = list[float](), self.state
        for begin in range(0, SWEEP_STEPS, 17):
            part = slice(begin, begin + 17)
            fit = self.run(places[part], rates[part], state=state)
            losses, state = losses + fit.objectives.tolist(), fit.state
            if not fit.finite or first_diverged(losses) is not None:
                break
        return curve_of(rates[: len(losses)], losses, back_off_of(self.state.opt_state))

    @functools.cached_property
    def sane_rate(self) -> float:
        """The rate that the sweep suggests, or the planned one where it suggests none."""
        return self.curve.suggestion or self.subject.peak_lr

    @functools.cached_property
    def learned(self) -> Fit:
        """A training as planned, at the sane rate."""
        return self.learn(self.sane_rate)


def fitting_of(subject: Subject) -> Fitting:
    """Returns the trainings of a subject; they live as long as it does, so that checks share them."""
    held: Any = vars(subject)  # where functools.cached_property would put them too
    if "_fitting" not in held:
        held["_fitting"] = Fitting(subject)
    return held["_fitting"]


def ramp(num_steps: int, warmup_steps: int = WARMUP_STEPS) -> np.ndarray:
    """Returns the shape of a short schedule [num_steps]: linear warm-up, 1, linear to 0 over the last third."""
    step = np.arange(num_steps)
    warm = (step + 1) / max(warmup_steps, 1)
    cool = (num_steps - step) / max(num_steps / 3, 1)
    return np.minimum(1.0, np.minimum(warm, cool))


def _parts(examples: Any) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(examples.images), np.asarray(examples.labels)


def _options(subject: Subject) -> StepOptions:
    return StepOptions(seed=subject.seed, loss=subject.loss)


def _program(subject: Subject) -> Callable:
    """(state, sums, source, inputs, num_steps, rates [ROWS], plain bool []) -> as a chunk of `make_chunk`."""

    def program(
        state: TrainState, sums: Any, source: Any, inputs: Any, num_steps: Any, rates: jax.Array, plain: jax.Array
    ) -> Any:
        first = state.step
        optimizer = subject.optimizer(lambda count: rates[count - first])
        step = make_step(subject.model, optimizer, _augment(subject, plain), _options(subject))
        with nn.intercept_methods(undropped(plain)):
            return make_chunk(step, take)(state, sums, source, inputs, num_steps)

    return program


def _augment(subject: Subject, plain: jax.Array) -> Augment:
    """The subject's augmentation, or where `plain` none."""

    def augment(key: jax.Array, images: jax.Array) -> tuple[jax.Array, Mix | None]:
        changed, mix = subject.augment(key, images)
        images = jnp.where(plain, subject.normalise(images).astype(changed.dtype), changed)
        return images, None if mix is None else Mix(mix.partner, jnp.where(plain, 1.0, mix.share))

    return augment


def undropped(plain: jax.Array) -> Any:
    """Returns what makes each `nn.Dropout` of a network the identity where `plain`, for `nn.intercept_methods`."""

    def look(next_call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        dropped = next_call(*args, **kwargs)
        if context.method_name != "__call__" or not isinstance(context.module, nn.Dropout):
            return dropped
        return jnp.where(plain, args[0] if args else kwargs["inputs"], dropped)

    return look
