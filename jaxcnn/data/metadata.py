"""What a data set says of itself without being read: the shape of its images and the number of its classes."""

from typing import Any

from jaxcnn.config import DataConfig
from jaxcnn.data import loader
from jaxcnn.data.builders import EMBEDDED
from jaxcnn.data.sources import choose_splits, open_splits
from jaxcnn.data.split_expressions import DataSet
from jaxcnn.data.tfds_source import feature_keys, find_builder, is_prepared
from jaxcnn.errors import InputError


def image_shape_and_classes(config: DataConfig) -> tuple[tuple[int, int, int], tuple[str, ...]]:
    """Returns ([H, W, C] of the network's input, the class names) for the data of a config.

    Of a TFDS data set from its description, which comes with TFDS: the data need not be there. Of others the files
    are listed, and an image is read where sizes differ.

    Raises:
      InputError: no such data, or images of different sizes with no `data.image_size`.
    """
    if config.source == "tfds":
        builder = find_builder(config)
        image, label = feature_keys(builder)
        shape = builder.info.features[image].shape
        names = tuple(builder.info.features[label].names)
        chosen = config.classes or names
        if None not in shape[:2] or config.image_size is not None:
            side = config.image_size
            height, width = (side, side) if side is not None else shape[:2]
            return (height, width, config.channels or shape[2] or 3), chosen
    splits = open_splits(config)
    return loader.input_shape(splits.train, config.image_size, config.channels), splits.train.class_names


PUBLISHED = {
    "cifar10": {"train": 50_000, "test": 10_000},
    "cifar100": {"train": 50_000, "test": 10_000},
    "fashion_mnist": {"train": 60_000, "test": 10_000},
    "food101": {"train": 75_750, "validation": 25_250},
    "imagenet2012": {"train": 1_281_167, "validation": 50_000},
    "mnist": {"train": 60_000, "test": 10_000},
    "oxford_flowers102": {"train": 1_020, "validation": 1_020, "test": 6_149},
    "oxford_iiit_pet": {"train": 3_680, "test": 3_669},
}
"""Examples of stock TFDS data sets, by split, as the TFDS catalogue has them; of ImageNet's those with labels."""


def split_sizes(config: DataConfig) -> dict[str, int]:
    """Returns how many examples the train, validation and test splits of a config have, by name.

    Of a TFDS data set that is not prepared, as its catalogue says, where it is one of `PUBLISHED`.

    Raises:
      InputError: no such data or splits, or data that are not prepared and whose size is not known.
    """
    if config.source != "tfds" or is_prepared(find_builder(config)) or config.name in EMBEDDED:
        return {name: split.num_examples for name, split in open_splits(config).named().items()}
    known = PUBLISHED.get(config.name.split("/")[0].split(":")[0])
    if known is None or config.classes is not None or config.per_class is not None:
        raise InputError(f"data.name={config.name!r} is not prepared, so the number of its examples is not known")
    # Of records only their number is asked.
    records: Any = {name: range(count) for name, count in known.items()}
    data_set = DataSet(config.name, (), None, records, "")
    chosen = zip(("train", "validation", "test"), choose_splits(config, list(known)), strict=True)
    return {
        name: sum(stop - first for _, first, stop in data_set.parts(split, f"data.{name}_split"))
        for name, split in chosen
        if split is not None
    }
