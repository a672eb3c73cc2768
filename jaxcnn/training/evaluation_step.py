"""One evaluation step: the figures of a batch added to those before."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxcnn.training import metrics
from jaxcnn.training.metrics import Sums

Views = Callable[[jax.Array], Sequence[jax.Array]]
"""uint8 images [B, H, W, C] -> inputs of the network, float32 [B, h, w, C] each: one, or several of each image."""


def make_evaluation_step(model: nn.Module, views: Views) -> Callable:
    """Returns (variables, sums, images uint8 [B, H, W, C], labels [B], mask [B]) -> sums with this batch added.

    Of several views the probabilities are averaged, as in Krizhevsky et al. 2012, section 4.1. Besides the sums of
    `metrics.sums_of` there is `confusion`, int32 [K, K].
    """

    def evaluate(variables: dict[str, Any], sums: Sums, images: jax.Array, labels: jax.Array, mask: jax.Array) -> Sums:
        logits = [model.apply(variables, view, train=False) for view in views(images)]
        joint: Any = logits[0] if len(logits) == 1 else _log_mean(logits)
        return metrics.add(sums, evaluation_sums(joint, labels, mask))

    return evaluate


def evaluation_sums(logits: jax.Array, labels: jax.Array, mask: jax.Array) -> Sums:
    """Returns what an evaluation adds up: `metrics.sums_of` and the confusion matrix."""
    return {**metrics.sums_of(logits, labels, mask), "confusion": metrics.confusion_of(logits, labels, mask)}


def _log_mean(logits: Sequence[Any]) -> jax.Array:
    """Returns the logarithm of the mean of the probabilities, [B, K]: logits of the mean."""
    log_probabilities = jnp.stack([jax.nn.log_softmax(each) for each in logits])
    return jax.nn.logsumexp(log_probabilities, axis=0) - jnp.log(len(logits))
