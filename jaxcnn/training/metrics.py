"""Figures as sums with counts: added over batches, devices and hosts, divided once at the end."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn.training.losses import cross_entropy

Sums = dict[str, jax.Array]


def sums_of(logits: jax.Array, labels: jax.Array, mask: jax.Array | None = None) -> Sums:
    """Returns the sums over a batch.

    Args:
      logits: float32 [N, K].
      labels: int32 [N].
      mask: bool [N], which examples count; none: all.

    Returns:
      loss: sum of the cross-entropies. examples, top1, top5: counts; top5 is that of the best min(5, K).
      class_examples, class_top1: counts of each class [K].
    """
    counts = jnp.ones(labels.shape, jnp.int32) if mask is None else mask.astype(jnp.int32)
    num_classes = logits.shape[-1]
    own = jnp.take_along_axis(logits, labels[:, None], axis=-1)
    # Rank of the label's logit; of equal logits the lower class comes first, as in argmax. NaN is never a hit.
    before = (logits > own) | ((logits == own) & (jnp.arange(num_classes) < labels[:, None]))
    rank = jnp.sum(before, axis=-1)
    finite = jnp.isfinite(own[:, 0])
    hit1 = counts * (finite & (rank < 1))
    hit5 = counts * (finite & (rank < 5))
    zeros = jnp.zeros(num_classes, jnp.int32)
    losses = cross_entropy(logits, labels)
    return {
        "loss": jnp.sum(jnp.where(counts > 0, losses, 0.0)),
        "examples": jnp.sum(counts),
        "top1": jnp.sum(hit1),
        "top5": jnp.sum(hit5),
        "class_examples": zeros.at[labels].add(counts),
        "class_top1": zeros.at[labels].add(hit1),
    }


def confusion_of(logits: jax.Array, labels: jax.Array, mask: jax.Array) -> jax.Array:
    """Returns int32 [K, K]: how many examples of each class (row) were taken for each class (column)."""
    num_classes = logits.shape[-1]
    zeros = jnp.zeros((num_classes, num_classes), jnp.int32)
    return zeros.at[labels, jnp.argmax(logits, axis=-1)].add(mask.astype(jnp.int32))


def add(first: Any, second: Any) -> Any:
    """Returns the sums of two sets of sums."""
    return jax.tree.map(jnp.add, first, second)


def divide(sums: Sums) -> dict[str, Any]:
    """Returns the figures of sums: loss, top1, top5 as means over examples, and examples; floats and ints.

    `class_top1` is the list of the accuracies of the classes (their recalls), none for a class without examples;
    `balanced_accuracy` its mean over the classes that have some (Brodersen et al. 2010).
    """
    values = {name: np.asarray(value) for name, value in sums.items()}
    examples = int(values["examples"])
    figures: dict[str, Any] = {name: float(values[name]) / max(examples, 1) for name in ("loss", "top1", "top5")}
    figures["examples"] = examples
    if "class_examples" in values:
        pairs = zip(values["class_top1"].tolist(), values["class_examples"].tolist(), strict=True)
        figures["class_top1"] = [hits / count if count else None for hits, count in pairs]
        recalls = [recall for recall in figures["class_top1"] if recall is not None]
        figures["balanced_accuracy"] = sum(recalls) / max(len(recalls), 1)
    return figures
