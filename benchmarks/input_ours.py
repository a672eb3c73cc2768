"""Our pipeline: `jaxcnn.data.streamed`, filled by threads or by processes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.input_tasks import CROP_SHARE, NUM_CLASSES, InputTask
from jaxcnn.data.host_crop import CentreCrop, RandomResizedCrop
from jaxcnn.data.order import TrainingOrder
from jaxcnn.data.source import Source
from jaxcnn.data.streamed import Batch, stream

STEPS = 10**6  # more than will be read


@dataclass(frozen=True)
class Files:
    """Records of image files, labelled in turn."""

    paths: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, places: Sequence[int]) -> list[tuple[bytes | np.ndarray, int]]:
        return [(Path(self.paths[place]).read_bytes(), place % NUM_CLASSES) for place in places]

    def labels(self) -> np.ndarray:
        return np.arange(len(self), dtype=np.int32) % NUM_CLASSES

    def where(self, place: int) -> str:
        return self.paths[place]


def batches(task: InputTask) -> Iterator[Batch]:
    """Returns the batches of the task, without end."""
    paths = tuple(task.files())
    source = Source("photos", tuple(map(str, range(NUM_CLASSES))), None, Files(paths))
    shape = (task.size, task.size, 3)
    transform = RandomResizedCrop(shape, seed=0) if task.model == "train" else CentreCrop(shape, CROP_SHARE)
    places_of = TrainingOrder(len(paths), task.batch, 0)
    filled = {"workers": task.cores} if task.candidate == "processes" else {"threads": task.cores}
    return stream(source, places_of, transform, 0, STEPS, **filled)
