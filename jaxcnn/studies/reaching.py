"""How fast a training is: the steps that it takes to a level of its loss."""

from collections.abc import Sequence

import numpy as np


def running_mean(losses: Sequence[float], window: int) -> np.ndarray:
    """Returns the mean of each step and those before it, `window` of them at most, float64 [N]."""
    sums = np.concatenate([[0.0], np.cumsum(np.asarray(losses, np.float64))])
    ends = np.arange(1, len(losses) + 1)
    begins = np.maximum(ends - window, 0)
    return (sums[ends] - sums[begins]) / (ends - begins)


def steps_to(losses: Sequence[float], level: float, window: int) -> int | None:
    """Returns the number of steps after which the mean of the last `window` losses is below the level; none: never.

    A mean over fewer steps does not count, and one that is not finite is never below.
    """
    below = np.flatnonzero(running_mean(losses, window)[window - 1 :] < level)
    return int(below[0]) + window if len(below) else None
