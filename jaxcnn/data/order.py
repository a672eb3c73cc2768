"""Which examples each step sees.

The order is a pure function of (seed, epoch): the permutations of the epochs follow each other without a gap, and
batch i takes examples [i·B, (i+1)·B) of that sequence. So nothing is dropped, nothing is padded, and one integer, the
step, is the whole position.
"""

import functools
from collections.abc import Iterator

import numpy as np


@functools.lru_cache(maxsize=4)
def epoch_order(num_examples: int, seed: int, epoch: int) -> np.ndarray:
    """Returns the permutation int32 [num_examples] of one epoch."""
    bits = np.random.Philox(key=np.array([seed, epoch], np.uint64))
    return np.random.Generator(bits).permutation(num_examples).astype(np.int32)


def training_places(
    num_examples: int, batch_size: int, seed: int, first_step: int, num_steps: int, shard: tuple[int, int] = (0, 1)
) -> np.ndarray:
    """Returns int32 [num_steps, batch_size / shards]: the examples that steps first_step, ... see.

    Args:
      num_examples, batch_size, seed: what the order is a function of.
      first_step, num_steps: which part of it.
      shard: (index, count): this host's part of each batch; the parts in order are the batch.
    """
    first, stop = first_step * batch_size, (first_step + num_steps) * batch_size
    epochs = range(first // num_examples, -(-stop // num_examples))
    sequence = np.concatenate([epoch_order(num_examples, seed, epoch) for epoch in epochs])
    offset = epochs.start * num_examples
    batches = sequence[first - offset : stop - offset].reshape(num_steps, batch_size)
    index, count = shard
    share = batch_size // count
    return batches[:, index * share : (index + 1) * share]


def evaluation_batches(num_examples: int, batch_size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields (places int32 [B], mask bool [B]) that cover each example once; the last batch is padded and masked."""
    for first in range(0, num_examples, batch_size):
        places = np.arange(first, first + batch_size, dtype=np.int32)
        yield np.minimum(places, num_examples - 1), places < num_examples
