"""What is planned: a config with the sizes of its data, as a run whose arrays are shapes."""

import dataclasses
import functools
import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxcnn import mesh as meshes
from jaxcnn.config import FeaturesConfig, Preprocessing, TrainConfig
from jaxcnn.data.feed import Feed, HostFeed, ResidentFeed
from jaxcnn.data.loader import Arrays
from jaxcnn.data.metadata import image_shape_and_classes, split_sizes
from jaxcnn.data.order import TrainingOrder
from jaxcnn.errors import InputError
from jaxcnn.inputs import Inputs, choose_loader, training_images, training_transform
from jaxcnn.job import Job, check_batches, check_steps, steps_of
from jaxcnn.network import Network, build_network
from jaxcnn.phases import make_phases
from jaxcnn.run_folder import RunFolder
from jaxcnn.training.learning_rates import peak_rate
from jaxcnn.training.schedules import make_schedule
from jaxcnn.training.step import zero_sums
from jaxcnn.weights.imported_run import numbered


@dataclass(frozen=True)
class Subject:
    """What is planned.

    Attributes:
      config: what to train.
      preprocessing: of its network; mean and std are not used.
      class_names: of its head.
      examples: of the splits "train", "validation" and, if there is one, "test".
      kind: the loader: "resident", "cached" or "streamed".
      notes: what has to be known to read the figures, each a sentence.
    """

    config: TrainConfig
    preprocessing: Preprocessing
    class_names: tuple[str, ...]
    examples: dict[str, int]
    kind: str
    notes: tuple[str, ...] = ()

    @functools.cached_property
    def network(self) -> Network:
        return build_network(self.config, self.preprocessing, self.class_names)

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return steps_of(self.config.train.epochs, self.examples["train"] / self.config.train.batch_size)

    def changed(self, section: str, **fields: Any) -> "Subject":
        """Returns the subject with other values in a section of its config."""
        part = dataclasses.replace(getattr(self.config, section), **fields)
        kind = fields.get("loader", self.kind) if section == "data" else self.kind
        return dataclasses.replace(self, config=dataclasses.replace(self.config, **{section: part}), kind=kind)


def subject_of(
    config: TrainConfig, image_size: int | None = None, num_classes: int | None = None, examples: int | None = None
) -> Subject:
    """Returns what a config is to train; the data need not be there where their sizes are known without.

    Args:
      config: what to train.
      image_size: side of the network's input in pixels, in the place of that of the config or the data.
      num_classes: classes of the head, likewise.
      examples: training examples, likewise.

    Raises:
      InputError: sizes that are not known, with what to give in their place, or parts that do not fit.
    """
    data = dataclasses.replace(config.data, image_size=image_size or config.data.image_size)
    config = dataclasses.replace(config, data=data)
    known = num_classes or config.model.num_classes or (len(data.classes) if data.classes else None)
    try:
        shape, names = image_shape_and_classes(data)
    except InputError as error:
        if data.image_size is None or known is None:
            raise InputError(f"{error}; or without the data: --image-size PX --classes N --examples N") from None
        shape, names = (data.image_size, data.image_size, data.channels or 3), numbered(known)
    if num_classes is not None:
        names = numbered(num_classes)
        config = dataclasses.replace(config, model=dataclasses.replace(config.model, num_classes=None))
    order: Any = "grey" if shape[2] == 1 else "RGB"
    images = Preprocessing(shape, (0.5,) * shape[2], (0.25,) * shape[2], order, data.crop_share)
    return _subject(config, images, names, examples)


def subject_of_run(folder: RunFolder, config: TrainConfig | None = None, examples: int | None = None) -> Subject:
    """Returns what a run trained, or the same with another config; raises InputError as `subject_of`."""
    return _subject(config or folder.config, folder.preprocessing, folder.class_names, examples)


def _subject(config: TrainConfig, images: Preprocessing, names: tuple[str, ...], examples: int | None) -> Subject:
    sizes = {"train": examples} if examples is not None else {}
    try:
        sizes = {**split_sizes(config.data), **sizes}
    except InputError as error:
        if examples is None:
            raise InputError(f"{error}; say how many to train on: --examples N") from None
    notes = []
    if config.features != FeaturesConfig():
        notes.append("features.cache is left out: the frozen part is computed once, and its steps are cheaper")
        config = dataclasses.replace(config, features=FeaturesConfig())
    if config.unfreeze:
        notes.append("of the last phase, in which most trains; the steps before it are cheaper")
    plain = build_network(config, images, names)
    gib = sum(count * math.prod(_kept_shape(config, plain, name)) / 2**30 for name, count in sizes.items())
    return Subject(config, images, names, sizes, choose_loader(config.data, gib), tuple(notes))


def _kept_shape(config: TrainConfig, network: Network, split: str) -> tuple[int, int, int]:
    """Shape of the images of a split as they are kept."""
    return training_images(config, network.preprocessing)[0] if split == "train" else network.measured_on[0]


