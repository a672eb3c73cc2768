"""Numpy arrays as a data set: a .npz file, or arrays in memory."""

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxcnn.data.source import ArrayRecords, Records, Splits, Subset
from jaxcnn.data.split_expressions import DataSet, held_out, make_splits
from jaxcnn.errors import InputError, did_you_mean

LOG = logging.getLogger("jaxcnn")

NAMES = {
    "train": (("x_train", "y_train"), ("train_images", "train_labels"), ("images", "labels")),
    "validation": (("x_val", "y_val"), ("val_images", "val_labels"), ("validation_images", "validation_labels")),
    "test": (("x_test", "y_test"), ("test_images", "test_labels")),
}
"""Names of (images, labels) in a .npz file: as Keras has them, as MedMNIST has them, or one pair to be divided."""

_MOST_CLASSES = 1_000_000


def open_npz(path: str) -> DataSet:
    """Returns the data set of a .npz file, whose arrays go by NAMES; `class_names` may be among them.

    `images, labels` are divided: a tenth of each class for validation and one for test. A file with train alone, or
    train and test, has a tenth of each class of train for validation.

    Raises:
      InputError: no such file, no such arrays, or arrays of another shape or type than images and labels have.
    """
    arrays = _load(path)
    pairs: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for split, names in NAMES.items():
        for images, labels in names:
            if images in arrays and labels in arrays:
                pairs.setdefault(split, (arrays[images], arrays[labels]))
            elif images in arrays or labels in arrays:
                raise InputError(f"{path}: {images} and {labels} belong together, one is missing")
    if "train" not in pairs:
        known = [name for names in NAMES.values() for pair in names for name in pair]
        first = next(iter(arrays), "")
        raise InputError(f"{path}: no images to train on; it has {', '.join(arrays)}; {did_you_mean(first, known)}")
    class_names = tuple(map(str, arrays["class_names"].tolist())) if "class_names" in arrays else None
    stat = Path(path).stat()
    key = hashlib.sha256(f"{Path(path).name} {stat.st_size} {stat.st_mtime_ns}".encode()).hexdigest()[:24]
    return _data_set(path, pairs, class_names, key, num_made=2 if "images" in arrays and len(pairs) == 1 else 1)


def splits_from_arrays(
    train: tuple[np.ndarray, np.ndarray],
    validation: tuple[np.ndarray, np.ndarray] | None = None,
    test: tuple[np.ndarray, np.ndarray] | None = None,
    class_names: tuple[str, ...] | None = None,
    name: str = "arrays",
) -> Splits:
    """Returns the splits of arrays in memory, to train on with `build_job(config, splits=...)`.

    Args:
      train, validation, test: (images uint8 [N, H, W] or [N, H, W, C], labels int [N] or [N, 1]). Without validation
        a tenth of each class of train is kept for it.
      class_names: in the order of the labels; none: the labels' numbers.
      name: what to call them in messages.

    Raises:
      InputError: a wrong shape, type or label.
    """
    given = {"train": train, "validation": validation, "test": test}
    pairs = {split: pair for split, pair in given.items() if pair is not None}
    digest = hashlib.blake2b(digest_size=12)
    for images, labels in pairs.values():
        digest.update(np.ascontiguousarray(images).data)
        digest.update(np.ascontiguousarray(labels).data)
    data_set = _data_set(name, pairs, class_names, digest.hexdigest(), num_made=1)
    return make_splits(data_set, ("train", "validation", "test" if test else None))[0]


def _load(path: str) -> dict[str, Any]:
    try:
        with np.load(path) as file:
            return {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise InputError(f"data.data_dir={path!r}: no such file") from None
    except Exception as error:  # zipfile, numpy's header parser and pickle each have their own
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"data.data_dir={path!r}: not a readable .npz file of arrays ({reason})") from None


def _data_set(
    name: str, pairs: Mapping[str, tuple[Any, Any]], class_names: tuple[str, ...] | None, key: str, num_made: int
) -> DataSet:
    """The data set of (images, labels) a split; `num_made` splits are made of train where there is no validation."""
    checked = {split: _checked(f"{name}: {split}", *pair) for split, pair in pairs.items()}
    shapes = {split: images.shape[1:] for split, (images, _) in checked.items()}
    if len(set(shapes.values())) > 1:
        raise InputError(f"{name}: images differ in shape between splits: {shapes}")
    largest = max(int(labels.max(initial=0)) for _, labels in checked.values())
    names = class_names or tuple(map(str, range(largest + 1)))
    if largest >= len(names):
        raise InputError(f"{name}: label {largest} is outside the {len(names)} class_names")
    records: dict[str, Records] = {split: ArrayRecords(*pair) for split, pair in checked.items()}
    if "validation" not in records:
        made = ("validation", "test")[:num_made]
        whole = records["train"]
        kept = dict(zip(("train", *made), _drawn(whole.labels(), num_made), strict=True))
        told = " and ".join(f"{len(kept[split]):,} for {split}" for split in made)
        LOG.info(f"{name}: of {len(whole):,} images {told} are kept from train, a tenth of each class")
        records |= {split: Subset(whole, places) for split, places in kept.items()}
    return DataSet(name, names, shapes["train"], records, key)


def _drawn(labels: np.ndarray, num_parts: int) -> list[np.ndarray]:
    """As `held_out`, from an order at random that is always the same; files are often sorted by what is in them."""
    order = np.random.default_rng(0).permutation(len(labels))
    return [np.sort(order[places]) for places in held_out(labels[order], num_parts)]


def _checked(where: str, images: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [N, H, W, C] and labels int32 [N], or what is wrong with them."""
    images, labels = np.asarray(images), np.asarray(labels)
    if images.dtype != np.uint8:
        remedy = "; from 0..1: (255 * x).round().astype(numpy.uint8)" if images.dtype.kind == "f" else ""
        raise InputError(f"{where} images are {images.dtype}, not uint8 in 0..255{remedy}")
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[-1] not in (1, 3) or not images.size:
        raise InputError(f"{where} images have shape {images.shape}, not [N, H, W], [N, H, W, 1] or [N, H, W, 3]")
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise InputError(f"{where} labels are {labels.dtype} {labels.shape}, not one whole number an image")
    if len(labels) != len(images):
        raise InputError(f"{where} has {len(images):,} images and {len(labels):,} labels")
    if labels.min(initial=0) < 0:
        raise InputError(f"{where} labels: {labels.min()} is below 0")
    if labels.max(initial=0) >= _MOST_CLASSES:
        raise InputError(f"{where} labels: {labels.max()} would make more than {_MOST_CLASSES:,} classes")
    return images, labels.astype(np.int32)
