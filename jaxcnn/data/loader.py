"""Arrays of examples: a split decoded and in memory, on the host or on the device."""

from dataclasses import dataclass

import jax
import numpy as np

from jaxcnn.config import Preprocessing
from jaxcnn.data.decode import convert_channels, resize_and_centre_crop
from jaxcnn.data.source import Source
from jaxcnn.errors import InputError

_READ_AT_ONCE = 1024  # one record at a time is four times slower


@dataclass(frozen=True)
class Arrays:
    """A split in memory: images uint8 [N, H, W, C], labels int32 [N]; on the host, or on the device after placement."""

    images: np.ndarray | jax.Array
    labels: np.ndarray | jax.Array

    def __len__(self) -> int:
        return self.labels.shape[0]


jax.tree_util.register_dataclass(Arrays, data_fields=["images", "labels"], meta_fields=[])


def read_arrays(source: Source, image_shape: tuple[int, int, int], limit_gib: float, crop_share: float = 1.0) -> Arrays:
    """Returns all of a source, each image resized and centre-cropped to `image_shape` if it has another shape.

    `crop_share` is the part of the resized image's side that the crop keeps; see `decode.resize_and_centre_crop`.

    Raises:
      InputError: it would take more than `limit_gib`, or a label is outside the classes.
    """
    gib = source.num_examples * float(np.prod(image_shape)) / 2**30
    if gib > limit_gib:
        raise InputError(
            f"{source.name}: {source.num_examples:,} images of {image_shape} take {gib:.1f} GiB, more than "
            f"data.resident_limit_gib={limit_gib:g}; raise it, use a smaller data.image_size, or a part of the split"
        )
    images = np.empty((source.num_examples, *image_shape), np.uint8)
    labels = np.empty(source.num_examples, np.int32)
    for first in range(0, source.num_examples, _READ_AT_ONCE):
        places = range(first, min(first + _READ_AT_ONCE, source.num_examples))
        raw, labels[places.start : places.stop] = source.read(places)
        for place, image in zip(places, raw, strict=True):
            image = convert_channels(image, image_shape[2])
            images[place] = resize_and_centre_crop(image, *image_shape[:2], crop_share)
    wrong = np.flatnonzero((labels < 0) | (labels >= len(source.class_names)))
    if wrong.size:
        place = int(wrong[0])
        raise InputError(
            f"{source.name}: example {place} has label {labels[place]}, outside 0..{len(source.class_names) - 1}"
        )
    return Arrays(images, labels)


def take(arrays: Arrays, places: jax.Array | np.ndarray) -> Arrays:
    """Returns the examples at `places` [B]; jitted, this is a gather on the device."""
    return Arrays(arrays.images[places], arrays.labels[places])


def input_shape(source: Source, image_size: int | None, channels: int | None = None) -> tuple[int, int, int]:
    """Returns [H, W, C] of the network's input; what is none is as in the data.

    Raises:
      InputError: the images differ in size and no size is given.
    """
    if image_size is None and source.image_shape is None:
        raise InputError(f"{source.name}: its images differ in size; set data.image_size, for instance 128")
    shape = source.image_shape or source.read([0])[0][0].shape
    height, width = shape[:2] if image_size is None else (image_size, image_size)
    return (height, width, channels or shape[2])


def preprocessing_of(arrays: Arrays) -> Preprocessing:
    """Returns how images become input: the shape of these images and their statistics a channel."""
    from jaxcnn.data.statistics import channel_statistics

    assert isinstance(arrays.images, np.ndarray)
    mean, std = channel_statistics(arrays.images)
    shape = arrays.images.shape[1:]
    return Preprocessing(shape, mean, std, "grey" if shape[2] == 1 else "RGB")  # type: ignore[arg-type]
