"""What the study `receptive-field` measures: stacks of convolutions, maps at initialisation, maps after training."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn.config import ModelConfig
from jaxcnn.inspection.effective_field import at_initialisation, centre_of, ends_of, influence, pixels_with, spread_of
from jaxcnn.inspection.layers import flops_of
from jaxcnn.inspection.modules import calls_of
from jaxcnn.inspection.receptive_field import Extent, fields_of
from jaxcnn.job import Job
from jaxcnn.models import Conv, build_model
from jaxcnn.models.layers import relu
from jaxcnn.studies.trials import Trial
from jaxcnn.training.state import TrainState

_IMAGES = 128  # on which a trained network is measured


def on_cpu() -> AbstractContextManager[Any]:
    """Returns a context in which JAX computes on the CPU, if there is one beside the accelerator.

    A pixel out of reach has a gradient of exactly 0 in a direct convolution only: in the transforms that an accelerator
    may choose (Winograd, FFT) rounding puts something there.
    """
    try:
        return jax.default_device(jax.devices("cpu")[0])
    except RuntimeError:
        return nullcontext()


@dataclass(frozen=True)
class Stack:
    """Convolutions in a row, each followed by ReLU.

    Attributes:
      sides: of their kernels.
      channels: of all maps.
      parameters: weights, without biases.
      flops: forward, of an image of `Stack.of`'s side, by XLA's count.
      theory: what an output sees, from the traced program.
      measured: how many pixels along an axis a gradient reaches.
    """

    sides: tuple[int, ...]
    channels: int
    parameters: int
    flops: float | None
    theory: Extent
    measured: int

    @classmethod
    def of(cls, sides: tuple[int, ...], channels: int, side_px: int = 32) -> "Stack":
        """Returns the figures of live modules."""
        pairs: list[list[Any]] = [[Conv(channels, side, plain=True), relu] for side in sides]
        module = nn.Sequential([layer for pair in pairs for layer in pair])
        image = jax.ShapeDtypeStruct((1, side_px, side_px, channels), jnp.float32)
        shapes = jax.eval_shape(module.init, jax.random.key(0), image)
        field = fields_of(lambda image, variables: module.apply(variables, image), image, shapes)

        def centre(images: jax.Array) -> jax.Array:
            output: Any = module.apply(module.init(jax.random.key(1), images), images)
            return jnp.sum(output[:, side_px // 2, side_px // 2])

        with on_cpu():
            gradient = jax.jit(jax.grad(centre))(jax.random.normal(jax.random.key(2), (8, *image.shape[1:])))
            (first, last), _ = ends_of(np.asarray(jnp.sum(gradient**2, axis=(0, 3))))
        weights = sum(leaf.size for leaf in jax.tree.leaves(shapes))
        return cls(sides, channels, weights, flops_of(module.apply, shapes, image), field.rows, last - first + 1)


@dataclass(frozen=True)
class Seen:
    """A map of a network with random weights, seen from its centre.

    Attributes:
      part: its name.
      theory: its field along an axis, from the traced program.
      expected: first and last pixel of it, of the unit at the centre.
      measured: first and last pixel with a gradient: rows, columns.
      heats: mean squared gradients [seeds, H, W].
    """

    part: str
    theory: Extent
    expected: tuple[int, int]
    measured: tuple[tuple[int, int], tuple[int, int]]
    heats: np.ndarray

    @property
    def is_exact(self) -> bool:
        """Whether a gradient reaches the first and the last pixel of the field, and none beyond."""
        return self.measured == (self.expected, self.expected)

    @property
    def shares(self) -> list[float]:
        """Of each seed the share of the field's pixels that hold 95.45 % of the squared gradient."""
        return [pixels_with(heat) / self.theory.size**2 for heat in self.heats]

    @property
    def sigmas(self) -> list[float]:
        """Of each seed the standard deviation of the squared gradient in pixels."""
        return [spread_of(heat) for heat in self.heats]


