"""Which examples each step sees.

The order is a pure function of (seed, epoch): the permutations of the epochs follow each other without a gap, and
batch i takes examples [i·B, (i+1)·B) of that sequence. So nothing is dropped, nothing is padded, and one integer, the
step, is the whole position.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np


@functools.lru_cache(maxsize=4)
def epoch_order(num_examples: int, seed: int, epoch: int) -> np.ndarray:
    """Returns the permutation int32 [num_examples] of one epoch."""
    bits = np.random.Philox(key=np.array([seed, epoch], np.uint64))
    return np.random.Generator(bits).permutation(num_examples).astype(np.int32)


@dataclass(frozen=True, eq=False)
class TrainingOrder:
    """Which examples each training step sees: a pure function of its fields. Picklable, for worker processes.

    Attributes:
      num_examples: length of an epoch.
      batch_size: examples a step, over all hosts.
      seed: another seed, another order.
      labels: int32 [N]; given, each class comes equally often in an epoch of `num_examples`, so that examples of rare
        classes repeat; else each example comes once.
      shard: (index, count): this host's part of each batch; the parts in order are the batch.
    """

    num_examples: int
    batch_size: int
    seed: int
    labels: np.ndarray | None = None
    shard: tuple[int, int] = (0, 1)

    def __call__(self, first_step: int, num_steps: int) -> np.ndarray:
        """Returns int32 [num_steps, batch_size / shards]: the examples that steps first_step, ... see."""
        size = self.batch_size
        first, stop = first_step * size, (first_step + num_steps) * size
        epochs = range(first // self.num_examples, -(-stop // self.num_examples))
        starts = [epoch * self.num_examples for epoch in epochs]
        parts = [self._epoch(epoch)[max(first - at, 0) : stop - at] for epoch, at in zip(epochs, starts, strict=True)]
        batches = np.concatenate(parts).reshape(num_steps, size)
        index, count = self.shard
        share = size // count
        return batches[:, index * share : (index + 1) * share]

    def _epoch(self, epoch: int) -> np.ndarray:
        return epoch_order(self.num_examples, self.seed, epoch) if self.labels is None else _balanced(self, epoch)


@functools.lru_cache(maxsize=4)
def _balanced(order: TrainingOrder, epoch: int) -> np.ndarray:
    """The examples int32 [num_examples] of one epoch of equally many of each class, shuffled.

    Each class has a sequence of its own, permutations of its examples without a gap, of which an epoch takes the next
    part. So examples of a class are all used before one comes again. What does not divide goes round the classes.
    """
    assert order.labels is not None
    classes = np.unique(order.labels)
    base, extra = divmod(order.num_examples, len(classes))
    parts = []
    for rank, label in enumerate(classes):
        members = np.flatnonzero(order.labels == label)
        turns = (rank - np.arange(epoch + 1)) % len(classes) < extra  # epochs in which the class has one more
        first, stop = (base * epoch + int(turns[:epoch].sum()), base * (epoch + 1) + int(turns.sum()))
        passes = range(first // len(members), -(-stop // len(members)))
        sequence = [members[_permutation(len(members), order.seed, int(label), number)] for number in passes]
        offset = passes.start * len(members)
        parts.append(np.concatenate([members[:0], *sequence])[first - offset : stop - offset])
    return np.concatenate(parts).astype(np.int32)[epoch_order(order.num_examples, order.seed, epoch)]


def _permutation(size: int, *key: int) -> np.ndarray:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(key))).permutation(size)


@dataclass(frozen=True)
class ViewOrder:
    """Which view of which example each training step sees: in epoch e, example i is seen in view (e + i) mod `views`.

    So each epoch sees each example as `order` does, and `views` epochs in a row see all views of all examples.
    """

    order: TrainingOrder
    views: int

    @property
    def batch_size(self) -> int:
        return self.order.batch_size

    def __call__(self, first_step: int, num_steps: int) -> np.ndarray:
        """Returns int32 [num_steps, batch_size / shards]: view · num_examples + example, for steps first_step, ..."""
        examples = self.order(first_step, num_steps)
        index, count = self.order.shard
        share = self.batch_size // count
        positions = np.arange(first_step * self.batch_size, (first_step + num_steps) * self.batch_size)
        own = positions.reshape(num_steps, -1)[:, index * share : (index + 1) * share]
        views = (own // self.order.num_examples + examples) % self.views
        return (views * self.order.num_examples + examples).astype(np.int32)


def evaluation_batches(num_examples: int, batch_size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields (places int32 [B], mask bool [B]) that cover each example once; the last batch is padded and masked."""
    for first in range(0, num_examples, batch_size):
        places = np.arange(first, first + batch_size, dtype=np.int32)
        yield np.minimum(places, num_examples - 1), places < num_examples
