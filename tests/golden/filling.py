"""Weights and inputs as functions of (name, shape, seed) in numpy, the same here and under PyTorch and Keras."""

import math
import re
import zlib
from collections.abc import Mapping

import numpy as np

_IN_BRANCH = re.compile(r"(bn|norm)[23]\.weight|_[23]_bn\.scale")
_PERIOD = 65_521  # a prime, so that the rows of a kernel differ


def normal(name: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Returns float32 of about N(0, 1): a block of random numbers, repeated to the shape."""
    draws = np.random.default_rng([zlib.crc32(name.encode()), seed]).standard_normal(_PERIOD, np.float32)
    return np.resize(draws, shape)


def fill(name: str, shape: tuple[int, ...], seed: int = 0, *, inputs_first: bool = False) -> np.ndarray:
    """Returns the values of one tensor by PyTorch's name, so scaled that activations neither vanish nor explode.

    `inputs_first`: the axes are H, W, I, O (Keras), not O, I, H, W.
    """
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    values = normal(name, shape, seed)
    if name.endswith("var"):
        return (0.5 + np.abs(values)).astype(np.float32)
    if len(shape) > 1:
        fan_in = math.prod(shape[:-1] if inputs_first else shape[1:])
        return (values * math.sqrt(2 / fan_in)).astype(np.float32)
    if name.endswith(("weight", "scale")):
        # Small in the branches of residual blocks: else the maps double from block to block, and after 50 blocks
        # rounding is all that is left of a gate or of a gradient.
        return ((0.4 if _IN_BRANCH.search(name) else 1) * (1 + 0.1 * values)).astype(np.float32)
    return (0.1 * values).astype(np.float32)  # bias, running mean


def fingerprint(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Returns one number for all names and shapes of a state dict."""
    return zlib.crc32(repr(sorted((name, tuple(shape)) for name, shape in shapes.items())).encode())


def images(size: int, count: int = 2) -> np.ndarray:
    """Returns normalised images float32 [N, 3, S, S]."""
    return np.random.default_rng([size, count]).standard_normal((count, 3, size, size), np.float32)


def summary(name: str, array: np.ndarray) -> list[float]:
    """Returns the norm of a tensor and its products with two random unit vectors, in PyTorch's layout."""
    flat = np.asarray(array, np.float64).ravel()
    figures = [float(np.linalg.norm(flat))]
    for seed in (101, 102):
        direction = normal(name, flat.shape, seed).astype(np.float64)
        figures.append(float(flat @ direction / np.linalg.norm(direction)))
    return figures
