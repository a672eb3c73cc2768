"""Values of several seeds: their mean, their spread, and whether two groups lie apart."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Spread:
    """The values of one figure, one a seed."""

    values: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.values:
            raise ValueError("no values")

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        return cls(tuple(float(value) for value in values))

    @property
    def mean(self) -> float:
        return float(np.mean(self.values))

    @property
    def std(self) -> float:
        """The standard deviation of a sample, with n - 1; 0 of a single value."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else 0.0

    @property
    def low(self) -> float:
        return min(self.values)

    @property
    def high(self) -> float:
        return max(self.values)

    def percent(self) -> str:
        """Returns shares in 0..1 as "61.2 ± 0.4 %"."""
        return f"{self.text(100, '.1f')} %"

    def text(self, factor: float = 1.0, form: str = ".3g") -> str:
        """Returns "mean ± std" of the values times a factor; of a single value that alone."""
        if len(self.values) == 1:
            return format(factor * self.mean, form)
        return f"{factor * self.mean:{form}} ± {factor * self.std:{form}}"


def beyond_spread(higher: Spread, lower: Spread) -> bool | None:
    """Returns whether each value of one is above each of the other; none where one of them has a single value.

    With three seeds each, chance alone would order them so in 1 of 20 cases. A value that is not a number orders
    nothing: then it is not so.
    """
    if min(len(higher.values), len(lower.values)) < 2:
        return None
    if any(math.isnan(value) for value in (*higher.values, *lower.values)):
        return False
    return higher.low > lower.high
