"""What every candidate offers to be measured, and the images that all of them see."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.workloads import Task

MEAN, STD = 0.5, 0.25  # of the pixels in 0..1
LEARNING_RATE, MOMENTUM = 1e-3, 0.9  # low enough that random labels never make a loss infinite, which runs otherwise


@dataclass(frozen=True)
class Program:
    """A candidate, built and given its weights, but not yet compiled.

    Attributes:
      parameters: how many numbers the network has, frozen ones included.
      logits: float32 images [N, H, W, 3] -> logits [N, K] in evaluation mode, computed in float32.
      run: does so many steps and waits until the last is done.
    """

    parameters: int
    logits: Callable[[np.ndarray], np.ndarray]
    run: Callable[[int], None]


@dataclass(frozen=True)
class Compilable:
    """A jitted training step and the shapes of its arguments."""

    jitted: Any
    arguments: tuple[Any, ...]


def draw_images(task: Task, batches: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns seeded random images uint8 [batches, B, H, W, 3] and labels int32 [batches, B]."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (batches, task.batch, *task.image_shape), np.uint8)
    return images, random.integers(0, task.num_classes, (batches, task.batch)).astype(np.int32)


def normalised(images: np.ndarray) -> np.ndarray:
    """Returns uint8 images as the input of a network, float32."""
    return (images.astype(np.float32) / 255 - MEAN) / STD


def read_weights(task: Task) -> dict[str, np.ndarray]:
    """Returns our variables by path, `params/...` and `batch_stats/...`, as `fairness.write_weights` wrote them."""
    with np.load(task.weights) as file:
        return dict(file)
