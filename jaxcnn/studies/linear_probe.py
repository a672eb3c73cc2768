"""What a linear classifier reads from features: multinomial logistic regression, penalised, solved to its optimum.

With standardised features x [N, F], labels y and weights w that sum to 1, the solution is the minimum of

    sum_n w_n · -log softmax(x_n W + b)[y_n]  +  penalty / 2 · |W|²

found by L-BFGS on the whole batch, so that nothing but the penalty is left to tune (Alain & Bengio 2016 probe each
layer of a network in this way, with SGD). scikit-learn's C is 1 / (penalty · N).
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

PENALTIES = (1.0, 0.1, 0.01, 1e-3, 1e-4)
"""From strong to weak: each solution is the start of the next."""
_HELD_OUT = 5  # one training example in so many chooses the penalty
_TOLERANCE = 1e-4  # norm of the gradient at which the optimum is taken as reached
_MOST_STEPS = 500
_LEAST_SHAPE = (256, 64)  # examples and features of the smallest program; compiling takes longer than solving
_CONSTANT = 1e-5  # a feature whose deviation is this part of its mean varies by rounding only


@dataclass(frozen=True)
class Probe:
    """A trained linear classifier.

    Attributes:
      mean, scale: [F], of the training features.
      kernel, bias: [F, K] and [K], on the standardised features.
      penalty: the one chosen.
      held_out: accuracy in 0..1 on the part of the training examples that chose the penalty; nan if there was none.
    """

    mean: np.ndarray
    scale: np.ndarray
    kernel: np.ndarray
    bias: np.ndarray
    penalty: float
    held_out: float

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Returns [N, K] for features [N, F]."""
        return (features - self.mean) / self.scale @ self.kernel + self.bias

    def accuracy(self, features: np.ndarray, labels: np.ndarray) -> float:
        """Returns the share, 0..1, of features [N, F] whose largest logit is that of the label."""
        return float(np.mean(self.logits(features).argmax(-1) == labels))


