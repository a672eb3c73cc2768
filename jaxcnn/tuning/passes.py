"""Passes through the network of a subject, as the checks take them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn.runtime import compiler_options
from jaxcnn.tuning.subject import Examples, Subject

_MAX_VALUES = 1_000_000
"""Values of the images that go through the network at once, about: 330 of CIFAR-10, 20 photos of 128x128."""


def some(subject: Subject, count: int) -> Examples:
    """Returns training examples at random, by the seed: `count`, or as few as large images allow, but 8 if there are."""
    fits = _MAX_VALUES // int(np.prod(subject.train.images.shape[1:]))
    count = min(max(min(count, fits), 8), len(subject.train))
    return subject.train.take(np.random.default_rng(subject.seed).permutation(len(subject.train))[:count])


def apply(subject: Subject, variables: Any, x: jax.Array, *, train: bool, key: jax.Array | None = None) -> jax.Array:
    """Returns the logits [N, K] of normalised images; `train`: with batch statistics and dropout, by `key`."""
    rngs = {"dropout": jax.random.key(subject.seed) if key is None else key} if train else None
    logits, _ = subject.model.apply(variables, x, train=train, rngs=rngs, mutable=["batch_stats"])
    return logits


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
    leaves, tree = jax.tree.flatten(subject.variables["params"])
    keys = jax.random.split(jax.random.key(subject.seed + 1), len(leaves))

    def shake(leaf: jax.Array, key: jax.Array) -> jax.Array:
        size = jnp.maximum(amount * jnp.sqrt(jnp.mean(jnp.square(leaf))), 0.02)
        return leaf + size * jax.random.normal(key, leaf.shape, leaf.dtype)

    params = jax.tree.unflatten(tree, [shake(leaf, key) for leaf, key in zip(leaves, keys, strict=True)])
    return {**subject.variables, "params": params}
