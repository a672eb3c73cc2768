"""A split decoded once: into memory, from where it goes to the device, or to disk, memory-mapped."""

import contextlib
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxcnn.data import order
from jaxcnn.data.decode import UnreadableImage, convert_channels, decode, resize_and_centre_crop
from jaxcnn.data.source import ArrayRecords, Source
from jaxcnn.data.threads import in_threads
from jaxcnn.errors import InputError
from jaxcnn.whole import part as part_of

LOG = logging.getLogger("jaxcnn")
_READ_AT_ONCE = 256  # one record at a time is four times slower
_CACHE_VERSION = 2


@dataclass(frozen=True)
class Arrays:
    """Examples in memory: images uint8 [N, H, W, C], labels int32 [N]; on the host, or on the device once placed.

    In the place of images there may be features: [N, H', W', F] or [N, F], float.
    """

    images: np.ndarray | jax.Array
    labels: np.ndarray | jax.Array

    def __len__(self) -> int:
        return self.labels.shape[0]

    def batches(self, batch_size: int) -> Iterator[tuple["Arrays", np.ndarray]]:
        """Yields (batch of B, mask bool [B]) that cover each example once; the last batch is padded and masked."""
        for places, mask in order.evaluation_batches(len(self), batch_size):
            yield take(self, places), mask


jax.tree_util.register_dataclass(Arrays, data_fields=["images", "labels"], meta_fields=[])


def take(arrays: Arrays, places: jax.Array | np.ndarray) -> Arrays:
    """Returns the examples at `places` [B]; jitted, this is a gather on the device."""
    return Arrays(arrays.images[places], arrays.labels[places])


def gib_of(source: Source, image_shape: tuple[int, int, int]) -> float:
    """Returns the memory that a split takes when decoded, in GiB."""
    return source.num_examples * float(np.prod(image_shape)) / 2**30


def read_arrays(
    source: Source, image_shape: tuple[int, int, int], crop_share: float = 1.0, unreadable: str = "refuse"
) -> Arrays:
    """Returns all of a source in memory, each image resized and centre-cropped to `image_shape`.

    Args:
      source: what to read.
      image_shape: height, width and channels of the result.
      crop_share: part of the resized image's side that the crop keeps; see `decode.resize_and_centre_crop`.
      unreadable: "refuse", or "skip": unreadable images are left out, and the log says which.

    Raises:
      InputError: an image is unreadable, or a label is outside the classes.
    """
    images = np.empty((source.num_examples, *image_shape), np.uint8)
    failures = decode_into(images, source, crop_share)
    check_labels(source)
    kept = kept_places(source, failures, unreadable)
    if len(kept) < source.num_examples:
        images = images[kept]
    return Arrays(images, source.labels[kept])


def decode_into(images: np.ndarray, source: Source, crop_share: float) -> dict[int, str]:
    """Fills uint8 [N, H, W, C] with a source's images, in threads; returns {place: why} of those unreadable."""
    failures: dict[int, str] = {}
    shape, labels = images.shape[1:], np.empty(len(images), np.int32)

    def part(first: int) -> None:
        places = range(first, min(first + _READ_AT_ONCE, source.num_examples))
        for place, (image, label) in zip(places, source.read_each(places), strict=True):
            labels[place] = label
            try:
                if isinstance(image, UnreadableImage):
                    raise image
                whole = decode(image, None, source.records.where(place)) if isinstance(image, bytes) else image
                images[place] = resize_and_centre_crop(
                    convert_channels(whole, shape[2]), shape[0], shape[1], crop_share
                )
            except UnreadableImage as error:
                failures[place] = error.reason

    in_threads(part, range(0, source.num_examples, _READ_AT_ONCE))
    source.remember_labels(labels)
    return dict(sorted(failures.items()))


def kept_places(source: Source, failures: dict[int, str], unreadable: str) -> np.ndarray:
    """Returns the places that are left when unreadable images are taken out; see `read_arrays`."""
    if not failures:
        return np.arange(source.num_examples)
    first = [f"{source.records.where(place)} ({why})" for place, why in list(failures.items())[:3]]
    more = f" and {len(failures) - len(first)} more" if len(failures) > len(first) else ""
    told = f"{len(failures):,} of {source.num_examples:,} images are unreadable: {'; '.join(first)}{more}"
    if unreadable == "refuse":
        raise InputError(f"{source.name}: {told}; remove them, or leave them out with data.unreadable=skip")
    if len(failures) == source.num_examples:
        raise InputError(f"{source.name}: {told}; none is left")
    LOG.warning(f"warning: {source.name}: left out: {told}")
    return np.setdiff1d(np.arange(source.num_examples), list(failures))


