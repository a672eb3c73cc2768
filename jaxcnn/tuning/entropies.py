"""What a loss is held against: entropies of labels, and examples of which each class has as many."""

import math

import numpy as np


def least_loss(smoothing: float, num_classes: int) -> float:
    """Returns the least cross-entropy that smoothed labels allow: the entropy of (1 - s) onehot + s / K, in nats."""
    other = smoothing / num_classes
    own = 1 - smoothing + other
    return -own * math.log(own) - (num_classes - 1) * (other * math.log(other) if other else 0.0)


def entropy_of(labels: np.ndarray) -> float:
    """Returns the entropy in nats of the shares of the classes of labels [N]."""
    shares = np.bincount(labels) / len(labels)
    return float(-sum(share * math.log(share) for share in shares if share))


def balanced(labels: np.ndarray, places: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Returns [count] of `places` in which classes take turns, so that their mean loss is the class-balanced one.

    Args:
      labels: of all examples.
      places: int, of the examples to choose from; those of a rare class come again and again.
      count: how many.
      seed: of the order within each class.
    """
    rng, own = np.random.default_rng(seed), labels[places]
    classes = np.unique(own)
    turns = -(-count // len(classes))
    columns = [np.resize(rng.permutation(places[own == each]), turns) for each in classes]
    return np.stack(columns, axis=1).ravel()[:count]
