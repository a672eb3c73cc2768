"""Axes of a tensor here and elsewhere.

| layout        | here (rows)       | there (PyTorch)   | what |
| same          | any               | any               | vectors, and Keras, whose axes are ours |
| conv          | H, W, I/G, O      | O, I/G, H, W      | convolution |
| dense         | I, O              | O, I              | dense layer |
| dense_as_conv | I, O              | O, I, 1, 1        | dense layer that is a 1x1 convolution there |
| map           | H·W·C, O          | O, C·H·W          | dense layer on a flattened map of H = W = 7 |
| map_as_conv   | H·W·C, O          | O, C, 7, 7        | the same as a 7x7 convolution |
"""

import numpy as np

from jaxcnn.weights.names import Layout

_MAP_SIDE = 7  # of the map that VGG's first dense layer sees (`adaptive_mean(x, 7)`)


def to_ours(array: np.ndarray, layout: Layout) -> np.ndarray | None:
    """Returns a tensor from elsewhere with our axes (a view where possible); none if it has another rank."""
    ranks = {"conv": 4, "dense": 2, "dense_as_conv": 4, "map": 2, "map_as_conv": 4}
    if array.ndim != ranks.get(layout, array.ndim):
        return None
    if layout == "conv":
        return array.transpose(2, 3, 1, 0)
    if layout == "dense":
        return array.T
    if layout == "map":
        if array.shape[1] % _MAP_SIDE**2:
            return None
        array = array.reshape(array.shape[0], -1, _MAP_SIDE, _MAP_SIDE)
    if layout in ("map", "map_as_conv", "dense_as_conv"):
        return array.transpose(2, 3, 1, 0).reshape(-1, array.shape[0])
    return array


def to_theirs(array: np.ndarray, layout: Layout) -> np.ndarray:
    """Returns one of our leaves with the axes it has elsewhere, contiguous: the inverse of `to_ours`."""
    if layout == "conv":
        array = array.transpose(3, 2, 0, 1)
    elif layout == "dense":
        array = array.T
    elif layout != "same":
        side = 1 if layout == "dense_as_conv" else _MAP_SIDE
        array = array.reshape(side, side, -1, array.shape[1]).transpose(3, 2, 0, 1)  # [O, C, H, W]
        if layout == "map":
            array = array.reshape(array.shape[0], -1)
    return np.ascontiguousarray(array)
