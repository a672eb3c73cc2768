"""The loaders behind one interface: batches gathered on the device, or decoded and sent by the host.

*Resident*: a split lies decoded on the device; the host sends places, the step gathers. *From the host*: batches come
from workers, decoded from files, or from a decoded copy on disk. *Mapped*: features of images are gathered from files.
In all the batches of a step are a function of the step alone, so a run can be cut anywhere, and the step is all there
is to resume from.
"""

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import jax
import numpy as np

from jaxcnn.data import order
from jaxcnn.data.host_crop import Transform
from jaxcnn.data.loader import Arrays, take
from jaxcnn.data.order import TrainingOrder, ViewOrder
from jaxcnn.data.source import Source
from jaxcnn.data.streamed import GivenPlaces, Stream, stream

Place = Callable[[Any], Any]
"""Host arrays -> the same on the devices."""

PlaceBatches = Callable[[Any, int], Any]
"""(host arrays [steps, B, ...], or this process's part of each batch; B) -> the same on the devices, divided."""


class Batches(Protocol):
    """A split to measure on."""

    def __len__(self) -> int: ...

    def batches(self, batch_size: int) -> Iterator[tuple[Arrays, np.ndarray]]:
        """Yields (batch of B, mask bool [B]) that cover each example once; the last batch is padded and masked."""


class Feed(Protocol):
    """What training reads: arguments of the compiled chunk of steps."""

    source: Any
    """What lies on the device for the whole run."""
    order: Any
    """(first step, number of steps) -> int32 [steps, B]: which examples they see."""

    @property
    def rows(self) -> int:
        """Most steps of a dispatch."""

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Height, width and channels of the images of a batch, before augmentation; or the shape of features."""

    @property
    def image_dtype(self) -> np.dtype:
        """uint8; or the type of features."""

    def take(self, source: Any, item: Any) -> Arrays:
        """Returns the batch of one step, inside the compiled program; `item` is a row of `inputs`."""

    def inputs(self, first_step: int, num_steps: int) -> Any:
        """Returns what the steps first_step, ... read, on the device.

        There are always `rows` rows, and two at least: for one row XLA makes another program, with other rounding.
        """

    def close(self) -> None:
        """Ends threads and processes."""


@dataclass
class ResidentFeed:
    """Training from a split on the device; for a `ViewOrder` all views follow each other in it."""

    source: Arrays
    order: TrainingOrder | ViewOrder
    max_steps: int
    place: Place

    @property
    def rows(self) -> int:
        return self.max_steps

    @property
    def image_shape(self) -> tuple[int, ...]:
        return self.source.images.shape[1:]

    @property
    def image_dtype(self) -> np.dtype:
        return np.dtype(self.source.images.dtype)

    def take(self, source: Arrays, item: jax.Array) -> Arrays:
        return take(source, item)

    def inputs(self, first_step: int, num_steps: int) -> Any:
        places = np.zeros((max(self.rows, 2), self.order.batch_size), np.int32)
        places[:num_steps] = self.order(first_step, num_steps)
        return self.place(places)

    def close(self) -> None:
        pass


_DISPATCH_BYTES = 64 * 2**20  # of the batches of one dispatch from the host


def _rows(max_steps: int, batch_bytes: int) -> int:
    """Most steps of a dispatch whose batches the host sends."""
    return max(1, min(max_steps, _DISPATCH_BYTES // batch_bytes))


@dataclass
class HostFeed:
    """Training from batches that the host makes: of several processes each makes its `part`, (index, count)."""

    images: Source
    order: TrainingOrder
    transform: Transform
    total_steps: int
    max_steps: int
    workers: int
    place: PlaceBatches
    part: tuple[int, int] = (0, 1)
    source: tuple[()] = ()
    _stream: Stream | None = field(default=None, repr=False)
    _next: int = -1

    @property
    def rows(self) -> int:
        return _rows(self.max_steps, self.order.batch_size * int(np.prod(self.transform.shape)))

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.transform.shape

    @property
    def image_dtype(self) -> np.dtype:
        return np.dtype(np.uint8)

    def take(self, source: tuple[()], item: Arrays) -> Arrays:
        return item

    def inputs(self, first_step: int, num_steps: int) -> Any:
        if self._stream is None or self._next != first_step:
            self.close()
            self._stream = stream(
                self.images,
                dataclasses.replace(self.order, shard=self.part),
                self.transform,
                first_step,
                self.total_steps,
                shard=self.part,
                workers=self.workers,
            )
        share = self.order.batch_size // self.part[1]
        rows = max(self.rows, 2)
        images = np.zeros((rows, share, *self.transform.shape), np.uint8)
        labels = np.zeros((rows, share), np.int32)
        for row in range(num_steps):
            images[row], labels[row] = next(self._stream)
        self._next = first_step + num_steps
        return self.place(Arrays(images, labels), self.order.batch_size)

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None


@dataclass
class MappedFeed:
    """Training from arrays too large for the device, such as memory-mapped features: the host gathers the batches.

    Attributes:
      views: one array [N, ...] a view of the examples.
      labels: int32 [N].
    """

    views: tuple[np.ndarray, ...]
    labels: np.ndarray
    order: ViewOrder
    max_steps: int
    place: PlaceBatches
    source: tuple[()] = ()

    @property
    def rows(self) -> int:
        return _rows(self.max_steps, self.order.batch_size * self.views[0][0].nbytes)

    @property
    def image_shape(self) -> tuple[int, ...]:
        return self.views[0].shape[1:]

    @property
    def image_dtype(self) -> np.dtype:
        return self.views[0].dtype

    def take(self, source: tuple[()], item: Arrays) -> Arrays:
        return item

    def inputs(self, first_step: int, num_steps: int) -> Any:
        seen, examples = np.divmod(self.order(first_step, num_steps), len(self.labels))
        rows = max(self.rows, 2)
        images = np.zeros((rows, *seen.shape[1:], *self.image_shape), self.image_dtype)
        labels = np.zeros((rows, *seen.shape[1:]), np.int32)
        labels[:num_steps] = self.labels[examples]
        for view, array in enumerate(self.views):
            images[:num_steps][seen == view] = array[examples[seen == view]]
        return self.place(Arrays(images, labels), self.order.batch_size)

    def close(self) -> None:
        pass


@dataclass(frozen=True)
class HostBatches:
    """A split to measure on, decoded by threads in each pass: processes would start anew each time.

    Of several processes each decodes its `part`, (index, count), of each batch; the masks are those of whole batches.
    """

    images: Source
    transform: Transform
    part: tuple[int, int] = (0, 1)

    def __len__(self) -> int:
        return self.images.num_examples

    def batches(self, batch_size: int) -> Iterator[tuple[Arrays, np.ndarray]]:
        listed = list(order.evaluation_batches(len(self), batch_size))
        index, count = self.part
        share = batch_size // count
        places = GivenPlaces(np.stack([places[index * share : (index + 1) * share] for places, _ in listed]))
        with stream(self.images, places, self.transform, 0, len(listed), shard=self.part) as batches:
            for (images, labels), (_, mask) in zip(batches, listed, strict=True):
                yield Arrays(images, labels), mask
