"""Linear probes on the points of a network, of several weights at once, and of few images."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from jaxcnn.config import DataConfig, ModelConfig, Preprocessing, TrainConfig
from jaxcnn.data import loader
from jaxcnn.data.selection import drawn_places
from jaxcnn.data.source import Splits
from jaxcnn.data.sources import open_splits
from jaxcnn.errors import InputError
from jaxcnn.network import Network, build_network
from jaxcnn.run_folder import RunFolder, is_run
from jaxcnn.start import fit_start, initial_variables
from jaxcnn.studies.linear_probe import Probe, fit_probe
from jaxcnn.studies.reading import quietly
from jaxcnn.studies.stage_features import Features, points_of, read_features
from jaxcnn.weights.importer import filled, preprocessing_for

PRETRAINED, RANDOM = "pretrained", "random"
Found = dict[str, tuple[Probe, float]]
"""By point: the probe, and its top-1 on validation, 0..1."""


@dataclass(frozen=True)
class Probed:
    """A task, as it is read from a network's points: features of its splits by each of several weights, and labels."""

    name: str
    data: DataConfig
    points: tuple[str, ...]
    class_names: tuple[str, ...]
    train: dict[str, list[Features]]
    """By kind of weights, PRETRAINED or RANDOM: a network each."""
    validation: dict[str, list[Features]]
    labels: np.ndarray
    validation_labels: np.ndarray

    def probe(self, kind: str, index: int, point: str, places: Any = slice(None)) -> tuple[Probe, float]:
        """Returns the probe on one point, from the training examples at `places`, and its top-1 on validation."""
        probe = fit_probe(self.train[kind][index][point][places], self.labels[places], len(self.class_names))
        return probe, probe.accuracy(self.validation[kind][index][point], self.validation_labels)

    def probes(self, kind: str) -> list[Found]:
        """Returns the probes on all points, a network each."""
        return [
            {point: self.probe(kind, index, point) for point in self.points} for index in range(len(self.train[kind]))
        ]

    def from_few(self, kind: str, point: str, count: int, draws: tuple[int, ...]) -> list[float]:
        """Returns top-1 of probes from `count` images a class, a draw each, from the networks in turn."""
        places = [drawn_places(self.labels, self.class_names, count, draw) for draw in draws]
        return [self.probe(kind, index % len(self.train[kind]), point, own)[1] for index, own in enumerate(places)]


def best_point(found: list[Found]) -> str:
    """Returns the point with the best mean accuracy on the held-out part of the training split."""
    return max(found[0], key=lambda point: float(np.mean([one[point][0].held_out for one in found])))


@dataclass(frozen=True)
class Weighed:
    """A network of one preprocessing, and its variables by kind of weights."""

    network: Network
    variables: dict[str, list[dict[str, Any]]]

    def probed(self, data: DataConfig, name: str, kinds: tuple[str, ...] = (PRETRAINED, RANDOM)) -> Probed:
        """Returns a task, read from all points."""
        with quietly():
            splits, variants = open_splits(data), [one for kind in kinds for one in self.variables[kind]]
            read = [read_features(self.network, variants, one, data) for one in (splits.train, splits.validation)]
        counts = np.cumsum([0, *(len(self.variables[kind]) for kind in kinds)])
        train, validation = ({kind: own[counts[i] : counts[i + 1]] for i, kind in enumerate(kinds)} for own, _ in read)
        points = points_of(self.network.model)
        return Probed(name, data, points, splits.train.class_names, train, validation, read[0][1], read[1][1])


def weighed(places: list[str], model: ModelConfig, data: DataConfig, seeds: tuple[int, ...]) -> Weighed:
    """Returns the network of pretrained weights for a task's images, and beside these random ones, a seed each.

    Args:
      places: runs, files or hub names, trained on images of one preprocessing.
      model: their network.
      data: the task.
      seeds: of random weights.

    Raises:
      InputError: weights that do not fit the network, or leave a part of it random that features go through.
    """
    with quietly():
        splits = open_splits(data)
        shape, share = images_for(places[0], splits, data)
        names, config = splits.train.class_names, TrainConfig(model=model, data=data)
        order: Any = "grey" if shape[2] == 1 else "RGB"
        unmeasured = Preprocessing(shape, (0.0,) * shape[2], (1.0,) * shape[2], order, share)
        shapes = build_network(config, unmeasured, names).shapes
        started = [fit_start(replace(config, init_from=place), shapes, names) for place in places]
    for place, (_, fitted) in zip(places, started, strict=True):
        unfilled = [path for path in fitted.anew if not path.startswith("params/head/")]
        if unfilled:
            raise InputError(
                f"{place} has no weights for {unfilled[0]}, so what is pooled behind it would be random: "
                "model.neck=pooled"
            )
    network = build_network(config, preprocessing_for(started[0][0].hints, shape, share), names)
    drawn = [initial_variables(replace(config, seed=seed), network) for seed in seeds]
    return Weighed(network, {PRETRAINED: [filled(drawn[0], fitted) for _, fitted in started], RANDOM: drawn})


def images_for(place: str, splits: Splits, data: DataConfig) -> tuple[tuple[int, int, int], float]:
    """Returns (shape, crop share) of the images: those of a run, where the data's config does not say otherwise."""
    if not is_run(place):
        return loader.input_shape(splits.train, data.image_size, data.channels), data.crop_share
    own = RunFolder(place).preprocessing
    height, width = (data.image_size, data.image_size) if data.image_size else own.image_shape[:2]
    return (height, width, data.channels or own.image_shape[2]), own.crop_share
