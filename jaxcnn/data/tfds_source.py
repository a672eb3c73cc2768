"""TFDS data sets: prepared ones by name, read without TensorFlow; the embedded digits are prepared on first use."""

import contextlib
import hashlib
import importlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxcnn.config import DataConfig
from jaxcnn.data.builders import EMBEDDED
from jaxcnn.data.source import Source
from jaxcnn.errors import InputError, did_you_mean

_READ_AT_ONCE = 4096


@dataclass(frozen=True)
class TfdsRecords:
    """Records of a TFDS data source, images still encoded."""

    records: Any
    image_key: str
    label_key: str
    name: str

    def __len__(self) -> int:
        return len(self.records)

    def read(self, places: Sequence[int]) -> list[tuple[bytes | np.ndarray, int]]:
        records = self.records.__getitems__(list(map(int, places)))  # one by one is four times slower
        return [(record[self.image_key], int(record[self.label_key])) for record in records]

    def labels(self) -> np.ndarray:
        parts = [
            [label for _, label in self.read(range(first, min(first + _READ_AT_ONCE, len(self))))]
            for first in range(0, len(self), _READ_AT_ONCE)
        ]
        return np.array([label for part in parts for label in part], np.int32)

    def where(self, place: int) -> str:
        return f"{self.name} example {place}"


def shared_examples(builder: Any, first: str, second: str) -> int:
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
    builder = find_builder(config)
    if not is_prepared(builder):
        _prepare(builder, config)
    return builder


def find_builder(config: DataConfig) -> Any:
    """Returns the TFDS builder of a data set, prepared or not."""
    import tensorflow_datasets as tfds

    if config.name in EMBEDDED:
        importlib.import_module(EMBEDDED[config.name])
    try:
        return tfds.builder(config.name, data_dir=config.data_dir)
    except tfds.core.registered.DatasetNotFoundError:
        known = [*EMBEDDED, *tfds.list_builders(with_community_datasets=False)]
        base = config.name.split("/")[0].split(":")[0]
        raise InputError(f"data.name={config.name!r}: no such TFDS data set; {did_you_mean(base, known)}") from None
    except (ValueError, AssertionError) as error:
        raise InputError(f"data.name={config.name!r}: {str(error).splitlines()[0]}") from None


def is_prepared(builder: Any) -> bool:
    return bool(builder.info.splits) and builder.data_path.exists()


def _prepare(builder: Any, config: DataConfig) -> None:
    """Prepares an embedded data set in place; for any other says how to."""
    import tensorflow_datasets as tfds

    place = config.data_dir or builder._data_dir_root
    if config.name not in EMBEDDED:
        raise InputError(
            f"data.name={config.name!r} is not prepared in {place}; prepare it where there is a network: "
            f"jaxcnn data prepare {config.name} --data-dir {place}"
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

    image_key, label_key = feature_keys(builder)
    try:
        if builder.info.splits[split].num_examples <= 0:
            raise InputError(f"{field}={split!r}: the split of {builder.name} is empty")
        # Of other images beside it, such as segmentation masks, nothing is used.
        images = [key for key, feature in builder.info.features.items() if isinstance(feature, tfds.features.Image)]
        records = builder.as_data_source(split=split, decoders={key: tfds.decode.SkipDecoding() for key in images})
    except InputError:
        raise
    except (ValueError, AssertionError, KeyError) as error:
        splits = list(builder.info.splits)
        hint = did_you_mean(split.split("[")[0], splits)
        raise InputError(f"{field}={split!r}: {builder.name} has no such split ({first_line(error)}); {hint}") from None
    except (NotImplementedError, ImportError) as error:
        raise InputError(
            f"{builder.name} in {builder.data_path} cannot be read without TensorFlow ({first_line(error)}); "
            "prepare it with --file_format=array_record"
        ) from None
    name = f"{builder.name} {split}"
    shape = builder.info.features[image_key].shape
    return Source(
        name=name,
        class_names=tuple(builder.info.features[label_key].names),
        image_shape=None if None in shape[:2] else shape,
        records=TfdsRecords(records, image_key, label_key, name),
        fingerprint=_fingerprint(builder, split),
    )


def _fingerprint(builder: Any, split: str) -> str:
    """A key of the content of a split: the files it lies in, their sizes and times, and the part of each."""
    parts = [builder.info.full_name]
    for part in builder.info.splits[split].file_instructions:
        stat = Path(part.filename).stat()
        parts.append(f"{Path(part.filename).name} {stat.st_size} {stat.st_mtime_ns} {part.skip} {part.take}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]


def feature_keys(builder: Any) -> tuple[str, str]:
    """Returns the names of the image and of the class label among the features of a data set.

    Raises:
      InputError: it has not one of each.
    """
    import tensorflow_datasets as tfds

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


def first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
