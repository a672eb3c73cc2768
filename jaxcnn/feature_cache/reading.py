"""Features in the place of images: what training and evaluation read, and the network that goes on from them."""

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxcnn import mesh as meshes
from jaxcnn.config import TrainConfig
from jaxcnn.data.feed import Batches, Feed, MappedFeed, ResidentFeed
from jaxcnn.data.loader import Arrays
from jaxcnn.data.order import ViewOrder
from jaxcnn.data.source import Source
from jaxcnn.evaluation import Measured
from jaxcnn.feature_cache.extraction import Extraction
from jaxcnn.inputs import Inputs, batches_over_data, replicated, training_order
from jaxcnn.models.classifier import Classifier
from jaxcnn.network import Network
from jaxcnn.runtime import compiler_options
from jaxcnn.training.evaluation_step import make_evaluation_step

LOG = logging.getLogger("jaxcnn")


@dataclass(frozen=True)
class FeatureNetwork:
    """The part of a network that goes on from features, as `evaluation.evaluate` takes it.

    Attributes:
      model: begins at the point where the features were taken; its variables are those of the whole network.
      class_names: those of the network.
      deterministic: whether it is measured with the same bits each time on a GPU.
    """

    model: Classifier
    class_names: tuple[str, ...]
    deterministic: bool = False

    @functools.cached_property
    def evaluation_step(self) -> Callable:
        """The jitted evaluation step, with features for images; see `training/evaluation_step.py`."""
        step = make_evaluation_step(self.model, lambda features: [features])
        options = compiler_options(deterministic=self.deterministic)
        return jax.jit(step, donate_argnums=1, compiler_options=options)


@dataclass(frozen=True)
class Reading:
    """All that a run reads: images, or features once the frozen part has been computed.

    Attributes:
      network: what is measured: the whole network, or what goes on from the features.
      feed: what training reads.
      splits: the splits to measure on, by name.
      clean: the training examples that are measured beside them; none: of these there are augmented views only.
    """

    network: Measured
    feed: Feed
    splits: dict[str, Batches]
    clean: Batches | None


def cached_features(
    config: TrainConfig,
    inputs: Inputs,
    network: Network,
    variables: dict[str, Any],
    point: str,
    mesh: Mesh,
    total_steps: int,
) -> Reading:
    """Returns what a run on kept features reads; those that are not on disk yet are computed, which may take minutes.

    They lie on the device if all of them fit data.resident_limit_gib; else the host gathers them from the disk.

    Args:
      config: what to train.
      inputs: its data.
      network: its network, on images.
      variables: {"params", "batch_stats"} of it, of which only what is before the point counts; not averages.
      point: of `points.point_of`.
      mesh: the devices.
      total_steps: of the run.

    Raises:
      InputError: they cannot be written, or a split has no fingerprint.
    """
    features = Extraction(config, inputs, network, variables, point, mesh).run()
    views = features.pop("train")
    others = {name: Arrays(found, _labels(inputs.others[name])) for name, (found,) in features.items()}
    gib = sum(array.nbytes for array in (*views, *(np.asarray(split.images) for split in others.values()))) / 2**30
    resident = gib <= config.data.resident_limit_gib
    told = f"{gib:.2g} GiB, data.resident_limit_gib={config.data.resident_limit_gib:g}"
    LOG.info(f"features: {'on the device' if resident else 'gathered from the disk by the host'} ({told})")
    splits = {name: meshes.replicate(mesh, split) if resident else split for name, split in others.items()}
    clean = None
    if len(inputs.part) and config.features.views == 1:
        part = Arrays(np.asarray(views[0][inputs.part]), inputs.labels[inputs.part])
        clean = meshes.replicate(mesh, part) if resident else part
    feed = _feed(config, inputs, views, mesh, total_steps, resident)
    goes_on = FeatureNetwork(network.model.clone(start=point), network.class_names, network.deterministic)
    return Reading(goes_on, feed, splits, clean)


def _feed(
    config: TrainConfig, inputs: Inputs, views: list[np.ndarray], mesh: Mesh, total_steps: int, resident: bool
) -> Feed:
    order = ViewOrder(training_order(config, inputs), len(views))
    max_steps = min(config.train.max_steps_per_dispatch, total_steps)
    if not resident:
        return MappedFeed(tuple(views), inputs.labels, order, max_steps, batches_over_data(mesh))
    arrays = Arrays(np.concatenate(views), np.tile(inputs.labels, len(views)))
    return ResidentFeed(meshes.replicate(mesh, arrays), order, max_steps, replicated(mesh))


def _labels(split: Arrays | Source) -> np.ndarray:
    return np.asarray(split.labels)
