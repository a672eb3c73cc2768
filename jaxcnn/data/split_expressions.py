"""Split expressions on what is no TFDS data set: `train[:90%]` of a folder or of arrays, as TFDS reads them."""

import bisect
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from types import SimpleNamespace

import numpy as np

from jaxcnn.config import DataConfig
from jaxcnn.data.source import Records, Source, Splits, Subset
from jaxcnn.errors import InputError, did_you_mean

_HELD_OUT = 10  # one example in so many goes to each split that is made


@dataclass(frozen=True)
class DataSet:
    """What a folder or a file holds: its own splits by name, from which expressions choose."""

    name: str
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int] | None
    records: Mapping[str, Records]
    fingerprint: str

    def source(self, expression: str, field: str) -> Source:
        """Returns the source of a split expression; `field` is named in messages."""
        parts = self.parts(expression, field)
        if not any(stop > first for _, first, stop in parts):
            raise InputError(f"{field}={expression!r}: the split of {self.name} is empty")
        chosen = [_part(self.records[split], first, stop) for split, first, stop in parts if stop > first]
        records = chosen[0] if len(chosen) == 1 else Joined(tuple(chosen))
        key = hashlib.sha256(f"{self.fingerprint} {parts}".encode()).hexdigest()[:24]
        return Source(f"{self.name} {expression}", self.class_names, self.image_shape, records, key)

    def parts(self, expression: str, field: str) -> list[tuple[str, int, int]]:
        """Returns (split, first, stop) of each part of an expression."""
        import tensorflow_datasets as tfds

        infos = {name: SimpleNamespace(name=name, num_examples=len(own)) for name, own in self.records.items()}
        try:
            parts = tfds.core.ReadInstruction.from_spec(expression).to_absolute(infos)
        except (ValueError, AssertionError, AttributeError) as error:
            reason = (str(error).splitlines() or ["not understood"])[0]
            hint = did_you_mean(expression.split("[")[0], infos)
            raise InputError(f"{field}={expression!r}: {self.name} has no such split ({reason}); {hint}") from None
        ends = [infos[part.splitname].num_examples if part.to is None else part.to for part in parts]
        return [(part.splitname, part.from_ or 0, end) for part, end in zip(parts, ends, strict=True)]


@dataclass(frozen=True)
class Joined:
    """Several records one after the other."""

    parts: tuple[Records, ...]

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def read(self, places: Sequence[int]) -> list[tuple[bytes | np.ndarray, int]]:
        return [self._at(place)[0].read([self._at(place)[1]])[0] for place in places]

    def labels(self) -> np.ndarray:
        return np.concatenate([part.labels() for part in self.parts])

    def where(self, place: int) -> str:
        part, own = self._at(place)
        return part.where(own)

    def _at(self, place: int) -> tuple[Records, int]:
        ends = list(accumulate(map(len, self.parts)))
        index = bisect.bisect_right(ends, place)
        return self.parts[index], int(place) - (ends[index] - len(self.parts[index]))


def _part(records: Records, first: int, stop: int) -> Records:
    return records if (first, stop) == (0, len(records)) else Subset(records, np.arange(first, stop))


def shared_parts(first: Sequence[tuple[str, int, int]], second: Sequence[tuple[str, int, int]]) -> int:
    """How many examples two lists of (split, first, stop) have in common."""
    return sum(
        max(0, min(stop, other_stop) - max(start, other_start))
        for split, start, stop in first
        for other, other_start, other_stop in second
        if split == other
    )


def held_out(labels: np.ndarray, num_parts: int) -> list[np.ndarray]:
    """Returns the places of what is left and of `num_parts` parts, each a tenth of every class, in ascending order.

    Of each class the first tenth in the order given goes to the last part, and so on: an order at random makes a
    random division, the same whenever it is made. A class of at least 3 examples has one in each part.
    """
    parts: list[list[np.ndarray]] = [[] for _ in range(num_parts + 1)]
    for label in np.unique(labels):
        places = np.flatnonzero(labels == label)
        share = max(1, round(len(places) / _HELD_OUT)) if len(places) > num_parts else 0
        for index in range(num_parts):
            parts[num_parts - index].append(places[index * share : (index + 1) * share])
        parts[0].append(places[num_parts * share :])
    return [np.sort(np.concatenate(part)) if part else np.zeros(0, np.int64) for part in parts]


def make_splits(data_set: DataSet, chosen: tuple[str, str, str | None]) -> tuple[Splits, dict[str, int]]:
    """Returns the sources of (train, validation, test) expressions, and how many examples others share with train."""
    named = dict(zip(("train", "validation", "test"), chosen, strict=True))
    fields = {name: f"data.{name}_split" for name in named}
    sources = {name: data_set.source(split, fields[name]) if split else None for name, split in named.items()}
    train = data_set.parts(chosen[0], fields["train"])
    shared = {
        name: shared_parts(train, data_set.parts(split, fields[name]))
        for name, split in named.items()
        if split and name != "train"
    }
    return Splits(**sources), shared  # type: ignore[arg-type]


def data_set_name(config: DataConfig) -> str:
    """What a data set is called in messages: its TFDS name, or the place it lies at."""
    return config.name if config.source == "tfds" else (config.data_dir or config.source)
