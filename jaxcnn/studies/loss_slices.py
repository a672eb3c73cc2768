"""The loss around a trained network: a measure of trials, and how it is drawn."""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn.config import Preprocessing, TrainConfig
from jaxcnn.data.loader import Arrays
from jaxcnn.job import Job
from jaxcnn.network import build_network
from jaxcnn.runtime import compiler_options
from jaxcnn.studies.trials import Trial
from jaxcnn.training.loss_surface import curvatures, filter_normalised_direction, half_width, losses_at
from jaxcnn.training.losses import cross_entropy
from jaxcnn.training.state import TrainState

EXTENT = 1.0
"""How far from the weights slices go: there the noise is as large as the weights."""


def slices(job: Job, state: TrainState) -> dict[str, Any]:
    """Returns `measured_slices` of 512 images, 21 x 21 points and 6 lines: a measure of `Trials.run`."""
    return measured_slices(job, state, num_images=512, side=21, num_lines=6)


def coarse_slices(job: Job, state: TrainState) -> dict[str, Any]:
    """Returns `measured_slices` of 128 images, 9 x 9 points and 8 lines: a measure of `Trials.run`."""
    return measured_slices(job, state, num_images=128, side=9, num_lines=8)


def measured_slices(job: Job, state: TrainState, *, num_images: int, side: int, num_lines: int) -> dict[str, Any]:
    """Returns the training loss around the weights of a trained network.

    Batch norm uses the statistics of the images of which the loss is taken: those that the network keeps are of its own
    weights and fit no others, so with them a slice would show how far off they are.

    Args:
      job: says which images: always the same of the training images, without augmentation.
      state: after the last step.
      num_images: of which the loss is the mean.
      side: points of a slice along each of its two directions, and of a line; odd.
      num_lines: single directions.

    Returns:
      places: [side], in units of the weights.
      grid: [side, side], the loss along two directions; lines: [num_lines, side], along one each.
      loss: at the weights.
      half_width: the mean of the lines', see `half_width`.
      negative: share of the points of the slice at which it curves downwards in some direction.
    """
    places = np.linspace(-EXTENT, EXTENT, side)
    train = job.inputs.train
    if not isinstance(train, Arrays):
        raise ValueError("slices are of images in memory")
    chosen = np.random.default_rng(0).permutation(job.num_train)[:num_images]
    images, labels = np.asarray(train.images)[chosen], np.asarray(train.labels)[chosen]
    slab, line = np.zeros((side, side, num_lines)), np.zeros((num_lines, side, num_lines))
    slab[..., 0], slab[..., 1] = np.meshgrid(places, places, indexing="ij")
    for direction in range(num_lines):
        line[direction, :, direction] = places
    points = np.concatenate([slab.reshape(-1, num_lines), line.reshape(-1, num_lines)]).astype(np.float32)
    program = _program(dataclasses.replace(job.config, seed=0), job.network.preprocessing, job.network.class_names)
    keys = jax.random.split(jax.random.key(job.config.seed), num_lines)
    losses = np.asarray(program(state.current, keys, images, labels, points), np.float64)
    grid, lines = losses[: side**2].reshape(side, side), losses[side**2 :].reshape(num_lines, side)
    chance = math.log(len(job.network.class_names))
    return {
        "places": [round(place, 6) for place in places],
        "grid": [[_short(loss) for loss in row] for row in grid],
        "lines": [[_short(loss) for loss in row] for row in lines],
        "loss": _short(grid[side // 2, side // 2]),
        "half_width": float(np.mean([half_width(places, one, chance) for one in lines])),
        "negative": float(np.mean(curvatures(grid, places[1] - places[0])[..., 0] < 0)),
    }


def _short(loss: float) -> float:
    return float(f"{loss:.6g}")


@functools.lru_cache(maxsize=1)
def _program(config: TrainConfig, preprocessing: Preprocessing, class_names: tuple[str, ...]) -> Callable:
    """The jitted (variables, keys [D], uint8 images, labels, points [P, D]) -> losses, for all seeds."""
    network = build_network(config, preprocessing, class_names)

    def losses(variables: Any, keys: jax.Array, images: jax.Array, labels: jax.Array, points: jax.Array) -> jax.Array:
        x = network.normalise(images)

        def loss(params: Any) -> jax.Array:
            logits, _ = network.model.apply({**variables, "params": params}, x, train=True, mutable=["batch_stats"])
            return jnp.mean(cross_entropy(logits, labels))

        directions = jax.vmap(lambda key: filter_normalised_direction(key, variables["params"]))(keys)
        return losses_at(loss, variables["params"], directions, points)

    return jax.jit(losses, compiler_options=compiler_options())


def draw_slice(axes: Any, trial: Trial, title: str, levels: Sequence[float]) -> Any:
    """Draws the slice of a trial as contours of the loss, and returns them, for a colour bar."""
    places, grid = trial.measured["places"], np.clip(trial.measured["grid"], levels[0], levels[-1])
    filled = axes.contourf(places, places, grid.T, levels=levels, cmap="cividis")
    axes.contour(places, places, grid.T, levels=levels, colors="white", linewidths=0.4)
    axes.plot(0, 0, "o", color="#ee6677", markersize=4)
    ticks = (-EXTENT, 0, EXTENT)
    axes.set(
        title=title, aspect="equal", xlabel="first direction", ylabel="second direction", xticks=ticks, yticks=ticks
    )
    axes.label_outer()
    return filled


def draw_lines(axes: Any, trials: Sequence[Trial], colour: str, label: str, style: str = "-") -> None:
    """Draws the loss along the lines of trials: their mean."""
    lines = np.mean([trial.measured["lines"] for trial in trials], axis=(0, 1))
    axes.plot(trials[0].measured["places"], lines, style, color=colour, label=label, linewidth=1.5)
