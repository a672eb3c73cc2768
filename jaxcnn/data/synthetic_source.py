"""Images of coloured shapes, made when they are read: for tests and benchmarks, without a file."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from jaxcnn.data.split_expressions import DataSet

CLASS_NAMES = ("circle", "square", "triangle", "cross", "ring", "stripes")
SPLIT_SIZES = {"train": 3000, "validation": 600, "test": 600}
_SUBPIXEL_BITS = 4


@dataclass(frozen=True)
class ShapeRecords:
    """Images uint8 [size, size, 3], each a pure function of (seed, place): one shape, anywhere, of any colour."""

    num_examples: int
    size: int = 32
    seed: int = 0

    def __len__(self) -> int:
        return self.num_examples

    def read(self, places: Sequence[int]) -> list[tuple[bytes | np.ndarray, int]]:
        return [(self._image(int(place)), int(place) % len(CLASS_NAMES)) for place in places]

    def labels(self) -> np.ndarray:
        return (np.arange(self.num_examples) % len(CLASS_NAMES)).astype(np.int32)

    def where(self, place: int) -> str:
        return f"synthetic example {place} of seed {self.seed}"

    def _image(self, place: int) -> np.ndarray:
        rng = np.random.Generator(np.random.Philox(key=np.array([self.seed, place], np.uint64)))
        ground, colour = _two_colours(rng)
        image = np.full((self.size, self.size, 3), ground, np.uint8)
        radius = self.size * rng.uniform(0.2, 0.38)
        centre = self.size / 2 + rng.uniform(-1, 1, 2) * (self.size / 2 - radius)
        draw_shape(image, CLASS_NAMES[place % len(CLASS_NAMES)], centre, radius, rng.uniform(-0.5, 0.5), colour)
        noise = rng.integers(-12, 13, image.shape, np.int16)
        return np.clip(image + noise, 0, 255).astype(np.uint8)


def draw_shape(
    image: np.ndarray, name: str, centre: np.ndarray, radius: float, turn: float, colour: tuple[int, ...]
) -> None:
    """Draws a shape of CLASS_NAMES into the image; `centre` (x, y) and `radius` in pixels, `turn` in radians."""
    if name in ("circle", "ring"):
        thickness = -1 if name == "circle" else max(1, round(radius * 0.35))
        x, y = np.round(centre * 2**_SUBPIXEL_BITS).astype(int).tolist()
        cv2.circle(image, (x, y), round(radius * 2**_SUBPIXEL_BITS), colour, thickness, cv2.LINE_AA, _SUBPIXEL_BITS)
        return
    for corners in _corners(name):
        rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        points = np.array(corners) @ rotation.T * radius + centre
        polygon = np.round(points * 2**_SUBPIXEL_BITS).astype(np.int32)
        cv2.fillPoly(image, [polygon], colour, cv2.LINE_AA, _SUBPIXEL_BITS)


def _corners(name: str) -> list[list[tuple[float, float]]]:
    """Corners (x, y) of the polygons of a shape in a circle of radius 1."""

    def box(width: float, height: float, y: float = 0.0) -> list[tuple[float, float]]:
        return [(-width, y - height), (width, y - height), (width, y + height), (-width, y + height)]

    return {
        "square": [box(0.75, 0.75)],
        "triangle": [[(0.0, -1.0), (0.87, 0.5), (-0.87, 0.5)]],
        "cross": [box(0.95, 0.26), box(0.26, 0.95)],
        "stripes": [box(0.75, 0.16, y) for y in (-0.62, 0.0, 0.62)],
    }[name]


def _two_colours(rng: np.random.Generator) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """A ground and a colour that differ by 80 or more in the mean of the channels."""
    ground = rng.integers(0, 256, 3)
    while True:
        colour = rng.integers(0, 256, 3)
        if abs(float(ground.mean() - colour.mean())) >= 80:
            return tuple(map(int, ground)), tuple(map(int, colour))


def open_synthetic(size: int | None) -> DataSet:
    """Returns the data set of shapes of a side in pixels (none: 32); each split has a seed of its own."""
    side = size or 32
    records = {split: ShapeRecords(count, side, seed) for seed, (split, count) in enumerate(SPLIT_SIZES.items())}
    return DataSet("synthetic", CLASS_NAMES, (side, side, 3), records, f"shapes-1-{side}")
