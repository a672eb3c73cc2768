"""The data of studies: decoded once, in memory, without a word."""

import dataclasses
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from jaxcnn.config import DataConfig
from jaxcnn.data import loader
from jaxcnn.data.array_source import splits_from_arrays
from jaxcnn.data.source import Source, Splits

LOG = logging.getLogger("jaxcnn")


def in_memory(splits: Splits, data: DataConfig) -> Splits:
    """Returns the splits that studies use, decoded: training images, and those to measure on."""
    shape = loader.input_shape(splits.train, data.image_size, data.channels)

    def arrays(source: Source) -> tuple[np.ndarray, np.ndarray]:
        read = loader.read_arrays(source, shape, data.crop_share, data.unreadable)
        return np.asarray(read.images), np.asarray(read.labels)

    made = splits_from_arrays(
        arrays(splits.train), arrays(splits.validation), None, splits.train.class_names, splits.train.name
    )
    return Splits(
        **{name: dataclasses.replace(split, is_cropped=True) for name, split in made.named().items()}, test=None
    )


@contextmanager
def quietly() -> Iterator[None]:
    """While it lasts, building says nothing: a study builds dozens of networks on the same data."""
    before = LOG.level
    LOG.setLevel(logging.WARNING)
    try:
        yield
    finally:
        LOG.setLevel(before)
