"""Passes through the network of a subject, as the checks take them."""

from collections.abc import Callable
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn.runtime import compiler_options
from jaxcnn.tuning.subject import Examples, Subject

_MAX_VALUES = 500_000
"""Values of the images that go through the network at once, about: 160 of CIFAR-10, 10 photos of 128x128."""


def some(subject: Subject, count: int) -> Examples:
    """Returns training examples at random, by the seed: `count`, of large images fewer, but 8 if there are."""
    fits = _MAX_VALUES // int(np.prod(subject.train.images.shape[1:]))
    count = min(max(min(count, fits), 8), len(subject.train))
    return subject.train.take(np.random.default_rng(subject.seed).permutation(len(subject.train))[:count])


def batch_of(subject: Subject, count: int) -> Examples:
    """Returns training examples at random as `some`, as many of them as the network takes: about `count`.

    Ghost batch norm (`model.virtual_batch_size`) takes multiples of a number alone, so parts of `subject.batch_size`
    are tried as well: those of at least half as many, then larger ones, then smaller ones.
    """
    count = len(some(subject, count))
    parts = [size for size in range(1, subject.batch_size + 1) if subject.batch_size % size == 0]
    near = [size for size in reversed(parts) if count / 2 <= size <= count]
    sizes = [count, *near, *(size for size in parts if size > count), *reversed(parts)]
    size = next((size for size in dict.fromkeys(sizes) if takes(subject, size)), count)
    return subject.train.take(np.random.default_rng(subject.seed).permutation(len(subject.train))[:size])


def takes(subject: Subject, count: int) -> bool:
    """Returns whether the network takes so many images in training mode: ghost batch norm may not.

    Held by the subject, as each check asks.
    """
    known: dict[int, bool] = vars(subject).setdefault("_takes", {})
    if count not in known:
        images = jax.ShapeDtypeStruct((count, *subject.train.images.shape[1:]), jnp.float32)
        try:
            jax.eval_shape(lambda x: apply(subject, subject.variables, x, train=True), images)
            known[count] = True
        except (ValueError, TypeError):
            known[count] = False
    return known[count]


def apply(subject: Subject, variables: Any, x: jax.Array, *, train: bool, key: jax.Array | None = None) -> jax.Array:
    """Returns the logits [N, K] of normalised images; `train`: with batch statistics and dropout, by `key`."""
    rngs = {"dropout": jax.random.key(subject.seed) if key is None else key} if train else None
    logits, _ = subject.model.apply(variables, x, train=train, rngs=rngs, mutable=["batch_stats"])
    return logits


def logits_of(subject: Subject, variables: Any, images: np.ndarray) -> np.ndarray:
    """Returns the logits [N, K] of uint8 images in training mode, float64."""
    run = compiled(lambda variables, images: apply(subject, variables, subject.normalise(images), train=True))
    return np.asarray(run(variables, images), np.float64)


def input_gradient(
    subject: Subject, variables: Any, images: np.ndarray, weights: np.ndarray, *, train: bool = False
) -> np.ndarray:
    """Returns the gradient [N, H, W, C] of sum(weights * logits), weights [N, K], with respect to normalised images."""

    def mixed(x: jax.Array, variables: Any, weights: jax.Array) -> jax.Array:
        return jnp.sum(weights * apply(subject, variables, x, train=train))

    x = np.asarray(subject.normalise(images))
    return np.asarray(compiled(jax.grad(mixed))(x, variables, weights.astype(np.float32)), np.float64)


def draws_at_random(subject: Subject) -> bool:
    """Returns whether the network asks for random numbers in training: whether it has any dropout."""
    images = jax.ShapeDtypeStruct((subject.batch_size, *subject.train.images.shape[1:]), jnp.float32)

    def without(x: jax.Array) -> Any:
        return subject.model.apply(subject.variables, x, train=True, mutable=["batch_stats"])

    try:
        jax.eval_shape(without, images)
    except flax.errors.InvalidRngError:
        return True
    return False


def compiled(function: Callable) -> Callable:
    """Returns the function jitted as networks are."""
    return jax.jit(function, compiler_options=compiler_options())


def num_logits(subject: Subject) -> int:
    """Returns the outputs of the network, without any arithmetic."""
    image = jax.ShapeDtypeStruct((1, *subject.train.images.shape[1:]), jnp.float32)
    return jax.eval_shape(lambda x: apply(subject, subject.variables, x, train=False), image).shape[-1]


def shaken(subject: Subject, amount: float = 0.1) -> dict[str, Any]:
    """Returns the variables with noise on each parameter, of `amount` times its root mean square, or 0.02 if larger.

    What starts at exactly 0 on purpose (a head, the last scale of a block) lets no gradient through at first. After a
    step it does, so what is asked about the structure of a network is asked beside its starting point.
    """
    rng = np.random.default_rng(subject.seed + 1)  # by numpy: nothing is compiled for the shape of each leaf

    def shake(leaf: Any) -> jax.Array:
        values = np.asarray(leaf)
        size = max(amount * float(np.sqrt(np.mean(np.square(values, dtype=np.float64)))), 0.02)
        return jnp.asarray(values + (size * rng.standard_normal(values.shape, np.float32)).astype(values.dtype))

    return {**subject.variables, "params": jax.tree.map(shake, subject.variables["params"])}
