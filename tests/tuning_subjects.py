"""Subjects for the tests of tuning: a healthy one on digits of 14x14, and simple networks with a fault."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jaxcnn.augment.pipeline import make_augment
from jaxcnn.config import AffineConfig, AugmentConfig, DataConfig, ModelConfig, OptimConfig, PadCropConfig
from jaxcnn.data.loader import read_arrays
from jaxcnn.data.sources import open_splits
from jaxcnn.data.statistics import channel_statistics
from jaxcnn.models.registry import build_model
from jaxcnn.training.optim import make_optimizer
from jaxcnn.tuning.subject import Examples, Subject

SHAPE = (14, 14, 1)
MILD = AugmentConfig(PadCropConfig(1.0, 1), AffineConfig(0.5, rotation_deg=10.0))


@functools.cache
def digits(split: str, count: int) -> Examples:
    """The first so many digits of a split, at half their size."""
    config = DataConfig(**{f"{split}_split": f"{split}[:{count}]"})
    arrays = read_arrays(open_splits(config).named()[split], SHAPE)
    return Examples(arrays.images, arrays.labels)


@functools.cache
def healthy(width: int = 8, num_train: int = 512) -> Subject:
    """A ResNet-8 that learns digits in seconds."""
    train, validation = digits("train", num_train), digits("validation", 200)
    mean, std = channel_statistics(train.images)
    model = build_model(ModelConfig(name="resnet8", width=width), SHAPE, 10)
    return Subject(
        model=model,
        variables=drawn(model),
        train=train,
        validation=validation,
        class_names=tuple("0123456789"),
        mean=mean,
        std=std,
        optimizer=lambda schedule: make_optimizer(OptimConfig(), schedule),
        peak_lr=0.1,
        batch_size=64,
        augment=make_augment(MILD, mean, std),
    )


def drawn(model: nn.Module, seed: int = 0) -> dict[str, Any]:
    """{"params", "batch_stats"} of a network, drawn from a seed."""
    variables = jax.jit(model.init)(jax.random.key(seed), jnp.zeros((1, *SHAPE)))
    return {"params": variables["params"], "batch_stats": variables.get("batch_stats", {})}


def subject_with(model: nn.Module, **fields: Any) -> Subject:
    """The healthy subject with another network, and other fields."""
    return dataclasses.replace(healthy(), model=model, variables=drawn(model), **fields)


def augmented_by(config: AugmentConfig) -> Subject:
    """The healthy subject with another augmentation."""
    subject = healthy()
    return dataclasses.replace(subject, augment=make_augment(config, subject.mean, subject.std))


def plain_sgd(schedule: optax.Schedule) -> optax.GradientTransformation:
    """SGD with momentum, and nothing else."""
    return optax.sgd(schedule, momentum=0.9)


class Chain(nn.Module):
    """Convolutions one after the other, the mean over the map, a head: nothing of this package.

    Attributes:
      depth: convolutions.
      width: channels of each.
      activation: after each.
      kernel_init: of the kernels of convolutions.
      norm: batch norm after each convolution.
      dropout: before the head.
      mix: what is done to the features [N, F] before the head.
      after: what is done to the logits.
    """

    depth: int = 3
    width: int = 8
    activation: Callable[[jax.Array], jax.Array] = nn.relu
    kernel_init: Callable[..., jax.Array] = nn.initializers.he_normal()
    norm: bool = False
    dropout: float = 0.0
    mix: Callable[[jax.Array], jax.Array] = lambda x: x
    after: Callable[[jax.Array], jax.Array] = lambda x: x
    num_classes: int = 10

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        for layer in range(self.depth):
            stride = 2 if layer == 1 else 1
            x = nn.Conv(
                self.width, (3, 3), (stride, stride), kernel_init=self.kernel_init, name=f"conv{layer + 1:02d}"
            )(x)
            if self.norm:
                x = nn.BatchNorm(use_running_average=not train, momentum=0.9, name=f"norm{layer + 1:02d}")(x)
            x = self.activation(x)
        x = self.mix(jnp.mean(x, axis=(1, 2)))  # [N, F]
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return self.after(nn.Dense(self.num_classes, name="head")(x))
