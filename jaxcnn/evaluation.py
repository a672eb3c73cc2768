"""Measuring a network on a split: each example counts exactly once."""

from typing import Any

import jax
import numpy as np

from jaxcnn import mesh as meshes
from jaxcnn.data import loader, order
from jaxcnn.data.loader import Arrays
from jaxcnn.network import Network
from jaxcnn.training.metrics import divide, sums_of


def evaluate(
    network: Network, variables: dict[str, Any], arrays: Arrays, batch_size: int, mesh: jax.sharding.Mesh
) -> dict[str, Any]:
    """Returns loss, top1, top5, examples and class_top1 over a split, each example counted once.

    Args:
      network: model and preprocessing.
      variables: {"params", "batch_stats"}, replicated over the mesh.
      arrays: the split, on the device.
      batch_size: examples a forward pass, over all devices.
      mesh: the devices over which each batch is divided.
    """
    num_classes = len(network.class_names)
    shapes = jax.eval_shape(
        sums_of, jax.ShapeDtypeStruct((1, num_classes), np.float32), jax.ShapeDtypeStruct((1,), np.int32)
    )
    sums = meshes.replicate(mesh, jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes))
    for places, mask in order.evaluation_batches(len(arrays), batch_size):
        batch = loader.take(arrays, places)
        parts = jax.device_put((batch.images, batch.labels, mask), meshes.over_data(mesh))
        sums = network.evaluation_step(variables, sums, *parts)
    figures = divide(jax.device_get(sums))
    if figures["examples"] != len(arrays):
        raise AssertionError(f"{figures['examples']} examples were counted, the split has {len(arrays)}")
    return figures
