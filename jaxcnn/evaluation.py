"""Measuring a network on a split: each example counts exactly once."""

from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn import mesh as meshes
from jaxcnn.data.feed import Batches
from jaxcnn.training.evaluation_step import evaluation_sums
from jaxcnn.training.metrics import divide


class Measured(Protocol):
    """What is measured: a `network.Network` on images, or the part of one that goes on from features."""

    @property
    def class_names(self) -> tuple[str, ...]: ...

    @property
    def evaluation_step(self) -> Callable:
        """The jitted evaluation step; see `training/evaluation_step.py`."""


def evaluate(
    network: Measured,
    variables: dict[str, Any],
    split: Batches,
    batch_size: int,
    mesh: jax.sharding.Mesh,
    between: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Returns the figures of a network on a split, each example counted once.

    Args:
      network: its evaluation step and class names.
      variables: {"params", "batch_stats"} on the mesh.
      split: its images have the shape of `network.measured_on`; or they are features.
      batch_size: examples a forward pass, over all devices.
      mesh: the devices over which each batch is divided.
      between: called before each batch; it may raise, and the figures are given up.

    Returns:
      loss, top1, top5, examples, class_top1, balanced_accuracy: see `metrics.divide`.
      confusion: int [K, K], how many examples of each class (row) were taken for each class (column).
    """
    sums = meshes.replicate(mesh, _no_sums(network))
    for batch, mask in split.batches(batch_size):
        between()
        parts = meshes.divide(mesh, (batch.images, batch.labels, mask), batch_size)
        sums = network.evaluation_step(variables, sums, *parts)
    found = jax.device_get(sums)
    figures = divide(found)
    if figures["examples"] != len(split):
        raise AssertionError(f"{figures['examples']} examples were counted, the split has {len(split)}")
    return {**figures, "confusion": np.asarray(found["confusion"])}


def _no_sums(network: Measured) -> dict[str, np.ndarray]:
    """The sums of no batch, in the form of the evaluation step."""
    num_classes = len(network.class_names)
    logits, labels = jax.ShapeDtypeStruct((1, num_classes), jnp.float32), jax.ShapeDtypeStruct((1,), jnp.int32)
    shapes = jax.eval_shape(evaluation_sums, logits, labels, jax.ShapeDtypeStruct((1,), jnp.bool_))
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
