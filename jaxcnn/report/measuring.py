"""What a report needs of the weights: the confusion matrix of validation, and the images that they get most wrong."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn import mesh as meshes
from jaxcnn.augment.test_time import crops_and_flips
from jaxcnn.config import TrainConfig
from jaxcnn.data.sources import open_splits
from jaxcnn.data.split_expressions import data_set_name
from jaxcnn.errors import InputError
from jaxcnn.inputs import read_for_evaluation
from jaxcnn.network import Network, build_network, check_same_classes, load_variables
from jaxcnn.run_folder import RunFolder
from jaxcnn.runtime import compiler_options


@dataclass(frozen=True)
class WorstImage:
    """An image of the validation split with a high loss.

    Attributes:
      place: which example of the split.
      image: uint8 [H, W, C].
      label, predicted: classes.
      probability: of the predicted class.
      label_probability: of the label.
      loss: cross-entropy in nats.
    """

    place: int
    image: np.ndarray
    label: int
    predicted: int
    probability: float
    label_probability: float
    loss: float


@dataclass(frozen=True)
class Measured:
    """Validation by the weights of a checkpoint.

    Attributes:
      step: of the checkpoint.
      confusion: int [K, K], how many examples of each class (row) were taken for each class (column).
      worst: images with the highest losses, highest first.
    """

    step: int
    confusion: np.ndarray
    worst: tuple[WorstImage, ...]


def measure_validation(folder: RunFolder, config: TrainConfig, count: int = 24) -> Measured:
    """Returns what the best weights of a run make of its validation split.

    Args:
      folder: the run.
      config: its own, with other places of its data where they have moved.
      count: worst images to return.

    Raises:
      InputError: no checkpoint, or the data cannot be read or are not those of the run.
    """
    images = folder.preprocessing
    if config.data.crop_share != folder.config.data.crop_share:
        images = replace(images, crop_share=config.data.crop_share)
    network = build_network(config, images, folder.class_names)
    variables, step = load_variables(folder)
    source = open_splits(config.data).named().get("validation")
    if source is None:
        raise InputError(f"{data_set_name(config.data)} has no validation split; set data.validation_split")
    check_same_classes(source, network, str(folder.path))
    size = config.evaluation.batch_size
    mesh = meshes.widest_mesh(size)
    variables = meshes.replicate(mesh, variables)
    apply = _log_probabilities(network)
    confusion = np.zeros((len(network.class_names),) * 2, np.int64)
    worst: list[WorstImage] = []
    first = 0
    for batch, mask in read_for_evaluation(config.data, source, network, mesh).batches(size):
        there = int(np.sum(mask))  # the last batch is padded at its end
        found = np.asarray(apply(variables, jax.device_put(batch.images, meshes.over_data(mesh))))[:there]
        labels = np.asarray(batch.labels)[:there]
        np.add.at(confusion, (labels, found.argmax(-1)), 1)
        worst = _merged(worst, found, labels, batch.images, first, count)
        first += there
    return Measured(step, confusion, tuple(worst))


def _log_probabilities(network: Network) -> Callable:
    """The jitted function (variables, images uint8) -> logarithms of probabilities, views averaged as in evaluation."""
    height, width, _ = network.preprocessing.image_shape

    def apply(variables: dict, images: jax.Array) -> jax.Array:
        views = crops_and_flips(images, height, width, network.evaluation.crops, network.evaluation.flip)
        found: Any = [network.model.apply(variables, network.normalise(view), train=False) for view in views]
        logs = jnp.stack([jax.nn.log_softmax(logits) for logits in found])
        return jax.nn.logsumexp(logs, axis=0) - jnp.log(len(views))

    return jax.jit(apply, compiler_options=compiler_options())


def _merged(
    worst: list[WorstImage], log_probabilities: np.ndarray, labels: np.ndarray, images: object, first: int, count: int
) -> list[WorstImage]:
    """The worst so far and those of a batch, highest loss first, of equal ones the first."""
    losses = -log_probabilities[np.arange(len(labels)), labels]
    held = np.asarray(images)
    for place in np.argsort(-losses, kind="stable")[:count]:
        logs, label = log_probabilities[place], int(labels[place])
        best = int(logs.argmax())
        worst.append(
            WorstImage(
                place=first + int(place),
                image=held[place],
                label=label,
                predicted=best,
                probability=float(np.exp(logs[best])),
                label_probability=float(np.exp(logs[label])),
                loss=float(losses[place]),
            )
        )
    return sorted(worst, key=lambda one: (-one.loss, one.place))[:count]
