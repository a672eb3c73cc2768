"""What is checked before a run: built parts, so that a fault can be planted and anybody can check their own."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxcnn.augment.normalise import normalise
from jaxcnn.augment.pipeline import Augment
from jaxcnn.paths import GlobRule
from jaxcnn.training.losses import Targets, target_losses


@dataclass(frozen=True)
class Examples:
    """Examples in memory: images uint8 [N, H, W, C], labels int [N]."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, places: Any) -> "Examples":
        return Examples(self.images[places], self.labels[places])


@dataclass(frozen=True)
class Subject:
    """A training run as its parts. `building.subject_of` makes it of a config; who has parts of their own writes

        variables = model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
        subject = Subject(
            model=model,  # any flax module whose __call__ takes (x, *, train)
            variables={"params": variables["params"], "batch_stats": variables.get("batch_stats", {})},
            train=Examples(train_images, train_labels),  # uint8 [N, H, W, C], int [N]
            validation=Examples(validation_images, validation_labels),
            class_names=("cat", "dog"),
            mean=(0.49, 0.48, 0.45), std=(0.25, 0.24, 0.26),
            optimizer=lambda schedule: optax.sgd(schedule, momentum=0.9),
            peak_lr=0.1, batch_size=128,
            augment=lambda key, images: (normalise(images, mean, std), None),
            loss=lambda logits, targets: my_loss(logits, targets.labels),
        )
        finding = initial_loss(subject)

    Attributes:
      model: takes (float images [N, H, W, C], train=bool) to logits [N, K]; randomness by the rng "dropout".
      variables: {"params", "batch_stats"} that it starts with.
      train, validation: examples of both splits; of large ones a sample.
      class_names: K names.
      mean, std: a channel, in units of 0..1: what images are normalised with.
      optimizer: (schedule) -> of the leaves that train; `schedule` is step -> learning rate.
      peak_lr: the learning rate that is planned after warm-up.
      batch_size: examples a step.
      augment: (key, uint8 images) -> (normalised float images, how they are mixed).
      loss: (logits [N, K], targets) -> [N]; a step trains on the mean.
      frozen: paths of the parameters that do not train.
      activation: name of the activation in the network.
      pretrained: whether the variables are trained ones, and mean and std those that they came with.
      label_smoothing: of the loss, which says what the first loss should be.
      seed: of all that is drawn.
      reference_model: the same network, with the same variables, computing in float32. `building.subject_of` sets it;
        of a network of your own in bfloat16 give it, else nothing is compared. None: `model` computes in float32.
      num_train: examples of the whole training split, of which `train` is a sample; none: `train` is all of it.
      rate_factor: what the run multiplies optim.peak_lr by (optim.lr_scaling); `peak_lr` is the outcome.
      rates: lowest and highest learning rate of a sweep.
    """

    model: nn.Module
    variables: dict[str, Any]
    train: Examples
    validation: Examples
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    optimizer: Callable[[optax.Schedule], optax.GradientTransformation]
    peak_lr: float
    batch_size: int
    augment: Augment
    loss: Callable[[jax.Array, Targets], jax.Array] = target_losses
    frozen: GlobRule = GlobRule()
    activation: str = "relu"
    pretrained: bool = False
    label_smoothing: float = 0.0
    seed: int = 0
    reference_model: nn.Module | None = None
    num_train: int | None = None
    rate_factor: float = 1.0
    rates: tuple[float, float] = (1e-5, 10.0)

    def normalise(self, images: Any) -> jax.Array:
        """Returns uint8 images as the network's input, float32."""
        return normalise(jnp.asarray(images), self.mean, self.std)
