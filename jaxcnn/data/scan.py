"""One pass over a source, in threads: sizes, statistics a channel, what cannot be read, and a hash of each image."""

import hashlib
import json
import logging
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxcnn.data.decode import UnreadableImage, convert_channels, decode, resize_and_centre_crop
from jaxcnn.data.image_header import Unreadable, read_header
from jaxcnn.data.source import Source
from jaxcnn.data.statistics import ChannelSums
from jaxcnn.data.threads import results_in_threads
from jaxcnn.runtime import data_cache_folder

LOG = logging.getLogger("jaxcnn")

_VERSION = 2  # in the key of the cache: one more whenever a pass would find something else
_AT_ONCE = 64
_LONG = 2000  # examples from which on progress is shown
_DIGEST = 8  # bytes of the hash of an image


@dataclass(frozen=True)
class Scan:
    """What one pass over a source has found.

    Attributes:
      num_examples: of the source.
      num_read: of these could be read.
      counts: examples of each class, readable or not.
      height, width: (least, median, most) in pixels, as decoded.
      mean, std: of each channel in units of 0..1, of the images as the network sees them.
      unreadable: why, by place.
      odd: what was decided about an image that is read, but not as stored (CMYK, 16 bits, animated), by place.
      labels: of each example.
      hashes: of each image's pixels, 16 hexadecimal digits each, in order; zeros for an unreadable one.
    """

    num_examples: int
    num_read: int
    counts: tuple[int, ...]
    height: tuple[float, float, float]
    width: tuple[float, float, float]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    unreadable: dict[int, str]
    odd: dict[int, str]
    hashes: str
    labels: tuple[int, ...]

    def digests(self) -> list[str]:
        """Returns the hash of each example; "" for an unreadable one."""
        step = 2 * _DIGEST
        found = [self.hashes[at : at + step] for at in range(0, len(self.hashes), step)]
        return ["" if place in self.unreadable else digest for place, digest in enumerate(found)]

    def readable(self) -> np.ndarray:
        """Returns the places of the examples that can be read, int64: those for `Source.subset`."""
        return np.setdiff1d(np.arange(self.num_examples), np.array(list(self.unreadable), np.int64))


def scan(
    source: Source,
    image_shape: tuple[int, int, int] | None,
    crop_share: float = 1.0,
    cache_dir: str | None = None,
    progress: bool = True,
) -> Scan:
    """Returns what a pass over a source finds; kept in a cache as long as the source stays as it is.

    Args:
      source: it is read once, nothing of it is kept but figures.
      image_shape: [H, W, C] to which images are resized and cropped for the statistics; none: each in its own size,
        as RGB.
      crop_share: see `decode.resize_and_centre_crop`.
      cache_dir: where the result is kept; none: the user's cache folder.
      progress: show how far it is, on a terminal and if it is long.
    """
    file = _cache_file(source, image_shape, crop_share, cache_dir)
    found = _read_cache(file, source) if file else None
    if found is None:
        found = _scan(source, image_shape, crop_share, progress)
        if file:
            _write_cache(file, found)
    source.remember_labels(np.array(found.labels, np.int32))
    return found


@dataclass
class _Block:
    """What is found in a few examples."""

    sums: ChannelSums
    sizes: list[tuple[int, int]]
    unreadable: dict[int, str]
    odd: dict[int, str]
    hashes: list[str]
    labels: list[int]


