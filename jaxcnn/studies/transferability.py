"""What each stage of a pretrained network is good for: a linear probe on each, on its own task and on another.

Early stages serve any task, late ones the task they were trained for (Yosinski et al. 2014). Probes on the same network
with random weights tell how much of it is the architecture's.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from jaxcnn.config import DataConfig, ModelConfig, Preprocessing, TrainConfig
from jaxcnn.data import loader
from jaxcnn.data.selection import drawn_places
from jaxcnn.data.source import Splits
from jaxcnn.data.sources import open_splits
from jaxcnn.data.split_expressions import data_set_name
from jaxcnn.errors import InputError
from jaxcnn.network import Network, build_network
from jaxcnn.run_folder import RunFolder, is_run
from jaxcnn.start import fit_start, initial_variables
from jaxcnn.studies.linear_probe import Probe, fit_probe
from jaxcnn.studies.stage_features import Features, points_of, read_features
from jaxcnn.weights.files import HUB_PREFIX
from jaxcnn.weights.importer import filled, preprocessing_for

LOG = logging.getLogger("jaxcnn")

COUNTS = (5, 10, 20, 50)
"""Training images a class of the curve."""


@dataclass(frozen=True)
class Setting:
    """What is studied.

    Attributes:
      init_from: the pretrained weights: run, file or hub name.
      model: their network.
      target: another task than theirs.
      source: the task that they were trained for; none: it is not probed.
      seeds: networks with random weights; also draws of few images a class.
    """

    init_from: str
    model: ModelConfig
    target: DataConfig
    source: DataConfig | None
    seeds: int = 3


@dataclass(frozen=True)
class Row:
    """Top-1, 0..1, on validation of the probes on one point; `random` has one value a seed."""

    point: str
    num_features: int
    source: float | None
    target: float
    random: tuple[float, ...]


@dataclass(frozen=True)
class Few:
    """Top-1 on validation from so many images a class, one value a draw; of all there are, `count` is none."""

    count: int | None
    pretrained: tuple[float, ...]
    random: tuple[float, ...]


@dataclass(frozen=True)
class Findings:
    """What the study found.

    Attributes:
      weights, source, target: what they are called; no source, none.
      rows: by point, from the input to the head.
      few: by number of images a class, at `best_point` of the pretrained and `best_random_point` of the random network,
        which a held-out part of the training split chose.
      num_train, num_validation: images of the target.
    """

    weights: str
    source: str | None
    target: str
    rows: tuple[Row, ...]
    few: tuple[Few, ...]
    best_point: str
    best_random_point: str
    num_train: int
    num_validation: int


@dataclass(frozen=True)
class _Task:
    """Features of the training and the validation split, by each set of weights, and labels."""

    train: list[Features]
    validation: list[Features]
    labels: np.ndarray
    validation_labels: np.ndarray
    class_names: tuple[str, ...]

    def probes(self, variant: int) -> dict[str, tuple[Probe, float]]:
        """The probe and its top-1 on validation at each point."""
        return {point: self.probe(variant, point) for point in self.train[variant]}

    def probe(self, variant: int, point: str, places: Any = slice(None)) -> tuple[Probe, float]:
        """The probe at one point, from the training examples at `places`, and its top-1 on validation."""
        features, labels = self.train[variant][point][places], self.labels[places]
        probe = fit_probe(features, labels, len(self.class_names))
        return probe, probe.accuracy(self.validation[variant][point], self.validation_labels)


def study(setting: Setting) -> Findings:
    """Returns the probes of each point of a network.

    Raises:
      InputError: data or weights that do not fit, before anything compiles.
    """
    splits = open_splits(setting.target)
    theirs = None if setting.source is None else open_splits(setting.source)
    network, variants = _network(setting, splits)
    target = _task(network, variants, splits, setting.target)
    own = [target.probes(variant) for variant in range(len(variants))]
    of_source: dict[str, Any] = {}
    if theirs is not None and setting.source is not None:
        of_source = _task(network, variants[:1], theirs, setting.source).probes(0)
    rows = tuple(
        Row(
            point,
            target.train[0][point].shape[1],
            of_source[point][1] if of_source else None,
            own[0][point][1],
            tuple(probes[point][1] for probes in own[1:]),
        )
        for point in points_of(network.model)
    )
    best, best_random = _best([own[0]]), _best(own[1:])
    return Findings(
        weights=f"{setting.model.name}, {_short(setting.init_from)}",
        source=None if setting.source is None else _task_name(setting.source),
        target=_task_name(setting.target),
        rows=rows,
        few=_few(target, best, best_random, own, setting.seeds),
        best_point=best,
        best_random_point=best_random,
        num_train=len(target.labels),
        num_validation=len(target.validation_labels),
    )


def _short(place: str) -> str:
    """The name of weights in titles: without the folders that they lie in."""
    return place if place.startswith(HUB_PREFIX) else Path(place).name


def _task_name(config: DataConfig) -> str:
    """The name of a task in titles: its data set and, if they are chosen, its classes."""
    name = config.name if config.source == "tfds" else Path(data_set_name(config)).name
    return name if config.classes is None else f"{name} ({', '.join(config.classes)})"


def _network(setting: Setting, splits: Splits) -> tuple[Network, list[dict[str, Any]]]:
    """The network for the target's images, and its variables: the pretrained ones, then random ones."""
    if setting.seeds < 1:
        raise InputError(f"seeds={setting.seeds}: at least 1 network with random weights")
    config = TrainConfig(model=setting.model, data=setting.target, init_from=setting.init_from)
    shape, share = _images(setting, splits)
    names = splits.train.class_names
    unmeasured = Preprocessing(shape, (0.0,) * shape[2], (1.0,) * shape[2], "grey" if shape[2] == 1 else "RGB", share)
    weights, fitted = fit_start(config, build_network(config, unmeasured, names).shapes, names)
    unfilled = [path for path in fitted.anew if not path.startswith("params/head/")]
    if unfilled:
        raise InputError(
            f"{setting.init_from} has no weights for {unfilled[0]}, so what is pooled behind it would be random: "
            "model.neck=pooled"
        )
    network = build_network(config, preprocessing_for(weights.hints, shape, share), names)
    drawn = [initial_variables(replace(config, init_from=None, seed=seed), network) for seed in range(setting.seeds)]
    return network, [filled(drawn[0], fitted), *drawn]


