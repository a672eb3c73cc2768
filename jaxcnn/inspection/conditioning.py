"""How well a linear layer is conditioned by what it is given: the second moments of image patches.

A convolution is a linear layer on patches p: y = w·p + b. Of the squared error of such a layer the Hessian is the
second moment E[q qᵀ] of q = (p, 1), whatever the targets are. Gradient descent on it is stable below a rate of
2 / (its largest eigenvalue) and needs a number of steps that grows with the ratio of the largest eigenvalue to the
smallest (LeCun et al. 1998, "Efficient BackProp", sections 4.3 and 5.1). A mean that is not zero is what makes the
largest one large.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Conditioning:
    """Eigenvalues of a matrix of second moments, in ascending order: float64 [K]."""

    eigenvalues: np.ndarray

    @property
    def largest(self) -> float:
        return float(self.eigenvalues[-1])

    @property
    def smallest(self) -> float:
        return float(self.eigenvalues[0])

    @property
    def number(self) -> float:
        """The largest over the smallest eigenvalue; infinite where that is zero, or lost by rounding."""
        lost = self.smallest <= np.finfo(np.float64).eps * self.largest * len(self.eigenvalues)
        return float("inf") if lost else self.largest / self.smallest


def patches(images: np.ndarray, size: int = 3) -> np.ndarray:
    """Returns all patches inside images [N, H, W, C] as float64 [N·(H-size+1)·(W-size+1), size·size·C].

    Raises:
      ValueError: a patch is larger than an image.
    """
    if min(images.shape[1:3]) < size:
        raise ValueError(f"{size=} must not be above the sides of images {images.shape[1:3]}")
    windows = np.lib.stride_tricks.sliding_window_view(images, (size, size), axis=(1, 2))  # [N, h, w, C, size, size]
    return windows.reshape(-1, images.shape[3] * size * size).astype(np.float64)


def second_moments(inputs: np.ndarray, *, bias: bool = True) -> np.ndarray:
    """Returns E[q qᵀ] float64 [K + 1, K + 1] of inputs [M, K], where q is an input and, for the bias, a 1 after it."""
    if bias:
        inputs = np.concatenate([inputs, np.ones((len(inputs), 1))], axis=1)
    return inputs.T @ inputs / len(inputs)


def conditioning(images: np.ndarray, size: int = 3, *, bias: bool = True) -> Conditioning:
    """Returns the conditioning of a first convolution of a size by images as the network is given them, [N, H, W, C].

    For white noise of deviation s around m it is known: K eigenvalues are s² but the one that mean and bias share, so
    that without a bias the number is 1 + K m² / s².
    """
    return Conditioning(np.linalg.eigvalsh(second_moments(patches(images, size), bias=bias)))
