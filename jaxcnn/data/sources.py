"""Where images come from: the splits of a config, whatever they are made of -> one `Source` each."""

import logging
from collections.abc import Sequence

from jaxcnn.config import DataConfig
from jaxcnn.data.source import Splits
from jaxcnn.data.tfds_source import open_builder, open_source, shared_examples
from jaxcnn.errors import InputError

LOG = logging.getLogger("jaxcnn")


def open_splits(config: DataConfig) -> Splits:
    """Returns the train, validation and test sources of a config.

    Without a validation split the last 10 % of the training split are kept for validation.

    Raises:
      InputError: an unknown data set or split (the nearest names are offered), or one that is not prepared.
    """
    builder = open_builder(config)
    train, validation, test = choose_splits(config, list(builder.info.splits))
    splits = Splits(
        open_source(builder, train, "data.train_split"),
        open_source(builder, validation, "data.validation_split"),
        open_source(builder, test, "data.test_split") if test else None,
    )
    for name, split in (("validation", validation), ("test", test)):
        if split and (shared := shared_examples(builder, train, split)):
            LOG.warning(f"warning: {shared:,} examples are in both data.train_split={train!r} and {name} {split!r}")
    return splits


def choose_splits(config: DataConfig, own: Sequence[str]) -> tuple[str, str, str | None]:
    """Returns the split expressions for train, validation and test.

    Args:
      config: those it names are taken.
      own: names of the splits that the data set has.

    Raises:
      InputError: what is left open does not follow from what the data set has.
    """
    train, validation = config.train_split, config.validation_split
    if "train" not in own and train is None:
        raise InputError(f"data.train_split: {config.name} has no split 'train'; it has {', '.join(own)}")
    if validation is None and "validation" in own:
        validation = "validation"
    elif validation is None and train is not None:
        raise InputError(
            f"data.validation_split: {config.name} has no validation split of its own; with data.train_split={train!r} "
            "say which examples are kept from it, such as train[90%:]"
        )
    elif validation is None:
        train, validation = "train[:90%]", "train[90%:]"
    return train or "train", validation, config.test_split or ("test" if "test" in own else None)
