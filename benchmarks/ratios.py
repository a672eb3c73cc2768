"""Turns in rotation and what is made of their times."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Ratio:
    """The median of the ratios of two candidates, with the 16th and the 84th percentile."""

    median: float
    low: float
    high: float


def orders(names: Sequence[str], rounds: int, seed: int = 0) -> Iterator[list[str]]:
    """Yields the order of each round: all names once, drawn anew, so that none always follows the same other."""
    shuffler = random.Random(seed)
    for _ in range(rounds):
        order = list(names)
        shuffler.shuffle(order)
        yield order


def pairwise(baseline: Sequence[float], candidate: Sequence[float]) -> Ratio:
    """Returns how many times faster than the baseline a candidate is, round by round.

    What slows the machine for some rounds slows both of a pair, and leaves their ratio.

    Args:
      baseline, candidate: seconds of a step, one entry a round, in the same order.
    """
    ratios = np.asarray(baseline) / np.asarray(candidate)
    low, median, high = np.percentile(ratios, [16, 50, 84])
    return Ratio(float(median), float(low), float(high))
