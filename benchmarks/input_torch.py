"""A plain PyTorch pipeline: PIL in the workers of a DataLoader, cropped by torchvision where it is installed."""

import math
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from benchmarks.input_tasks import CROP_SHARE, NUM_CLASSES, InputTask
from jaxcnn.errors import InputError

try:
    from PIL import Image
except ModuleNotFoundError:
    raise InputError("Pillow is not installed: pip install pillow") from None


class Files(Dataset):
    """Image files to (uint8 [H, W, 3], label)."""

    def __init__(self, paths: list[str], transform: Callable[[Any], Any]) -> None:
        self._paths, self._transform = paths, transform

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, place: int) -> tuple[torch.Tensor, int]:
        with Image.open(self._paths[place]) as image:
            made = self._transform(image.convert("RGB"))
        return torch.from_numpy(np.array(made)), place % NUM_CLASSES


def batches(task: InputTask) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Returns the batches of the task, without end; the workers live on from epoch to epoch."""
    transform = _training(task.size) if task.model == "train" else _Centre(task.size)
    loader = DataLoader(
        Files(task.files(), transform),
        batch_size=task.batch,
        shuffle=True,
        drop_last=True,
        num_workers=task.cores,
        persistent_workers=True,
    )
    return _without_end(loader)


def _without_end(loader: DataLoader) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    while True:
        yield from loader


def _training(size: int) -> Callable[[Any], Any]:
    try:
        from torchvision.transforms import RandomResizedCrop
    except ModuleNotFoundError:
        return _RandomResizedCrop(size)
    return RandomResizedCrop(size)


class _RandomResizedCrop:
    """What torchvision's does: part of the area 0.08 to 1, ratio 3/4 to 4/3."""

    def __init__(self, size: int) -> None:
        self._size = size

    def __call__(self, image: Any) -> Any:
        left, top, w, h = self._box(*image.size)
        return image.resize((self._size, self._size), Image.Resampling.BILINEAR, (left, top, left + w, top + h))

    def _box(self, width: int, height: int) -> tuple[int, int, int, int]:
        for _ in range(10):
            area = width * height * random.uniform(0.08, 1)
            ratio = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if w <= width and h <= height:
                return random.randint(0, width - w), random.randint(0, height - h), w, h
        return 0, 0, width, height


class _Centre:
    """The shorter side resized to size / 0.875, and the centre cropped."""

    def __init__(self, size: int) -> None:
        self._size = size

    def __call__(self, image: Any) -> Any:
        width, height = image.size
        scale = round(self._size / CROP_SHARE) / min(width, height)
        image = image.resize((round(width * scale), round(height * scale)), Image.Resampling.BILINEAR)
        left, top = (image.size[0] - self._size) // 2, (image.size[1] - self._size) // 2
        return image.crop((left, top, left + self._size, top + self._size))
