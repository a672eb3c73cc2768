"""What a data set is to the rest of the code: random access to images and labels, whatever they come from."""

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from jaxcnn.data.decode import UnreadableImage, decode


class Records(Protocol):
    """The examples of one split. Picklable, for the worker processes of the streamed loader."""

    def __len__(self) -> int: ...

    def read(self, places: Sequence[int]) -> list[tuple[bytes | np.ndarray, int]]:
        """Returns (image, label) at each place: an encoded image, or uint8 [H, W, C]."""

    def labels(self) -> np.ndarray:
        """Returns the labels of all examples, int32 [N], without decoding images."""

    def where(self, place: int) -> str:
        """Returns what to call an example in a message, such as the path of its file."""


@dataclass(frozen=True)
class Source:
    """One split of a data set.

    Attributes:
      name: data set and split, for messages.
      class_names: names in the order of the labels.
      image_shape: [H, W, C] of every image, or none if they differ.
      records: the examples.
      fingerprint: a key of their content: it changes when they do.
      is_cropped: the images are resized and cropped as the network takes them, so no share is cropped off again.
    """

    name: str
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int] | None
    records: Records
    fingerprint: str = ""
    is_cropped: bool = False

    @property
    def num_examples(self) -> int:
        return len(self.records)

    @functools.cached_property
    def labels(self) -> np.ndarray:
        """The labels of all examples, int32 [N]."""
        return np.asarray(self.records.labels(), np.int32)

    def remember_labels(self, labels: np.ndarray) -> None:
        """Takes the labels from a pass over all examples, which spares `labels` one of its own."""
        self.__dict__["labels"] = labels

    def read(self, places: Sequence[int]) -> tuple[list[np.ndarray], np.ndarray]:
        """Returns images (a list of uint8 [H, W, C], decoded) and labels (int32 [N]) at the given places.

        Raises:
          InputError: an image is unreadable; the message names it.
        """
        records = self.records.read(places)
        images = [
            decode(image, None, self.records.where(place)) if isinstance(image, bytes) else image
            for place, (image, _) in zip(places, records, strict=True)
        ]
        return images, np.array([label for _, label in records], np.int32)

    def read_each(self, places: Sequence[int]) -> list[tuple[bytes | np.ndarray | UnreadableImage, int]]:
        """Returns (image, label) at each place as `Records.read` does; of a file that cannot be opened its error."""

        def one(place: int) -> tuple[bytes | np.ndarray | UnreadableImage, int]:
            try:
                return self.records.read([place])[0]
            except UnreadableImage as error:
                return error, int(self.labels[place])

        try:
            return [*self.records.read(places)]
        except UnreadableImage:
            return list(map(one, places))

    def subset(self, places: np.ndarray) -> "Source":
        """Returns the source of the examples at `places` alone, in that order."""
        places = np.asarray(places, np.int64)
        key = hashlib.sha256(self.fingerprint.encode() + places.tobytes()).hexdigest()[:24] if self.fingerprint else ""
        part = replace(self, records=Subset(self.records, places), fingerprint=key)
        if "labels" in self.__dict__:
            part.remember_labels(self.labels[places])
        return part


@dataclass(frozen=True)
class Subset:
    """Some of the examples of other records."""

    whole: Records
    places: np.ndarray

    def __len__(self) -> int:
        return len(self.places)

    def read(self, places: Sequence[int]) -> list[tuple[bytes | np.ndarray, int]]:
        return self.whole.read([int(self.places[place]) for place in places])

    def labels(self) -> np.ndarray:
        return self.whole.labels()[self.places]

    def where(self, place: int) -> str:
        return self.whole.where(int(self.places[place]))


@dataclass(frozen=True)
class ArrayRecords:
    """Examples in memory: images uint8 [N, H, W, C] or a list of [H, W, C], targets int [N]."""

    images: Any
    targets: Any

    def __len__(self) -> int:
        return len(self.targets)

    def read(self, places: Sequence[int]) -> list[tuple[bytes | np.ndarray, int]]:
        return [(self.images[place], int(self.targets[place])) for place in places]

    def labels(self) -> np.ndarray:
        return np.asarray(self.targets, np.int32)

    def where(self, place: int) -> str:
        return f"example {place}"


@dataclass(frozen=True)
class Splits:
    """The sources of an experiment; a data set may have no test split."""

    train: Source
    validation: Source
    test: Source | None

    def named(self) -> dict[str, Source]:
        """Returns those there are, by name."""
        return {name: source for name, source in vars(self).items() if source is not None}