def seen_at_initialisation(
    config: ModelConfig,
    parts: Sequence[str] | None,
    seeds: Sequence[int],
    draws: int,
    images: int,
    *,
    exactly: bool = False,
) -> list[Seen]:
    """Returns what maps of a network see, on images that hold all of their fields.

    Args:
      config: the network, as for images of 224 pixels; a narrow one sees what a wide one does.
      parts: names of its maps; none: all.
      seeds, draws, images: see `at_initialisation`.
      exactly: so that the ends of what is measured can be trusted on any device, see `on_cpu`.
    """
    model = build_model(config, (224, 224, 3), 10)
    parts = tuple(parts or model.backbone.part_names)
    fields: Any = {call.path: call.field for call in calls_of(model, (224, 224, 3))}
    theory: dict[str, Extent] = {part: fields[f"backbone/{part}"].rows for part in parts}
    stride = model.backbone.total_stride
    side = -(-(max(extent.size for extent in theory.values()) + 2 * stride) // stride) * stride
    with on_cpu() if exactly else nullcontext():
        heats = at_initialisation(model, (side, side, 3), parts, seeds, draws, images)
    found = []
    for part, extent in theory.items():
        expected = extent.seen_by(centre_of(-(-side // extent.stride)))
        found.append(Seen(part, extent, expected, ends_of(heats[part].sum(axis=0)), heats[part]))
    return found


@dataclass(frozen=True)
class Trained:
    """What counts for the centres of the maps of a network, before and after training.

    Attributes:
      top1: on validation, 0..1.
      pixels: by map, how many hold 95.45 % of the squared gradient: (before, after).
      before, after: mean squared gradients [H, W] of the last map.
    """

    top1: float
    pixels: dict[str, tuple[int, int]]
    before: np.ndarray
    after: np.ndarray

    @property
    def size(self) -> int:
        """Pixels of the image."""
        return self.after.size


def trained_fields(trials: Sequence[Trial]) -> list[Trained]:
    """Returns what `measure_field` measured in trials."""
    return [
        Trained(
            trial.top1,
            {part: (pair[0], pair[1]) for part, pair in trial.measured["pixels"].items()},
            np.array(trial.measured["before"]),
            np.array(trial.measured["after"]),
        )
        for trial in trials
    ]


def measure_field(job: Job, state: TrainState) -> dict[str, Any]:
    """Returns the influence of pixels on the centres of maps before and after training: {"pixels", "before", "after"}.

    It is that of validation images, in evaluation mode. Before training batch norms use the statistics of these images:
    their running ones are still 0 and 1.
    """
    model, parts = job.network.model, job.network.model.backbone.part_names
    images = jnp.asarray(next(iter(job.splits["validation"].batches(_IMAGES)))[0].images)

    @jax.jit
    def batch_statistics(variables: Any, images: jax.Array) -> Any:
        _, new = model.apply(variables, job.network.normalise(images), train=True, mutable=["batch_stats"])
        # A running value is 0.9 of the old one and 0.1 of the batch's (`BatchNorm.momentum`).
        old = variables["batch_stats"]
        return jax.tree.map(lambda new, old: (new - 0.9 * old) / 0.1, dict(new["batch_stats"]), old)

    @jax.jit
    def heats(variables: Any, images: jax.Array) -> dict[str, jax.Array]:
        return influence(model, variables, job.network.normalise(images), parts, jax.random.key(0))

    fresh = job.initial_state().variables
    before = jax.device_get(heats({**fresh, "batch_stats": batch_statistics(fresh, images)}, images))
    after = jax.device_get(heats(state.variables, images))
    return {
        "pixels": {part: [pixels_with(before[part]), pixels_with(after[part])] for part in parts},
        "before": before[parts[-1]].astype(float).tolist(),
        "after": after[parts[-1]].astype(float).tolist(),
    }
