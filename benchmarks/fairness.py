"""The check before anything is timed: all candidates have the same parameters and, for the same weights, logits."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.workloads import Task
from jaxcnn.errors import RunFailed
from jaxcnn.paths import flatten

TOLERANCE = 1e-4  # largest difference of logits, relative to the largest logit, both in float32
_IMAGES = 4


def write_weights(task: Task, folder: Path) -> Path:
    """Writes random variables of our network for a task, by path, and returns the file.

    Running statistics, scales and biases are not what a network starts with, so that one left out would show.
    """
    from benchmarks.ours import shapes_of

    random = np.random.default_rng(0)
    drawn = {path: _draw(random, path, leaf.shape) for path, leaf in flatten(shapes_of(task)).items()}
    file = folder / "weights.npz"
    np.savez(file, **drawn)  # type: ignore[arg-type]
    return file


def _draw(random: np.random.Generator, path: str, shape: tuple[int, ...]) -> np.ndarray:
    kind = path.rsplit("/", 1)[1]
    if kind == "kernel":
        values = random.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape)
    elif kind in ("scale", "var"):
        values = random.uniform(0.5, 1.5, shape)
    else:
        values = random.normal(0, 0.1, shape)
    return values.astype(np.float32)


def write_images(task: Task, folder: Path) -> Path:
    """Writes random images, float32 [4, H, W, 3], and returns the file."""
    file = folder / "images.npy"
    np.save(file, np.random.default_rng(1).normal(size=(_IMAGES, *task.image_shape)).astype(np.float32))
    return file


def check(answers: Mapping[str, Mapping[str, Any]], what: str) -> dict[str, float]:
    """Returns the largest relative difference of each candidate's logits from those of the first.

    Args:
      answers: {title of a candidate: {"parameters", "logits"}}.
      what: the network, for the message.

    Raises:
      RunFailed: two candidates are not the same network.
    """
    first, *_ = answers
    count, logits = answers[first]["parameters"], np.asarray(answers[first]["logits"])
    differences = {}
    for title, answer in answers.items():
        if answer["parameters"] != count:
            raise RunFailed(
                f"{what}: {title} has {answer['parameters']:,} parameters and {first} {count:,}: not the same network"
            )
        theirs = np.asarray(answer["logits"])
        difference = float(np.max(np.abs(theirs - logits)) / np.max(np.abs(logits)))
        if not difference <= TOLERANCE:
            raise RunFailed(
                f"{what}: for the same weights the logits of {title} and {first} differ by {difference:.1e} of the "
                f"largest, more than {TOLERANCE:g}: not the same network"
            )
        differences[title] = difference
    return differences