def check_labels(source: Source) -> None:
    """Raises InputError where a label is outside the classes."""
    wrong = np.flatnonzero((source.labels < 0) | (source.labels >= len(source.class_names)))
    if wrong.size:
        place = int(wrong[0])
        raise InputError(
            f"{source.name}: {source.records.where(place)} has label {source.labels[place]}, "
            f"outside 0..{len(source.class_names) - 1}"
        )


def cached_source(
    source: Source, image_shape: tuple[int, int, int], crop_share: float, unreadable: str, folder: Path
) -> Source:
    """Returns the source with its images decoded, resized and cropped: a memory-mapped copy on disk.

    The copy is made on first use, in `folder`/decoded/KEY.npy with KEY made of content and shape, and kept; one that is
    damaged is made anew.

    Raises:
      InputError: as `read_arrays`; or the disk is too small, or the folder cannot be written.
    """
    if not source.fingerprint:
        raise InputError(f"data.loader=cached: {source.name} has no fingerprint, by which its copy would be known")
    key_parts = (source.fingerprint, image_shape, crop_share, _CACHE_VERSION)
    key = hashlib.sha256(repr(key_parts).encode()).hexdigest()[:24]
    file, notes = folder / "decoded" / f"{key}.npy", folder / "decoded" / f"{key}.json"
    shape = (source.num_examples, *image_shape)
    found = _read_decoded(file, notes, shape)
    if found is None:
        LOG.info(f"data: {source.name} is decoded once into {file} ({gib_of(source, image_shape):.2f} GiB)")
        try:
            _decode_to(file, notes, source, image_shape, crop_share)
            found = _read_decoded(file, notes, shape)
        except OSError as error:
            raise InputError(f"data.cache_dir={folder}: {error.strerror or error}; choose another folder") from None
        assert found is not None
    images, labels, failures = found
    source.remember_labels(labels)
    check_labels(source)
    kept = kept_places(source, failures, unreadable)
    records = ArrayRecords(images, labels)
    whole = replace(source, image_shape=image_shape, records=records, fingerprint=f"{key}-decoded", is_cropped=True)
    return whole if len(kept) == source.num_examples else whole.subset(kept)


def _read_decoded(file: Path, notes: Path, shape: tuple[int, ...]) -> tuple[Any, np.ndarray, dict[int, str]] | None:
    """(images, labels, unreadable) of a decoded copy; none if there is none or it is not whole."""
    try:
        held = json.loads(notes.read_text())
        images: Any = np.load(file, mmap_mode="r")
        labels = np.array(held["labels"], np.int32)
        failures = {int(place): str(why) for place, why in held["unreadable"].items()}
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError):
        return None
    whole = images.shape == shape and images.dtype == np.uint8 and labels.shape == shape[:1]
    return (images, labels, failures) if whole and all(0 <= place < shape[0] for place in failures) else None


def _decode_to(file: Path, notes: Path, source: Source, image_shape: tuple[int, int, int], crop_share: float) -> None:
    """Writes the decoded images, then the notes, whose presence says that the images are whole."""
    file.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(file.parent).free / 2**30
    if (need := gib_of(source, image_shape)) > 0.95 * free:
        raise OSError(f"{need:.1f} GiB are needed and {free:.1f} are free")
    with part_of(file.with_name(f".{file.stem}.{os.getpid()}.npy")) as part:
        images = np.lib.format.open_memmap(part, "w+", np.uint8, (source.num_examples, *image_shape))
        failures = decode_into(images, source, crop_share)
        images.flush()
        part.replace(file)
    with part_of(notes.with_name(f".{notes.name}.{os.getpid()}")) as text:
        text.write_text(json.dumps({"labels": source.labels.tolist(), "unreadable": failures}))
        text.replace(notes)


def input_shape(source: Source, image_size: int | None, channels: int | None = None) -> tuple[int, int, int]:
    """Returns [H, W, C] of the network's input; what is none is as in the data.

    Raises:
      InputError: the images differ in size and no size is given.
    """
    if image_size is None and source.image_shape is None:
        raise InputError(f"{source.name}: its images differ in size; set data.image_size, for instance 128")
    if image_size is not None and channels is not None:
        return (image_size, image_size, channels)
    shape = source.image_shape or _first_readable(source).shape
    height, width = shape[:2] if image_size is None else (image_size, image_size)
    return (height, width, channels or shape[2])


def _first_readable(source: Source) -> np.ndarray:
    """The first image that can be read, uint8 [H, W, C]."""
    for place in range(source.num_examples):
        with contextlib.suppress(UnreadableImage):
            return source.read([place])[0][0]
    raise InputError(f"{source.name}: none of its {source.num_examples:,} images can be read")