@dataclass(frozen=True)
class Planned:
    """A run of which nothing is there.

    Attributes:
      job: the run; its arrays are shapes.
      source, inputs: shapes with placements of what its chunk of steps reads.
      held_bytes: memory of a chip that the chunk does not know of: resident splits to measure on, or the batches of the
        next dispatch, which are sent while this one runs.
    """

    job: Job
    source: Any
    inputs: Any
    held_bytes: int

    @property
    def phase(self) -> int:
        return len(self.job.phases) - 1  # the one in which most trains


def planned_on(subject: Subject, mesh: Mesh) -> Planned:
    """Returns the run of a subject on a mesh, whose devices need not be here.

    Raises:
      InputError: batches that do not fit, or as `make_phases` and `state_placements`.
    """
    config, network, num_train = subject.config, subject.network, subject.examples["train"]
    check_batches(config, num_train, mesh.size, device="chip")
    size, total_steps = config.train.batch_size, subject.total_steps
    steps_per_epoch = num_train / size
    schedule = make_schedule(config.schedule, peak_rate(config), total_steps, steps_per_epoch)
    labels = np.arange(num_train, dtype=np.int32) % len(subject.class_names)  # classes are taken to be equally many
    mean, std = subject.preprocessing.mean, subject.preprocessing.std
    unread: Any = None
    inputs = Inputs(subject.kind, unread, {}, labels, mean, std)
    phases = make_phases(config, network, schedule, inputs, devices=mesh.size)
    check_steps(phases, steps_per_epoch, total_steps)
    feed = _feed(subject, total_steps)
    images = jax.ShapeDtypeStruct((size, *feed.image_shape), feed.image_dtype)
    given = jax.ShapeDtypeStruct((size,), jnp.int32)
    sums: Any = zero_sums(phases[0].step, phases[0].state_shapes(network), images, given)
    job = Job(
        config=config,
        network=network,
        mesh=mesh,
        feed=feed,
        measured=network,
        start=None,
        splits={},
        clean=None,
        inputs=inputs,
        schedule=schedule,
        steps_per_epoch=steps_per_epoch,
        total_steps=total_steps,
        phases=phases,
        phases_of=lambda other, start, rates=schedule: make_phases(
            other, network, rates, inputs, start, devices=mesh.size
        ),
        initial_state=_unknown,
        zero_sums=lambda: sums,
    )
    source, read = _read(feed, mesh, subject.kind)
    held = bytes_of_a_chip(read) if subject.kind != "resident" else _resident_bytes(subject)
    return Planned(job, source, read, held)


def _unknown() -> Any:
    raise AssertionError("a plan has no arrays")


def _feed(subject: Subject, total_steps: int) -> Feed:
    config, num_train = subject.config, subject.examples["train"]
    labels = None if config.data.sampling == "shuffled" else np.zeros(num_train, np.int32)
    order = TrainingOrder(num_train, config.train.batch_size, config.seed, labels)
    max_steps = min(config.train.max_steps_per_dispatch, total_steps)
    absent: Any = None
    if subject.kind == "resident":
        shape = _kept_shape(config, subject.network, "train")
        images: Any = jax.ShapeDtypeStruct((num_train, *shape), jnp.uint8)
        places: Any = jax.ShapeDtypeStruct((num_train,), jnp.int32)
        return ResidentFeed(Arrays(images, places), order, max_steps, absent)
    transform = training_transform(config, subject.preprocessing)
    return HostFeed(absent, order, transform, total_steps, max_steps, 0, absent)


def _read(feed: Feed, mesh: Mesh, kind: str) -> tuple[Any, Any]:
    """Shapes with placements of what lies on the devices for the whole run, and of what a dispatch brings."""
    rows, size = max(feed.rows, 2), feed.order.batch_size
    everywhere, divided = meshes.replicated(mesh), meshes.over_data(mesh, 1)
    if kind == "resident":
        source = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=everywhere), feed.source
        )
        return source, jax.ShapeDtypeStruct((rows, size), jnp.int32, sharding=everywhere)
    images: Any = jax.ShapeDtypeStruct((rows, size, *feed.image_shape), jnp.uint8, sharding=divided)
    labels: Any = jax.ShapeDtypeStruct((rows, size), jnp.int32, sharding=divided)
    return (), Arrays(images, labels)


def _resident_bytes(subject: Subject) -> int:
    """The splits that are measured, and the training examples that are measured as they are; whole on each chip."""
    sizes, wanted = subject.examples, subject.config.evaluation.train_examples
    measured = {name: count for name, count in sizes.items() if name != "train"}
    measured["clean"] = min(sizes["train"] // 10, sizes.get("validation", 0)) if wanted is None else wanted
    image = math.prod(_kept_shape(subject.config, subject.network, "validation"))
    return sum(count * (image + 4) for count in measured.values())


def bytes_of_a_chip(tree: Any) -> int:
    """Returns the bytes of shapes with placements that a chip holds."""
    return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
