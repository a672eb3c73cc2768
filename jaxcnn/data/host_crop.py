"""Images of any size to one fixed shape on the host, decoded no larger than the crop needs.

For a random crop a JPEG is decoded at 1/2, 1/4 or 1/8 of its size where the part that is cropped still has at least the
pixels of the result in both directions; everything else is decoded whole.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np

from jaxcnn.data.decode import convert_channels, decode, resize_and_centre_crop
from jaxcnn.data.jpeg import FACTORS, Header, decode_reduced, read_header

_TRIES = 10  # as torchvision
_DRAWS = 2 * _TRIES + 3

Box = tuple[int, int, int, int]
"""Top, left, height, width in pixels."""


class Transform(Protocol):
    """An image to uint8 of a fixed shape. Picklable, for worker processes."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """[H, W, C] of the result."""

    @property
    def random(self) -> bool:
        """Whether the result depends on the position."""

    def __call__(self, image: bytes | np.ndarray, position: int, where: str) -> np.ndarray:
        """Returns uint8 [H, W, C].

        Args:
          image: encoded, or uint8 [h, w, c].
          position: in the sequence of all examples that training sees: what randomness is a function of.
          where: what to call the image in a message.

        Raises:
          InputError: the image is unreadable; the message names it.
        """


@dataclass(frozen=True)
class CentreCrop:
    """Resized to cover the shape, and its centre cropped; see `decode.resize_and_centre_crop`.

    Decoded whole, so that every loader, and `predict`, sees the same pixels.
    """

    shape: tuple[int, int, int]
    crop_share: float = 1.0
    random = False

    def __call__(self, image: bytes | np.ndarray, position: int, where: str) -> np.ndarray:
        height, width, channels = self.shape
        decoded = decode(image, None, where) if isinstance(image, bytes) else image
        return resize_and_centre_crop(convert_channels(decoded, channels), height, width, self.crop_share)


@dataclass(frozen=True)
class RandomResizedCrop:
    """A random part of the image, resized to the shape (Szegedy et al. 2015, section 6; torchvision's parameters).

    Attributes:
      shape: [H, W, C] of the result.
      seed: of the draws; each image's follow from it and the position alone.
      area: least and largest share of the image's area.
      ratio: least and largest ratio of width to height; its logarithm is uniform.
      prob: probability for each image; the others get the largest part in the middle that has the result's shape.

    In a JPEG that is decoded reduced, the part is rounded down to whole pixels of the reduced image.

    A part that shrinks by less than 2 is resized bilinearly, which takes a tenth of the time of averaging over areas
    (93 against 943 µs for 500x375 pixels to 224x224); one that shrinks more is averaged.
    """

    shape: tuple[int, int, int]
    seed: int
    area: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    prob: float = 1.0
    random = True

    def __call__(self, image: bytes | np.ndarray, position: int, where: str) -> np.ndarray:
        height, width, channels = self.shape
        header = read_header(image) if isinstance(image, bytes) else None
        draws = _draws(self.seed, position)
        factor = self._reduction(self._box(header.height, header.width, draws)) if header else 1
        decoded, factor = _decoded(image, header, factor, where)
        full = (decoded.shape[0], decoded.shape[1])
        if header is not None and factor > 1:
            full = (header.height, header.width)
        top, left, h, w = (side // factor for side in self._box(full[0], full[1], draws))
        part = convert_channels(decoded[top : top + h, left : left + w], channels)
        shrinks = h >= 2 * height or w >= 2 * width
        resized = cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        return resized.reshape(self.shape)  # cv2 drops a single channel

    def _reduction(self, box: Box) -> int:
        """The largest factor that leaves the box at least as large as the result."""
        height, width = self.shape[:2]
        return next((factor for factor in FACTORS if box[2] // factor >= height and box[3] // factor >= width), 1)

    def _box(self, height: int, width: int, draws: np.ndarray) -> Box:
        """The part of an image of this size: the first of ten draws that fits, or else the middle of the image."""
        if draws[-3] >= self.prob:
            scale = min(height / self.shape[0], width / self.shape[1])
            h, w = max(1, round(scale * self.shape[0])), max(1, round(scale * self.shape[1]))
            return (height - h) // 2, (width - w) // 2, h, w
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        for try_ in range(_TRIES):
            area = height * width * (self.area[0] + (self.area[1] - self.area[0]) * draws[2 * try_])
            ratio = math.exp(low + (high - low) * draws[2 * try_ + 1])
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                return int(draws[-2] * (height - h + 1)), int(draws[-1] * (width - w + 1)), h, w
        w = max(1, min(width, round(height * self.ratio[1])))
        h = max(1, min(height, round(width / self.ratio[0])))
        return (height - h) // 2, (width - w) // 2, h, w


def _draws(seed: int, position: int) -> np.ndarray:
    """Uniform numbers in [0, 1), float64 [23], that are a function of seed and position alone."""
    bits = np.random.Philox(key=np.array([seed, 0x637E0], np.uint64), counter=[0, position, 0, 0])
    return np.random.Generator(bits).random(_DRAWS)


def _decoded(image: bytes | np.ndarray, header: Header | None, factor: int, where: str) -> tuple[np.ndarray, int]:
    """The image, and by how much it is reduced: by `factor`, or not at all where the decoder cannot."""
    if not isinstance(image, bytes):
        return image, 1
    if header is not None and factor > 1 and (reduced := decode_reduced(image, header, factor)) is not None:
        return reduced, factor
    return decode(image, None, where), 1
