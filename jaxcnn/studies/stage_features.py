"""The maps of a network at all of its points, each averaged over height and width, from one pass over the images."""

import logging
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from jaxcnn import mesh as meshes
from jaxcnn.config import DataConfig
from jaxcnn.data.source import Source
from jaxcnn.inputs import read_for_evaluation
from jaxcnn.models.classifier import POOLED, Classifier
from jaxcnn.models.layers import global_mean
from jaxcnn.network import Network
from jaxcnn.runtime import compiler_options

LOG = logging.getLogger("jaxcnn")

Features = dict[str, np.ndarray]
"""By point: float32 [N, F]."""


def points_of(model: Classifier) -> tuple[str, ...]:
    """Returns the points whose features differ: without a neck, "pooled" is the mean of the last map."""
    parts = model.backbone.part_names
    return (*(parts if model.neck is not None else parts[:-1]), POOLED)


def means_at_points(model: Classifier, variables: dict[str, Any], images: jax.Array) -> dict[str, jax.Array]:
    """Returns the features at `points_of(model)`, [N, F] float32, of normalised images [N, H, W, C]."""
    parts = model.backbone.part_names
    maps: Any = model.clone(features=parts).apply(variables, images, train=False)
    after = model.clone(num_classes=0, features=(), start=parts[-1])
    means = {name: global_mean(maps[name]).astype(jnp.float32) for name in parts}  # [N, F]
    pooled: Any = after.apply(variables, maps[parts[-1]], train=False)
    means[POOLED] = pooled
    return {name: means[name] for name in points_of(model)}


def extractor(network: Network) -> Callable[[dict[str, Any], jax.Array], dict[str, jax.Array]]:
    """Returns the jitted (variables, images uint8 [N, H, W, C]) -> {point: [N, F]}."""

    def extract(variables: dict[str, Any], images: jax.Array) -> dict[str, jax.Array]:
        return means_at_points(network.model, variables, network.normalise(images))

    return jax.jit(extract, compiler_options=compiler_options())


def read_features(
    network: Network, variants: list[dict[str, Any]], source: Source, config: DataConfig, batch_size: int = 64
) -> tuple[list[Features], np.ndarray]:
    """Returns the features of a split by each of several variables of one network, and the labels int32 [N].

    Args:
      network: its model and preprocessing.
      variants: sets of variables; each image is decoded once for all of them.
      source: the split.
      config: how it is loaded.
      batch_size: images a forward pass.
    """
    mesh = meshes.widest_mesh(batch_size)
    batches = read_for_evaluation(config, source, network, mesh)
    placed = [meshes.replicate(mesh, variables) for variables in variants]
    points = points_of(network.model)
    extract, started = extractor(network), time.perf_counter()
    parts: list[list[Features]] = [[] for _ in variants]
    labels: list[np.ndarray] = []
    for batch, mask in tqdm(batches.batches(batch_size), source.name, leave=False, disable=not sys.stderr.isatty()):
        images = jax.device_put(batch.images, meshes.over_data(mesh))
        for own, variables in zip(parts, placed, strict=True):
            means = extract(variables, images)  # jit sorts the keys
            own.append({name: np.asarray(means[name])[mask] for name in points})
        labels.append(np.asarray(batch.labels)[mask])
    seconds = time.perf_counter() - started
    LOG.info(f"{source.name}: {len(batches):,} images, weights of {len(variants)} networks: {seconds:.0f} s")
    joined = [{name: np.concatenate([part[name] for part in own]) for name in own[0]} for own in parts]
    return joined, np.concatenate(labels)
