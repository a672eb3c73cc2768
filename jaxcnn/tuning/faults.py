"""Faults that networks are trained with every day, to be planted into a healthy subject: do the checks find them?

`jaxcnn preflight --plant NAME` shows what a fault looks like; `docs/tuning.md` has the table.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn.augment.pipeline import make_augment
from jaxcnn.config import AugmentConfig, ModelConfig, ResizedCropConfig
from jaxcnn.errors import InputError, did_you_mean
from jaxcnn.models.registry import build_model
from jaxcnn.paths import GlobRule
from jaxcnn.tuning.subject import Examples, Subject


@dataclass(frozen=True)
class Fault:
    """A mistake, and which checks must find it.

    Attributes:
      says: what is wrong.
      plant: healthy subject -> the same with the fault.
      found_by: names of the checks (functions of `preflight.CHECKS`) that fail for it; others may besides.
    """

    says: str
    plant: Callable[[Subject], Subject]
    found_by: tuple[str, ...]


def planted(subject: Subject, name: str) -> Subject:
    """Returns the subject with a fault of `FAULTS`; raises InputError for an unknown one."""
    check_name(name)
    return FAULTS[name].plant(subject)


def check_name(name: str) -> None:
    """Raises InputError for the name of no fault, with the nearest."""
    if name not in FAULTS:
        raise InputError(f"--plant {name!r}: no such fault; {did_you_mean(name, FAULTS)}")


def _shuffled_labels(subject: Subject) -> Subject:
    def shuffled(examples: Examples, seed: int) -> Examples:
        return Examples(examples.images, np.random.default_rng(seed).permutation(examples.labels))

    return dataclasses.replace(subject, train=shuffled(subject.train, 0), validation=shuffled(subject.validation, 1))


def _normalised_by(*choices: tuple[float, float]) -> Callable[[Subject], Subject]:
    """The subject with another (mean, std) for all channels, the one farthest off, in evaluation and augmentation."""

    def plant(subject: Subject) -> Subject:
        mean, std = max(choices, key=lambda each: abs(each[0] - float(np.mean(subject.mean))) / each[1])
        own_mean, own_std = jnp.asarray(subject.mean), jnp.asarray(subject.std)

        def augment(key: jax.Array, images: jax.Array) -> Any:
            images, mix = subject.augment(key, images)
            return (images * own_std + own_mean - mean) / std, mix

        channels = len(subject.mean)
        return dataclasses.replace(subject, mean=(mean,) * channels, std=(std,) * channels, augment=augment)

    return plant


def _network(subject: Subject, config: ModelConfig, num_classes: int | None = None) -> Subject:
    """The subject with another network of the registry, drawn anew: nothing of it is pretrained, frozen or narrow."""
    shape = subject.train.images.shape[1:]
    model = build_model(config, shape, len(subject.class_names) if num_classes is None else num_classes)
    return _drawn_anew(
        dataclasses.replace(subject, model=model, reference_model=None, frozen=GlobRule(), activation=config.activation)
    )


def _drawn_anew(subject: Subject) -> Subject:
    """The subject with random variables, of which none is pretrained."""
    images = jnp.zeros((1, *subject.train.images.shape[1:]))
    drawn = jax.jit(subject.model.init)(jax.random.key(subject.seed), images)
    variables = {"params": drawn["params"], "batch_stats": drawn.get("batch_stats", {})}
    return dataclasses.replace(subject, variables=variables, pretrained=False)


def _built(**fields: Any) -> Callable[[Subject], Subject]:
    return lambda subject: _network(subject, ModelConfig(**fields))


def _same(x: jax.Array) -> jax.Array:
    return x


def changed(model: nn.Module, before: Callable = _same, after: Callable = _same) -> nn.Module:
    """Returns a network with something done to its images and its logits, as a subclass of its own class.

    Around it, as a submodule, its variables and layers would have other paths than the frozen parts and the factors of
    learning rates are given by.
    """
    own = type(model)

    def call(self: Any, x: jax.Array, *args: Any, **kwargs: Any) -> Any:
        images = getattr(self, "start", None) is None  # else a `Classifier` goes on from maps
        output = own.__call__(self, before(x) if images else x, *args, **kwargs)
        return output if isinstance(output, dict) else after(output)  # maps by name

    subclass = type(own.__name__, (own,), {"__call__": call, "__module__": __name__})
    fields = (field.name for field in dataclasses.fields(model) if field.init and field.name not in ("parent", "name"))
    return subclass(**{name: getattr(model, name) for name in fields})


def _changed(**changes: Any) -> Callable[[Subject], Subject]:
    def plant(subject: Subject) -> Subject:
        exact = subject.reference_model
        return dataclasses.replace(
            subject,
            model=changed(subject.model, **changes),
            reference_model=None if exact is None else changed(exact, **changes),
        )

    return plant


def _loss(change: Callable[[Any, jax.Array, Any], jax.Array]) -> Callable[[Subject], Subject]:
    def plant(subject: Subject) -> Subject:
        own = subject.loss
        return dataclasses.replace(subject, loss=lambda logits, targets: change(own, logits, targets))

    return plant


def _overlap(subject: Subject) -> Subject:
    """Half of the validation images come from the training split."""
    validation, half = subject.validation, len(subject.validation) // 2
    images, labels = validation.images.copy(), validation.labels.copy()
    images[:half], labels[:half] = subject.train.images[:half], subject.train.labels[:half]
    return dataclasses.replace(subject, validation=Examples(images, labels))


def _cropped_away(subject: Subject) -> Subject:
    config = AugmentConfig(resized_crop=ResizedCropConfig(1.0, (0.001, 0.003)))
    return dataclasses.replace(subject, augment=make_augment(config, subject.mean, subject.std))


def _rate(factor: float) -> Callable[[Subject], Subject]:
    return lambda subject: dataclasses.replace(subject, peak_lr=factor * subject.peak_lr)


FAULTS: Mapping[str, Fault] = {
    "shuffled-labels": Fault("labels shuffled against images", _shuffled_labels, ("real_labels_beat_shuffled_ones",)),
    "no-normalisation": Fault(
        "normalisation left out: pixels 0 to 255", _normalised_by((0.0, 1 / 255)), ("channel_statistics",)
    ),
    "wrong-statistics": Fault(
        "mean and std of another data set: CIFAR's for digits, those of digits for photos",
        _normalised_by((0.48, 0.25), (0.13, 0.31)),
        ("channel_statistics",),
    ),
    "too-few-outputs": Fault(
        "final layer with one output too few",
        lambda subject: _network(subject, ModelConfig(), len(subject.class_names) - 1),
        ("labels_in_range",),
    ),
    "rate-100-times": Fault("learning rate 100 times too high", _rate(100), ("learning_rate_in_range",)),
    "rate-1000th": Fault("learning rate 1000 times too low", _rate(1e-3), ("learning_rate_in_range",)),
    "sigmoid-20": Fault(
        "20 layers with sigmoid: vanishing gradient",
        _built(name="resnet20", block="plain", norm="none", activation="sigmoid"),
        ("signal_and_gradient",),
    ),
    "init-std-1": Fault(
        "initialiser std 1.0: exploding signal",
        _built(block="plain", norm="none", init="normal", init_std=1.0),
        ("initial_loss", "signal_and_gradient"),
    ),
    "init-std-1e-4": Fault(
        "initialiser std 1e-4: vanishing signal",
        _built(block="plain", norm="none", init="normal", init_std=1e-4),
        ("signal_and_gradient",),
    ),
    "frozen": Fault(
        "backbone frozen by mistake, without weights",
        lambda subject: _drawn_anew(dataclasses.replace(subject, frozen=GlobRule(("backbone/**",)))),
        ("something_trains",),
    ),
    "dropout-0.99": Fault("dropout 0.99 before the head", _built(dropout=0.99), ("dropout_leaves_signal",)),
    "averaged-twice": Fault(
        "loss averaged over the batch twice",
        _loss(lambda own, logits, targets: own(logits, targets) / len(logits)),
        ("initial_loss", "network_outputs"),
    ),
    "cropped-away": Fault("augmentation that crops everything away", _cropped_away, ("augmentation_keeps_content",)),
    "softmax-twice": Fault(
        "softmax applied before the loss",
        _loss(lambda own, logits, targets: own(jax.nn.softmax(logits), targets)),
        ("network_outputs",),
    ),
    "batch-mixed": Fault(
        "batch dimension mixed into features: images less their mean over the batch",
        _changed(before=lambda x: x - jnp.mean(x, axis=0)),
        ("examples_are_independent",),
    ),
    "overlap": Fault("half of the validation images are training images", _overlap, ("split_overlap",)),
    "relu-at-the-end": Fault("ReLU after the last layer", _changed(after=nn.relu), ("network_outputs",)),
}
