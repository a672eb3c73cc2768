"""The weight of an example's loss by its class, against imbalance."""

from collections.abc import Sequence

import numpy as np

from jaxcnn.errors import InputError


def class_weights(counts: Sequence[int], kind: str) -> tuple[float, ...] | None:
    """Returns a weight for each class, whose mean over the examples is 1; none for kind "none".

    A class without examples has weight 0: no example of it has a loss.

    Args:
      counts: examples of each class in the training split.
      kind: "balanced": N / (K n_c), so that all classes have the same share of the loss (King & Zeng 2001);
        "effective": in proportion to (1 - b) / (1 - b^n_c) with b = (N - 1) / N, the inverse of the effective number
        of examples (Cui et al. 2019, section 3); N is the number of all examples, K that of the classes with some.

    Raises:
      InputError: kind is none of these.
    """
    if kind == "none":
        return None
    number = np.asarray(counts, np.float64)
    total = number.sum()
    present = number > 0
    if kind == "balanced":
        inverse = 1 / np.maximum(number, 1)
    elif kind == "effective":
        decay = (total - 1) / total
        inverse = (1 - decay) / (1 - decay ** np.maximum(number, 1))
    else:
        raise InputError(f"train.class_weights={kind!r}: none, balanced or effective")
    weights = np.where(present, inverse, 0.0)
    return tuple((weights * total / (weights @ number)).tolist())