def _scan(source: Source, image_shape: tuple[int, int, int] | None, crop_share: float, progress: bool) -> Scan:
    from tqdm import tqdm

    count = source.num_examples
    firsts = range(0, count, _AT_ONCE)
    sums, sizes, hashes = ChannelSums(image_shape[2] if image_shape else 3), [], []
    labels: list[int] = []
    unreadable: dict[int, str] = {}
    odd: dict[int, str] = {}
    silent = not (progress and count >= _LONG and sys.stderr.isatty())
    with tqdm(total=count, desc=source.name, unit=" images", leave=False, disable=silent) as bar:
        blocks = [range(first, min(first + _AT_ONCE, count)) for first in firsts]
        for places, block in zip(
            blocks, results_in_threads(lambda p: _look(source, p, image_shape, crop_share), blocks), strict=True
        ):
            sums.merge(block.sums)
            sizes += block.sizes
            hashes += block.hashes
            labels += block.labels
            unreadable |= block.unreadable
            odd |= block.odd
            bar.update(len(places))
    counts = np.bincount(labels, minlength=len(source.class_names))
    spread = np.array(sizes or [(0, 0)])
    height, width = (
        (float(side.min()), float(np.median(side)), float(side.max())) for side in (spread[:, 0], spread[:, 1])
    )
    mean, std = sums.mean_and_std()
    return Scan(
        count,
        len(sizes),
        tuple(counts.tolist()),
        height,
        width,
        mean,
        std,
        unreadable,
        odd,
        "".join(hashes),
        tuple(labels),
    )


def _look(source: Source, places: range, image_shape: tuple[int, int, int] | None, crop_share: float) -> _Block:
    block = _Block(ChannelSums(image_shape[2] if image_shape else 3), [], {}, {}, [], [])
    kept = []
    for _, image in _decoded(source, places, block):
        if image is None:
            block.hashes.append("0" * 2 * _DIGEST)
            continue
        block.sizes.append(image.shape[:2])
        digest = hashlib.blake2b(str(image.shape).encode(), digest_size=_DIGEST)
        digest.update(np.ascontiguousarray(image).data)
        block.hashes.append(digest.hexdigest())
        image = convert_channels(image, image_shape[2] if image_shape else 3)
        kept.append(image if image_shape is None else resize_and_centre_crop(image, *image_shape[:2], crop_share))
    for images in [np.stack(kept)] if image_shape and kept else kept:
        block.sums.add(images)
    return block


def _decoded(source: Source, places: range, block: _Block) -> Iterator[tuple[int, np.ndarray | None]]:
    """Yields (place, image), none for an unreadable one, whose reason goes to the block."""
    for place, (record, label) in zip(places, source.read_each(places), strict=True):
        block.labels.append(label)
        try:
            if isinstance(record, UnreadableImage):
                raise record
            if isinstance(record, bytes):
                image = decode(record, None, source.records.where(place))
                if oddity := _oddity(record):
                    block.odd[place] = oddity
            else:
                image = record
        except UnreadableImage as error:
            block.unreadable[place] = error.reason
            yield place, None
        else:
            yield place, image


def _oddity(encoded: bytes) -> str:
    try:
        return read_header(encoded).oddity
    except Unreadable:
        return ""


def _cache_file(source: Source, image_shape: Any, crop_share: float, cache_dir: str | None) -> Path | None:
    """Where the result is kept; none for a source whose content has no key."""
    if not source.fingerprint:
        return None
    key = f"{_VERSION} {source.fingerprint} {image_shape} {crop_share}"
    return data_cache_folder(cache_dir) / "scans" / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.json"


def _read_cache(file: Path, source: Source) -> Scan | None:
    """What was kept; none if there is nothing or it is damaged."""
    try:
        held = json.loads(file.read_text())
        for name in ("counts", "height", "width", "mean", "std", "labels"):
            held[name] = tuple(held[name])
        for name in ("unreadable", "odd"):
            held[name] = {int(place): reason for place, reason in held[name].items()}
        found = Scan(**held)
        per_example = {found.num_examples, source.num_examples, len(found.hashes) // (2 * _DIGEST), len(found.labels)}
        whole = len(per_example) == 1 and found.num_read + len(found.unreadable) == found.num_examples
        if not whole or not all(isinstance(value, float) for value in (*found.mean, *found.std)):
            raise ValueError("not whole")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        LOG.info(f"{file}: a damaged cache file, made anew")
        return None
    return found


def _write_cache(file: Path, found: Scan) -> None:
    """Keeps the result, whole or not at all; a folder that cannot be written only costs the next pass."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_name(f".{file.name}.{os.getpid()}")
        part.write_text(json.dumps(asdict(found)))
        part.replace(file)
    except OSError as error:
        LOG.warning(f"warning: {file}: what the data hold is not kept ({error.strerror})")