def fit_probe(
    features: np.ndarray, labels: np.ndarray, num_classes: int, penalties: Sequence[float] = PENALTIES
) -> Probe:
    """Returns the probe of training features [N, F] and labels int [N].

    The penalty is the one with the lowest cross-entropy on a fifth of each class that is held out of the training
    examples; with it all of them are fitted.
    """
    mean, scale = standardisation(features)
    with _on_host():
        inputs = jnp.asarray((features - mean) / scale, jnp.float32)
        targets = jnp.asarray(labels, jnp.int32)
        held = held_out_mask(labels)
        if not held.any():
            penalty, accuracy = sorted(penalties)[len(penalties) // 2], float("nan")
        else:
            penalty, accuracy = _choose(inputs, targets, held, num_classes, sorted(penalties, reverse=True))
        every = jnp.full(len(labels), 1 / len(labels))
        kernel, bias = logistic_regression(inputs, targets, every, num_classes, penalty)
    return Probe(mean, scale, np.asarray(kernel), np.asarray(bias), penalty, accuracy)


def _on_host() -> Any:
    """Computes on the CPU, if JAX has it: hundreds of steps of small kernels each are no work for an accelerator."""
    try:
        return jax.default_device(jax.local_devices(backend="cpu")[0])
    except RuntimeError:  # JAX_PLATFORMS names accelerators alone
        return nullcontext()


def standardisation(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean and standard deviation [F] of features [N, F], float32; 1 for the deviation of a constant."""
    mean, std = features.mean(0, dtype=np.float64), features.std(0, dtype=np.float64)
    std = np.where(std > _CONSTANT * np.abs(mean), std, 1.0)
    return mean.astype(np.float32), np.where(std > 0, std, 1.0).astype(np.float32)


def held_out_mask(labels: np.ndarray) -> np.ndarray:
    """Returns bool [N]: a fifth of each class, one at least, none of a class of one; the same whenever it is asked."""
    mask = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        places = np.random.default_rng(0).permutation(np.flatnonzero(labels == label))
        if len(places) > 1:
            mask[places[: max(1, round(len(places) / _HELD_OUT))]] = True
    return mask


def _choose(
    inputs: jax.Array, targets: jax.Array, held: np.ndarray, num_classes: int, penalties: Sequence[float]
) -> tuple[float, float]:
    """(penalty, accuracy on the held out) of the lowest cross-entropy there."""
    weights = jnp.asarray(~held / np.sum(~held), jnp.float32)
    found: list[tuple[float, float, float]] = []
    solution: Any = None
    for penalty in penalties:
        solution = logistic_regression(inputs, targets, weights, num_classes, penalty, solution)
        logits, own = np.asarray(inputs @ solution[0] + solution[1])[held], np.asarray(targets)[held]
        losses = optax.softmax_cross_entropy_with_integer_labels(jnp.asarray(logits), jnp.asarray(own))
        found.append((float(losses.mean()), penalty, float(np.mean(logits.argmax(-1) == own))))
    _, penalty, accuracy = min(found, key=lambda one: one[0])
    return penalty, accuracy


def logistic_regression(
    inputs: jax.Array,
    targets: jax.Array,
    weights: jax.Array,
    num_classes: int,
    penalty: float,
    start: tuple[jax.Array, jax.Array] | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Returns (kernel [F, K], bias [K]) at the minimum of the loss above.

    Args:
      inputs: [N, F], float32, standardised.
      targets: int32 [N].
      weights: [N], that sum to 1; 0 leaves an example out.
      num_classes: K.
      penalty: on the kernel alone.
      start: where to begin; none: at zero. The minimum is the same, since the loss is convex.
    """
    (count, num_features), least = inputs.shape, _LEAST_SHAPE
    # One program serves many shapes: examples of weight 0 change nothing, nor do features that are always 0.
    more, wider = (_rounded(size, own) - size for size, own in zip((count, num_features), least, strict=True))
    kernel, bias = (jnp.zeros((num_features, num_classes)), jnp.zeros(num_classes)) if start is None else start
    kernel, bias = _minimum(
        (jnp.pad(kernel, ((0, wider), (0, 0))), bias),
        jnp.pad(inputs, ((0, more), (0, wider))),
        jnp.pad(targets, (0, more)),
        jnp.pad(weights, (0, more)),
        jnp.float32(penalty),
    )
    return kernel[:num_features], bias


def _rounded(size: int, least: int) -> int:
    """The next power of two from `least` on."""
    return max(least, 1 << (size - 1).bit_length())


@jax.jit
def _minimum(start: Any, inputs: jax.Array, targets: jax.Array, weights: jax.Array, penalty: jax.Array) -> Any:
    def loss(solution: Any) -> jax.Array:
        kernel, bias = solution
        losses = optax.softmax_cross_entropy_with_integer_labels(inputs @ kernel + bias, targets)
        return jnp.sum(weights * losses) + penalty / 2 * jnp.sum(kernel**2)

    optimizer = optax.lbfgs()
    value_and_grad = optax.value_and_grad_from_state(loss)  # of the last line search, so nothing is computed twice

    def step(carry: Any) -> Any:
        solution, state, _, count = carry
        value, gradient = value_and_grad(solution, state=state)
        updates, state = optimizer.update(gradient, state, solution, value=value, grad=gradient, value_fn=loss)
        solution = optax.apply_updates(solution, updates)
        return solution, state, optax.tree.norm(optax.tree.get(state, "grad")), count + 1

    def unfinished(carry: Any) -> jax.Array:
        return (carry[2] > _TOLERANCE) & (carry[3] < _MOST_STEPS)

    carry = (start, optimizer.init(start), jnp.float32(jnp.inf), 0)
    return jax.lax.while_loop(unfinished, step, carry)[0]
