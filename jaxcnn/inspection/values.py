"""Figures of the numbers in an array, in a form in which those of several arrays can be put together."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Values:
    """Figures of numbers.

    Attributes:
      count: how many there are.
      nonfinite: how many of them are NaN or infinite; all that follows is of the others.
      zeros: how many are 0.
      mean, low, high: mean, smallest and largest; NaN where there is no finite number.
      squares: the sum of squared deviations from the mean.
    """

    count: int
    nonfinite: int
    zeros: int
    mean: float
    low: float
    high: float
    squares: float

    @property
    def finite(self) -> int:
        return self.count - self.nonfinite

    @property
    def std(self) -> float:
        """Standard deviation of the finite numbers, about their own mean."""
        return math.sqrt(self.squares / self.finite) if self.finite else math.nan

    @property
    def zero_share(self) -> float:
        """Part of the numbers that are 0."""
        return self.zeros / self.count if self.count else math.nan


def values_of(array: np.ndarray) -> Values:
    """Returns the figures of an array of any shape and numeric type, computed in float64."""
    numbers = np.asarray(array).astype(np.float64).ravel()
    finite = numbers[np.isfinite(numbers)]
    if not finite.size:
        return Values(numbers.size, numbers.size, 0, math.nan, math.nan, math.nan, 0.0)
    mean = float(finite.mean())
    return Values(
        count=numbers.size,
        nonfinite=numbers.size - finite.size,
        zeros=int(finite.size - np.count_nonzero(finite)),
        mean=mean,
        low=float(finite.min()),
        high=float(finite.max()),
        squares=float(np.square(finite - mean).sum()),
    )


def pooled(parts: Iterable[Values]) -> Values:
    """Returns the figures of all numbers of several arrays together (squares: Chan et al. 1979, equation 2.1)."""
    parts = list(parts)
    held = [part for part in parts if part.finite]
    finite = sum(part.finite for part in held)
    mean = sum(part.finite * part.mean for part in held) / finite if finite else math.nan
    return Values(
        count=sum(part.count for part in parts),
        nonfinite=sum(part.nonfinite for part in parts),
        zeros=sum(part.zeros for part in parts),
        mean=mean,
        low=min((part.low for part in held), default=math.nan),
        high=max((part.high for part in held), default=math.nan),
        squares=sum(part.squares + part.finite * (part.mean - mean) ** 2 for part in held),
    )


def expected_values(count: int, mean: float, std: float) -> Values:
    """Returns what is expected of `count` numbers of a mean and a standard deviation, to be pooled with others."""
    return Values(count, 0, 0, mean, math.nan, math.nan, count * std**2)