def _images(setting: Setting, splits: Splits) -> tuple[tuple[int, int, int], float]:
    """(shape, crop share) of the images: those of a run, where the target's config does not say otherwise."""
    data = setting.target
    if not is_run(setting.init_from):
        return loader.input_shape(splits.train, data.image_size, data.channels), data.crop_share
    own = RunFolder(setting.init_from).preprocessing
    height, width = (data.image_size, data.image_size) if data.image_size else own.image_shape[:2]
    return (height, width, data.channels or own.image_shape[2]), own.crop_share


def _task(network: Network, variants: list[dict[str, Any]], splits: Splits, config: DataConfig) -> _Task:
    train, labels = read_features(network, variants, splits.train, config)
    validation, validation_labels = read_features(network, variants, splits.validation, config)
    return _Task(train, validation, labels, validation_labels, splits.train.class_names)


def _best(probes: Sequence[dict[str, tuple[Probe, float]]]) -> str:
    """The point with the best mean accuracy on the held-out part of the training split."""
    return max(probes[0], key=lambda point: float(np.mean([one[point][0].held_out for one in probes])))


def _few(
    target: _Task, best: str, best_random: str, own: list[dict[str, tuple[Probe, float]]], draws: int
) -> tuple[Few, ...]:
    """The curve over the number of images a class; in each draw, the random network is that of its own seed."""
    most = int(np.bincount(target.labels).max())
    curve = []
    for count in [count for count in COUNTS if count < most]:
        places = [drawn_places(target.labels, target.class_names, count, draw) for draw in range(draws)]
        pretrained = tuple(target.probe(0, best, own)[1] for own in places)
        random = tuple(target.probe(1 + draw, best_random, own)[1] for draw, own in enumerate(places))
        curve.append(Few(count, pretrained, random))
    whole = Few(None, (own[0][best][1],), tuple(probes[best_random][1] for probes in own[1:]))
    return (*curve, whole)
