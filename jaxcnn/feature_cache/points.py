"""Where the network is cut: at the latest point before which nothing trains and nothing is random."""

import dataclasses
from collections.abc import Iterable

import flax.errors
import jax
import jax.numpy as jnp

from jaxcnn.config import AugmentConfig, TrainConfig
from jaxcnn.errors import InputError, did_you_mean
from jaxcnn.models.classifier import POOLED, Classifier
from jaxcnn.network import Network


def frozen_point(model: Classifier, trainable: Iterable[str]) -> str | None:
    """Returns the latest of `model.points` before which no leaf trains; none if the first part has one that does.

    Args:
      model: the network.
      trainable: paths of the leaves that train at any time of the run.
    """
    trainable = list(trainable)
    frozen = None
    for point in model.points:
        if leaves_before(model, point, trainable):
            break
        frozen = point
    return frozen


def parts_before(model: Classifier, point: str) -> tuple[str, ...]:
    """Returns the paths of the parts that are computed up to a point: `backbone/stem`, ..., perhaps `neck`."""
    return model.part_paths[:-1] if point == POOLED else model.part_paths[: model.points.index(point) + 1]


def leaves_before(model: Classifier, point: str, paths: Iterable[str]) -> list[str]:
    """Returns those of the paths of leaves that belong to the parts before a point."""
    parts = tuple(f"{part}/" for part in parts_before(model, point))
    return [path for path in paths if path.startswith(parts)]


def random_operations(config: AugmentConfig) -> list[str]:
    """Returns the names of the operations that change training images at random, without those that mix images."""
    names = [field.name for field in dataclasses.fields(config) if field.name not in ("mixup", "cutmix")]
    no_shift = {"pad_crop"} if config.pad_crop.pad_px == 0 else set()
    return [name for name in names if getattr(config, name).prob and name not in no_shift]


def point_of(config: TrainConfig, network: Network, trainable: Iterable[str]) -> str | None:
    """Returns the point at which a config wants features kept; none if it wants none. Nothing compiles.

    Args:
      config: what to train; it must be such that training on kept features is the training without.
      network: that of the config.
      trainable: paths of the leaves that train at any time of the run, whatever its phases.

    Raises:
      InputError: it is not such, with the reason and the remedy.
    """
    cache, views = config.features.cache, config.features.views
    if cache == "off":
        if views > 1:
            raise InputError(f"features.views={views} are of features that are kept: set features.cache, such as auto")
        return None
    model, trainable = network.model, list(trainable)
    if cache != "auto" and cache not in model.points:
        near = did_you_mean(cache, ("off", "auto", *model.points))
        raise InputError(f"features.cache={cache!r}: {config.model.name} has no such point; {near}")
    _check_images(config)
    latest = frozen_point(model, trainable)
    if cache == "auto" and latest is None:
        first = model.part_paths[0]
        raise InputError(
            f"features.cache='auto': {leaves_before(model, model.points[0], trainable)[0]} trains, so not even "
            f"{first} is frozen; freeze what comes first, such as freeze=('backbone/**',), or set features.cache=off"
        )
    if cache != "auto" and (moving := leaves_before(model, cache, trainable)):
        more = f" (and {len(moving) - 1} more)" if len(moving) > 1 else ""
        remedy = f"{latest!r} is the latest point" if latest else "freeze what comes before, or set features.cache=off"
        raise InputError(f"features.cache={cache!r}: {moving[0]}{more} before it trains, which moves it; {remedy}")
    return _steady(config, network, latest if cache == "auto" and latest else cache)


def _check_images(config: TrainConfig) -> None:
    """Raises InputError where training or evaluation wants images that kept features cannot be of."""
    views, augment = config.features.views, config.augment
    for name in ("mixup", "cutmix"):
        if getattr(augment, name).prob:
            raise InputError(
                f"augment.{name}.prob={getattr(augment, name).prob}: it mixes images in each step anew, which features "
                f"that are kept cannot follow; set it to 0, or features.cache=off"
            )
    operations = random_operations(augment)
    if operations and views == 1:
        names = ", ".join(f"augment.{name}" for name in operations)
        raise InputError(
            f"features.views=1: {names} would change each image only once, for the whole run; set features.views to 2 "
            "or more, or their prob to 0"
        )
    if not operations and views > 1:
        raise InputError(
            f"features.views={views}: no random augmentation is on, so all views of an image would be equal; set "
            "features.views=1, or turn an operation of augment on"
        )
    for name, usual in (("flip", False), ("crops", 1)):
        if (value := getattr(config.evaluation, name)) != usual:
            raise InputError(
                f"evaluation.{name}={value}: features are kept of whole images only; leave it at {usual}, and measure "
                f"the finished run with jaxcnn evaluate RUN --evaluation.{name}"
            )


def _steady(config: TrainConfig, network: Network, point: str) -> str:
    """The point, or with "auto" the one before a random neck; raises InputError where training is random before it."""
    if not _is_random(network, point):
        return point
    last = network.model.backbone.part_names[-1]
    if point == POOLED and network.model.neck is not None and not _is_random(network, last):
        if config.features.cache == "auto":
            return last
        raise InputError(
            f"features.cache={point!r}: the neck before it drops units at random in each step; set model.dropout=0, or "
            f"features.cache={last}"
        )
    raise InputError(
        f"features.cache={config.features.cache!r}: what comes before {point!r} is random in each step, though frozen; "
        "set model.block_dropout=0 and model.stochastic_depth=0"
    )


def _is_random(network: Network, point: str) -> bool:
    """Whether the network up to a point draws random numbers in training: it cannot be traced without any."""
    cut = cut_at(network.model, point)
    image = jax.ShapeDtypeStruct((1, *network.preprocessing.image_shape), jnp.float32)
    try:
        jax.eval_shape(lambda variables, x: cut.apply(variables, x, train=True, mutable=[]), network.shapes, image)
    except flax.errors.InvalidRngError:
        return True
    return False


def cut_at(model: Classifier, point: str) -> Classifier:
    """Returns the network up to a point; see `models.classifier.output_at`."""
    return model.clone(num_classes=0, features=()) if point == POOLED else model.clone(features=(point,))
