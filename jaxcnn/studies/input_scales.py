"""Ways to prepare images for a network: right, forgotten, and wrong."""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from jaxcnn.augment.normalise import normalise
from jaxcnn.config import Preprocessing
from jaxcnn.inspection.conditioning import Conditioning, conditioning

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
NORMALISED = "normalised"


@dataclass(frozen=True)
class Way:
    """Images as a network is given them: (x - mean) / std in units of 0..1."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    first: Conditioning
    """Of a first convolution of 3x3."""


def ways(measured: Preprocessing, images: np.ndarray) -> dict[str, Way]:
    """Returns ways to prepare images uint8 [N, H, W, C] of the statistics that were measured, by name."""
    count = len(measured.mean)
    mean, std = IMAGENET if count == 3 else (tuple([float(np.mean(one))] * count) for one in IMAGENET)
    statistics = {
        "0 to 255": ((0.0,) * count, (1 / 255,) * count),
        "0 to 1": ((0.0,) * count, (1.0,) * count),
        NORMALISED: (measured.mean, measured.std),
        "ImageNet's": (mean, std),
        "wrong unit": tuple(tuple(255 * one for one in each) for each in (measured.mean, measured.std)),
    }
    return {
        name: Way(own[0], own[1], conditioning(np.asarray(normalise(jnp.asarray(images), own[0], own[1]))))
        for name, own in statistics.items()
    }
