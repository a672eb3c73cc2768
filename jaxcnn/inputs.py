"""The data of a run: a loader chosen by size, splits decoded or streamed, statistics measured."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jax.sharding import Mesh

from jaxcnn import mesh as meshes
from jaxcnn import processes
from jaxcnn.config import DataConfig, Preprocessing, TrainConfig
from jaxcnn.data import loader
from jaxcnn.data.feed import Batches, Feed, HostBatches, HostFeed, ResidentFeed
from jaxcnn.data.host_crop import CentreCrop, RandomResizedCrop, Transform
from jaxcnn.data.loader import Arrays
from jaxcnn.data.order import TrainingOrder
from jaxcnn.data.scan import scan
from jaxcnn.data.source import Source, Splits
from jaxcnn.data.statistics import channel_statistics
from jaxcnn.errors import InputError
from jaxcnn.network import Network, larger
from jaxcnn.runtime import data_cache_folder

LOG = logging.getLogger("jaxcnn")


@dataclass(frozen=True)
class Inputs:
    """The splits of a run, ready to be read.

    Attributes:
      kind: "resident", "cached" or "streamed".
      train: the training split; in memory if it is resident.
      others: the splits to measure on, by name, in the same way.
      labels: those of the training examples, int32 [N].
      mean, std: of the training images a channel, in units of 0..1.
      where: what a training example is called in a message, by its place.
      part: places of the training examples that are measured without augmentation; none of them: an empty array.
      clean: these examples, in the form in which the others are measured.
    """

    kind: str
    train: Arrays | Source
    others: dict[str, Arrays | Source]
    labels: np.ndarray
    mean: tuple[float, ...]
    std: tuple[float, ...]
    where: Callable[[int], str] = "example {}".format
    part: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    clean: Arrays | Source | None = None

    @property
    def num_train(self) -> int:
        return len(self.labels)


def read_inputs(config: TrainConfig, splits: Splits, network: Network) -> Inputs:
    """Returns the splits of a config, decoded or looked through once.

    Args:
      config: what to train.
      splits: its sources.
      network: says which images are measured; its mean and std are not used.

    Raises:
      InputError: they do not fit where they should, or an image is unreadable.
    """
    train_shape, train_share = training_images(config, network.preprocessing)
    shape, share = network.measured_on
    sources = splits.named()
    shapes = {name: (train_shape, train_share) if name == "train" else (shape, share) for name in sources}
    kind = choose_loader(config.data, sum(loader.gib_of(source, shapes[name][0]) for name, source in sources.items()))

    def all_ready() -> dict[str, Arrays | Source]:
        return {name: _ready(kind, config.data, source, *shapes[name]) for name, source in sources.items()}

    # What is found out of data, or kept of them, on disk is found out once.
    ready = all_ready() if kind == "resident" else processes.first_before_others(all_ready, "look through the data")
    train = ready.pop("train")
    if isinstance(train, Arrays):
        labels, (mean, std) = np.asarray(train.labels), channel_statistics(np.asarray(train.images))
    else:  # of a streamed split this finds the pass that `_ready` made
        looked = sources["train"] if kind == "streamed" else train
        left = 1.0 if looked.is_cropped else train_share
        found = scan(looked, train_shape, left, cache_dir=config.data.cache_dir)
        labels, mean, std = train.labels, found.mean, found.std
    whole = sources["train"].num_examples == len(labels)
    where = sources["train"].records.where if whole else "readable example {}".format
    part = _measured_part(config, len(labels), len(ready["validation"].labels))
    clean: Arrays | Source | None = None
    if len(part):
        same = (train_shape, train_share) == (shape, share)
        if isinstance(train, Source) and (same or kind == "streamed"):
            clean = train.subset(part)
        elif isinstance(train, Arrays) and same:
            clean = loader.take(train, part)
        else:  # what training reads is larger, for random crops
            source = sources["train"]
            if not whole:  # places are among those that can be read
                unreadable = scan(source, train_shape, train_share, cache_dir=config.data.cache_dir).unreadable
                source = source.subset(loader.kept_places(source, unreadable, "skip"))
            clean = _ready(kind, config.data, source.subset(part), shape, share)
    return Inputs(kind, train, ready, labels, mean, std, where, part, clean)


def _measured_part(config: TrainConfig, num_train: int, num_validation: int) -> np.ndarray:
    """Places of the training examples that are measured besides validation: drawn once and for all, in their order.

    By default of whole batches, if there are any: the gap is measured in training mode too, where batches matter.
    """
    wanted, size = config.evaluation.train_examples, config.train.batch_size
    count = min(num_train // 10, num_validation) if wanted is None else min(wanted, num_train)
    if wanted is None and count > size:
        count -= count % size
    return np.sort(np.random.default_rng(0).permutation(num_train)[:count])


def training_images(config: TrainConfig, inputs: Preprocessing) -> tuple[tuple[int, int, int], float]:
    """Returns (shape, crop share) of training images as they are kept: larger, if random crops of them are resized."""
    if config.augment.resized_crop.prob:
        return larger(inputs.image_shape, inputs.crop_share), 1.0
    return inputs.image_shape, inputs.crop_share


def choose_loader(config: DataConfig, gib: float) -> str:
    """Returns the loader for splits of so many GiB when decoded, and says in the log which and why.

    Raises:
      InputError: resident is asked for, and they do not fit.
    """
    fits = gib <= config.resident_limit_gib
    told = f"{gib:.2g} GiB decoded, data.resident_limit_gib={config.resident_limit_gib:g}"
    if config.loader == "resident" and not fits:
        raise InputError(f"data.loader=resident: {told}; raise it, or leave data.loader to auto")
    kind = config.loader if config.loader != "auto" else "resident" if fits else "streamed"
    workers = f"{config.workers} processes" if config.workers else "threads"
    how = {
        "resident": "decoded once, on the device",
        "cached": f"decoded once, on disk in {data_cache_folder(config.cache_dir)}",
        "streamed": f"decoded in each epoch by {workers}",
    }
    LOG.info(f"loader: {kind}, {how[kind]} ({told})")
    return kind


def _ready(
    kind: str, config: DataConfig, source: Source, shape: tuple[int, int, int], crop_share: float
) -> Arrays | Source:
    """A split in memory, on disk, or looked through once so that the unreadable are known."""
    if kind == "resident":
        return loader.read_arrays(source, shape, crop_share, config.unreadable)
    folder = data_cache_folder(config.cache_dir)
    if kind == "cached":
        return loader.cached_source(source, shape, crop_share, config.unreadable, folder)
    unreadable = scan(source, shape, crop_share, cache_dir=config.cache_dir).unreadable
    loader.check_labels(source)
    kept = loader.kept_places(source, unreadable, config.unreadable)
    return source if len(kept) == source.num_examples else source.subset(kept)


def batches_of(split: Arrays | Source, network: Network, mesh: Mesh) -> Batches:
    """Returns a split to measure a network on; what is in memory goes to the devices."""
    if isinstance(split, Arrays):
        return meshes.replicate(mesh, split)
    return host_batches(split, CentreCrop(*network.measured_on))


def host_batches(split: Source, transform: Transform) -> HostBatches:
    """Returns a split decoded in each pass, through what a loader on the host does to each image."""
    return HostBatches(split, _once(transform, split), meshes.own_part())


def _once(transform: Transform, split: Source) -> Transform:
    """The transform without the centre crop that the images of a split have had already."""
    twice = split.is_cropped and isinstance(transform, CentreCrop)
    return CentreCrop(transform.shape) if twice else transform


def read_for_evaluation(config: DataConfig, source: Source, network: Network, mesh: Mesh) -> Batches:
    """Returns a source to measure a network on, read as a run of this config would."""
    shape, share = network.measured_on
    kind = choose_loader(config, loader.gib_of(source, shape))
    return batches_of(_ready(kind, config, source, shape, share), network, mesh)


def feed_of(config: TrainConfig, inputs: Inputs, network: Network, mesh: Mesh, total_steps: int) -> Feed:
    """Returns what training reads."""
    order = training_order(config, inputs)
    max_steps = min(config.train.max_steps_per_dispatch, total_steps)
    if isinstance(inputs.train, Arrays):
        return ResidentFeed(meshes.replicate(mesh, inputs.train), order, max_steps, replicated(mesh))
    transform = _once(training_transform(config, network.preprocessing), inputs.train)
    workers = config.data.workers
    place, part = batches_over_data(mesh), meshes.own_part()
    return HostFeed(inputs.train, order, transform, total_steps, max_steps, workers, place, part)


def training_order(config: TrainConfig, inputs: Inputs) -> TrainingOrder:
    """Returns which examples each training step sees."""
    labels = inputs.labels if config.data.sampling == "balanced" else None
    return TrainingOrder(inputs.num_train, config.train.batch_size, config.seed, labels)


def crops_on_host(config: TrainConfig, kind: str) -> bool:
    """Returns whether random resized crops are taken by the loader, from the images as they are stored."""
    return kind != "resident" and config.augment.resized_crop.prob > 0


def training_transform(config: TrainConfig, inputs: Preprocessing) -> Transform:
    """Returns what a loader on the host does to each training image."""
    crop = config.augment.resized_crop
    if not crop.prob:
        return CentreCrop(inputs.image_shape, inputs.crop_share)
    return RandomResizedCrop(inputs.image_shape, config.seed, crop.area, crop.aspect, crop.prob)


def replicated(mesh: Mesh) -> Callable[[Any], Any]:
    """Returns what places a copy of host arrays on every device."""
    return lambda tree: meshes.replicate(mesh, tree)


def batches_over_data(mesh: Mesh) -> Callable[[Any, int], Any]:
    """Returns what places arrays [steps, B, ...], or the part of the batches that this process has read."""
    return lambda tree, batch_size: meshes.divide(mesh, tree, batch_size, axis=1)
