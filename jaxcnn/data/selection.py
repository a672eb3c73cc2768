"""A part of a data set: some of its classes, numbered anew, and a few training examples of each."""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from jaxcnn.config import DataConfig
from jaxcnn.data.source import Records, Source, Splits
from jaxcnn.errors import InputError, did_you_mean

LOG = logging.getLogger("jaxcnn")
_TOLD = 5  # classes that are named in a line


@dataclass(frozen=True)
class Renumbered:
    """Records whose labels are other numbers: `numbers` int32 [K] has the new label of each old one."""

    whole: Records
    numbers: np.ndarray

    def __len__(self) -> int:
        return len(self.whole)

    def read(self, places: Sequence[int]) -> list[tuple[bytes | np.ndarray, int]]:
        return [(image, int(self.numbers[label])) for image, label in self.whole.read(places)]

    def labels(self) -> np.ndarray:
        return self.numbers[self.whole.labels()]

    def where(self, place: int) -> str:
        return self.whole.where(place)


def select(splits: Splits, config: DataConfig) -> Splits:
    """Returns the splits with `data.classes` alone, and the train split with `data.per_class` examples of each.

    Raises:
      InputError: a class that is not there or is given twice, fewer than two, or a split without any of them.
    """
    named = splits.named()
    if config.classes is not None:
        old = _labels_of(config.classes, splits.train)
        named = {name: with_classes(source, old, f"data.{name}_split") for name, source in named.items()}
        LOG.info(f"data.classes: {len(old)} of the {len(splits.train.class_names)} classes of {splits.train.name}")
    if config.per_class is not None:
        named["train"] = first_of_each_class(named["train"], config.per_class, config.per_class_draw)
    return replace(splits, **named)


def _labels_of(classes: Sequence[str], source: Source) -> list[int]:
    """The labels of classes in a source, in the order given."""
    if len(classes) < 2:
        raise InputError(f"data.classes={tuple(classes)!r}: name two classes at least, or leave it out for all")
    labels: dict[str, int] = {}
    for name in classes:
        if name not in source.class_names:
            hint = did_you_mean(name, source.class_names)
            raise InputError(f"data.classes: {source.name} has no class {name!r}; {hint}")
        if name in labels:
            raise InputError(f"data.classes: {name!r} is given twice")
        labels[name] = source.class_names.index(name)
    return list(labels.values())


def with_classes(source: Source, old: Sequence[int], field: str) -> Source:
    """Returns the examples of the labels `old` alone, numbered 0, 1, ... in that order.

    Raises:
      InputError: there are none; `field` is named as where to look.
    """
    places = np.flatnonzero(np.isin(source.labels, old))
    names = tuple(source.class_names[label] for label in old)
    if not len(places):
        raise InputError(f"{field}: none of the {source.num_examples:,} examples of {source.name} is of {names}")
    part = source.subset(places)
    numbers = np.full(len(source.class_names), -1, np.int32)
    numbers[list(old)] = np.arange(len(old))
    key = hashlib.sha256(f"{part.fingerprint} {list(old)}".encode()).hexdigest()[:24] if part.fingerprint else ""
    renumbered = replace(part, class_names=names, records=Renumbered(part.records, numbers), fingerprint=key)
    renumbered.remember_labels(numbers[part.labels])
    return renumbered


def first_of_each_class(source: Source, count: int, draw: int) -> Source:
    """Returns `count` examples of each class, or all it has, in the order of the source; see `drawn_places`."""
    chosen = drawn_places(source.labels, source.class_names, count, draw)
    LOG.info(
        f"data.per_class={count}: {len(chosen):,} of the {source.num_examples:,} examples of {source.name}, draw {draw}"
    )
    sizes = np.bincount(source.labels[source.labels >= 0], minlength=len(source.class_names))
    short = [f"{name!r} has {size:,}" for name, size in zip(source.class_names, sizes, strict=False) if size < count]
    if short:
        more = ", ..." if short[_TOLD:] else ""
        LOG.info(f"data.per_class={count}: of classes with fewer all are taken: {', '.join(short[:_TOLD])}{more}")
    return source.subset(chosen)


def drawn_places(labels: np.ndarray, class_names: Sequence[str], count: int, draw: int) -> np.ndarray:
    """Returns the places of `count` examples of each class, or of all it has, in ascending order.

    Of each class the first in a random order are taken, which depends on nothing but the class's name, how many
    examples it has, and `draw`: so the first 10 are among the first 20, and other classes change nothing.
    """
    kept = []
    for label in np.unique(labels).tolist():
        places = np.flatnonzero(labels == label)
        name = class_names[label] if 0 <= label < len(class_names) else str(label)  # the loader tells of such a label
        order = np.random.default_rng([draw, *name.encode("utf-8", "surrogateescape")]).permutation(len(places))
        kept.append(places[order[:count]])
    return np.sort(np.concatenate(kept))
