"""Where images come from: the splits of a config, whatever they are made of -> one `Source` each."""

import logging
from collections.abc import Sequence
from typing import Any

from jaxcnn.config import DataConfig
from jaxcnn.data.array_source import open_npz
from jaxcnn.data.folder_source import open_folder
from jaxcnn.data.selection import select
from jaxcnn.data.source import Splits
from jaxcnn.data.split_expressions import DataSet, data_set_name, make_splits
from jaxcnn.data.synthetic_source import open_synthetic
from jaxcnn.data.tfds_source import open_builder, open_source, shared_examples
from jaxcnn.errors import InputError

LOG = logging.getLogger("jaxcnn")


def open_splits(config: DataConfig) -> Splits:
    """Returns the train, validation and test sources of a config.

    Without a validation split a tenth of the training split is kept for validation: of a TFDS data set its last
    examples, otherwise a tenth of each class. `data.classes` and `data.per_class` choose from these splits, so what is
    validated on does not depend on how many examples are trained on.

    Raises:
      InputError: unknown data, classes or splits (the nearest names are offered), or data that are not prepared.
    """
    if config.source == "tfds":
        builder = open_builder(config)
        chosen = choose_splits(config, list(builder.info.splits))
        splits, shared = _tfds_splits(builder, chosen)
    else:
        data_set = open_data_set(config)
        chosen = choose_splits(config, list(data_set.records))
        splits, shared = make_splits(data_set, chosen)
    for (name, count), split in zip(shared.items(), [split for split in chosen[1:] if split], strict=True):
        if count:
            LOG.warning(f"warning: {count:,} examples are in both data.train_split={chosen[0]!r} and {name} {split!r}")
    return select(splits, config)


def open_data_set(config: DataConfig) -> DataSet:
    """Returns a folder of images, a .npz file or the synthetic images, with the splits they have."""
    if config.source == "synthetic":
        return open_synthetic(config.image_size)
    if config.data_dir is None:
        what = "the folder of images" if config.source == "folder" else "the .npz file"
        raise InputError(f"data.data_dir: with data.source={config.source!r} say where {what} is")
    return (open_folder if config.source == "folder" else open_npz)(config.data_dir)


def _tfds_splits(builder: Any, chosen: tuple[str, str, str | None]) -> tuple[Splits, dict[str, int]]:
    """The sources of three split expressions, and how many examples each other shares with train."""
    train, validation, test = chosen
    splits = Splits(
        open_source(builder, train, "data.train_split"),
        open_source(builder, validation, "data.validation_split"),
        open_source(builder, test, "data.test_split") if test else None,
    )
    others = {"validation": validation, "test": test}
    return splits, {name: shared_examples(builder, train, split) for name, split in others.items() if split}


def choose_splits(config: DataConfig, own: Sequence[str]) -> tuple[str, str, str | None]:
    """Returns the split expressions for train, validation and test.

    Args:
      config: those it names are taken.
      own: names of the splits that the data set has.

    Raises:
      InputError: what is left open does not follow from what the data set has.
    """
    train, validation, name = config.train_split, config.validation_split, data_set_name(config)
    if "train" not in own and train is None:
        raise InputError(f"data.train_split: {name} has no split 'train'; it has {', '.join(own)}")
    if validation is None and "validation" in own:
        validation = "validation"
    elif validation is None and train is not None:
        raise InputError(
            f"data.validation_split: {name} has no validation split of its own; with data.train_split={train!r} "
            "say which examples are kept from it, such as train[90%:]"
        )
    elif validation is None:
        train, validation = "train[:90%]", "train[90%:]"
    return train or "train", validation, config.test_split or ("test" if "test" in own else None)
