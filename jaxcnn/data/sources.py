"""Where images come from: a TFDS data set by name -> one `Source` a split."""

import contextlib
import importlib
import io
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxcnn.config import DataConfig
from jaxcnn.data.builders import EMBEDDED
from jaxcnn.errors import InputError, did_you_mean

LOG = logging.getLogger("jaxcnn")


@dataclass(frozen=True)
class Source:
    """One split of a data set, with random access.

    Attributes:
      name: data set and split, for messages.
      class_names: names in the order of the labels.
      image_shape: [H, W, C] of every image, or none if they differ.
      records: sequence of {"image": uint8 [H, W, C], "label": int}; `__getitems__` reads many at once if it has it.
      image_key, label_key: the names of these two in a record.
    """

    name: str
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int] | None
    records: Any
    image_key: str = "image"
    label_key: str = "label"

    @property
    def num_examples(self) -> int:
        return len(self.records)

    def read(self, places: Sequence[int]) -> tuple[list[np.ndarray], np.ndarray]:
        """Returns images (a list of uint8 [H, W, C]) and labels (int32 [N]) at the given places."""
        many = getattr(self.records, "__getitems__", None)
        records = many(list(places)) if many else [self.records[place] for place in places]
        labels = np.array([record[self.label_key] for record in records], np.int32)
        return [record[self.image_key] for record in records], labels


@dataclass(frozen=True)
class Splits:
    """The sources of an experiment; a data set may have no test split."""

    train: Source
    validation: Source
    test: Source | None

    def named(self) -> dict[str, Source]:
        """Returns those there are, by name."""
        return {name: source for name, source in vars(self).items() if source is not None}


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
        if split and (shared := _shared_examples(builder, train, split)):
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


def _shared_examples(builder: Any, first: str, second: str) -> int:
    """How many examples two split expressions have in common."""

    def ranges(split: str) -> list[tuple[str, int, int]]:
        """(file, first, stop) of the records of a split."""
        parts = builder.info.splits[split].file_instructions
        ends = [part.skip + part.take if part.take >= 0 else part.examples_in_shard for part in parts]
        return [(part.filename, part.skip, end) for part, end in zip(parts, ends, strict=True)]

    return sum(
        max(0, min(stop, other_stop) - max(start, other_start))
        for file, start, stop in ranges(first)
        for other_file, other_start, other_stop in ranges(second)
        if file == other_file
    )


def open_builder(config: DataConfig) -> Any:
    """Returns the TFDS builder of a prepared data set; an embedded one is prepared if need be."""
    import tensorflow_datasets as tfds

    if config.name in EMBEDDED:
        importlib.import_module(EMBEDDED[config.name])
    try:
        builder = tfds.builder(config.name, data_dir=config.data_dir)
    except tfds.core.registered.DatasetNotFoundError:
        known = [*EMBEDDED, *tfds.list_builders(with_community_datasets=False)]
        base = config.name.split("/")[0].split(":")[0]
        raise InputError(f"data.name={config.name!r}: no such TFDS data set; {did_you_mean(base, known)}") from None
    except (ValueError, AssertionError) as error:
        raise InputError(f"data.name={config.name!r}: {str(error).splitlines()[0]}") from None
    if not _is_prepared(builder):
        _prepare(builder, config)
    return builder


def _is_prepared(builder: Any) -> bool:
    return bool(builder.info.splits) and builder.data_path.exists()


def _prepare(builder: Any, config: DataConfig) -> None:
    """Prepares an embedded data set in place; for any other says how to."""
    import tensorflow_datasets as tfds

    place = config.data_dir or builder._data_dir_root
    if config.name not in EMBEDDED:
        raise InputError(
            f"data.name={config.name!r} is not prepared in {place}; prepare it where there is a network: "
            f'pip install "jaxcnn[tf]" && tfds build {config.name} --file_format=array_record --data_dir={place}'
        )
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # TFDS prints to standard output, which may be a script's
            builder.download_and_prepare(file_format="array_record")
    except OSError as error:
        raise InputError(f"data.data_dir={place}: {config.name} cannot be prepared there: {error}") from None


def open_source(builder: Any, split: str, field: str) -> Source:
    """Returns one split of a prepared builder; `field` is named in messages."""
    import tensorflow_datasets as tfds

    image_key, label_key = _feature_keys(builder, tfds)
    try:
        if not builder.info.splits[split].num_examples:
            raise InputError(f"{field}={split!r}: the split of {builder.name} is empty")
        records = builder.as_data_source(split=split)
    except InputError:
        raise
    except (ValueError, AssertionError, KeyError) as error:
        splits = list(builder.info.splits)
        hint = did_you_mean(split.split("[")[0], splits)
        raise InputError(
            f"{field}={split!r}: {builder.name} has no such split ({_first_line(error)}); {hint}"
        ) from None
    except (NotImplementedError, ImportError) as error:
        raise InputError(
            f"{builder.name} in {builder.data_path} cannot be read without TensorFlow ({_first_line(error)}); "
            "prepare it with --file_format=array_record"
        ) from None
    shape = builder.info.features[image_key].shape
    return Source(
        name=f"{builder.name} {split}",
        class_names=tuple(builder.info.features[label_key].names),
        image_shape=None if None in shape[:2] else shape,
        records=records,
        image_key=image_key,
        label_key=label_key,
    )


def _feature_keys(builder: Any, tfds: Any) -> tuple[str, str]:
    """The names of the image and of the class label among the features of a data set."""
    found = []
    for kind, usual in ((tfds.features.Image, "image"), (tfds.features.ClassLabel, "label")):
        keys = [key for key, feature in builder.info.features.items() if isinstance(feature, kind)]
        if usual in keys:
            keys = [usual]
        if len(keys) != 1:
            raise InputError(
                f"{builder.name} is not an image classification data set: features {builder.info.features}"
            )
        found.append(keys[0])
    return found[0], found[1]


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
