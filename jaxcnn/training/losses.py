"""Losses, one value an example."""

from typing import NamedTuple

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


class Targets(NamedTuple):
    """What the network should say of each image: one label, or two with their shares; a leading axis [N] throughout."""

    labels: jax.Array
    """int32 [N]."""
    others: jax.Array | None = None
    """int32 [N]: labels of the images mixed in; none: nothing is mixed."""
    share: jax.Array | None = None
    """float32 [N]: of `labels`; that of `others` is the rest."""


def target_losses(
    logits: jax.Array, targets: Targets, smoothing: float = 0.0, class_weights: tuple[float, ...] | None = None
) -> jax.Array:
    """Returns the loss of each example [N]; of mixed images share * L(label) + (1 - share) * L(other label).

    Cross-entropy is linear in the target, so this is the loss of the mixed target (Zhang et al. 2017, section 2).

    Args:
      logits: [N, K].
      targets: of the batch.
      smoothing: s of `smoothed_cross_entropy`.
      class_weights: K factors: L(label) is multiplied by that of its label; none: 1. The mean of a batch is taken over
        its examples, not over their weights, so weights with mean 1 over the data keep the scale of the loss.
    """

    def loss(labels: jax.Array) -> jax.Array:
        losses = smoothed_cross_entropy(logits, labels, smoothing)
        return losses if class_weights is None else losses * jnp.asarray(class_weights, losses.dtype)[labels]

    if class_weights is not None and len(class_weights) != logits.shape[-1]:
        raise ValueError(f"{len(class_weights)=} must be the number of classes, {logits.shape[-1]}")
    if targets.others is None or targets.share is None:
        return loss(targets.labels)
    return targets.share * loss(targets.labels) + (1 - targets.share) * loss(targets.others)
