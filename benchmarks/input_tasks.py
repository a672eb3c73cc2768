"""What pipelines of images are given, and how their turns are taken."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from jaxcnn.errors import InputError

NUM_CLASSES = 10
CROP_SHARE = 0.875  # of an image resized to 256, for 224
SETTLE_SECONDS = 0.6
SUFFIXES = (".jpg", ".jpeg")


@dataclass(frozen=True)
class InputTask:
    """JPEGs to batches: uint8 [batch, size, size, 3] and int labels.

    Attributes:
      candidate: a name of `candidates.py`.
      model: what is made of an image. train: a random resized crop; evaluation: resized, its centre cropped.
      folder: of the JPEGs.
      size: side of the result in pixels.
      batch: images a batch.
      cores: threads, or processes, that decode.
      steps: batches a turn that are timed.
      lead: batches before them that are not, at least as many as any pipeline keeps ready.
    """

    candidate: str
    model: Literal["train", "evaluation"]
    folder: str
    size: int = 224
    batch: int = 64
    cores: int = 2
    steps: int = 24
    lead: int = 10
    device: Literal["cpu"] = "cpu"

    def files(self) -> list[str]:
        """Returns the paths of the JPEGs; raises InputError where there are none."""
        found = sorted(str(path) for path in Path(self.folder).rglob("*") if path.suffix.lower() in SUFFIXES)
        if len(found) < self.batch:
            raise InputError(f"--photos {self.folder}: {len(found)} JPEGs in it, at least {self.batch} are needed")
        return found


class Reader:
    """Takes turns with a pipeline of batches."""

    def __init__(self, batches: Iterator[tuple[Any, Any]], task: InputTask) -> None:
        """Takes the first batch, so that what is missing shows before any turn."""
        self._batches, self._task = batches, task
        images, labels = next(batches)
        self.shape = list(images.shape)
        expected = [task.batch, task.size, task.size, 3]
        if self.shape != expected or "uint8" not in str(images.dtype) or len(labels) != task.batch:
            raise ValueError(f"{task.candidate}: batches are {images.dtype} {self.shape}, not uint8 {expected}")

    def turn(self) -> float:
        """Returns the seconds a batch in the steady state.

        What is ready when the turn begins is taken first and not timed; at its end the pipeline fills up again before
        the others take theirs.
        """
        for _ in range(self._task.lead):
            next(self._batches)
        start = time.perf_counter()
        for _ in range(self._task.steps):
            next(self._batches)
        seconds = (time.perf_counter() - start) / self._task.steps
        time.sleep(SETTLE_SECONDS)
        return seconds


def write_photos(folder: Path, count: int, seed: int = 0) -> None:
    """Writes `count` JPEGs of 500x375 pixels, half of them upright: noise at all scales, less the finer it is."""
    import cv2
    import numpy as np

    draws = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        height, width = (375, 500) if index % 2 else (500, 375)
        image = np.zeros((height, width, 3), np.float32)
        for level in range(2, 10):
            side = 2**level
            noise = draws.normal(size=(side, side, 3)).astype(np.float32) * 0.75**level
            image += cv2.resize(noise, (width, height), interpolation=cv2.INTER_LINEAR)
        image = 128 + 50 * (image - image.mean()) / image.std()
        pixels = np.clip(image, 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / f"{index:05d}.jpg"), pixels, [cv2.IMWRITE_JPEG_QUALITY, 92])
