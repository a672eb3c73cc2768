"""Losses, one value an example."""

import jax
import jax.numpy as jnp
import optax


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns -log p(label) [N], for logits [N, K] and labels int32 [N]."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def smoothed_cross_entropy(logits: jax.Array, labels: jax.Array, smoothing: float) -> jax.Array:
    """Returns [N]: cross-entropy to (1 - s)·onehot + s/K (Szegedy et al. 2015, section 7); s = 0 is `cross_entropy`."""
    uniform = -jnp.mean(jax.nn.log_softmax(logits), axis=-1)
    return (1 - smoothing) * cross_entropy(logits, labels) + smoothing * uniform
