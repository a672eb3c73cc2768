"""What is done at random to training images: the part of a config that `augment/` works by.

One frozen dataclass an operation, off at `prob=0`, with its strength and its paper.
"""

from dataclasses import dataclass, field
from typing import Annotated

from annotated_types import Ge, Interval

from jaxcnn.config_strict import Count, Probability, Strict


@dataclass(frozen=True)
class PadCropConfig(Strict):
    """Zero-pad each side, then crop the original size at a random place (He et al. 2015, section 4.2)."""

    prob: Probability = 1.0
    """Probability for each image; 0 turns the operation off."""
    pad_px: Annotated[int, Ge(0)] = 2
    """Padding of each side in pixels, so the largest shift; 4 is usual for 32x32."""


@dataclass(frozen=True)
class AffineConfig(Strict):
    """Rotate, scale and shear about the centre, in one bilinear warp; amounts are uniform between minus and plus."""

    prob: Probability = 0.9
    """Probability for each image; 0 turns the operation off."""
    rotation_deg: Annotated[float, Interval(ge=0, le=180)] = 15.0
    """Largest rotation in degrees."""
    scale: Annotated[float, Interval(ge=0, lt=1)] = 0.15
    """Largest relative change of size, the same along both axes: 0.15 is 0.85 to 1.15 times."""
    shear_deg: Annotated[float, Interval(ge=0, le=60)] = 12.0
    """Largest horizontal shear in degrees."""


@dataclass(frozen=True)
class FlipConfig(Strict):
    """Mirror left and right."""

    prob: Probability = 0.0
    """Probability for each image; 0.5 is usual where a mirrored object is still the object (not for digits)."""


@dataclass(frozen=True)
class CutoutConfig(Strict):
    """Blank one square at a random place (DeVries & Taylor 2017)."""

    prob: Probability = 0.0
    """Probability for each image; 0 turns the operation off."""
    size_px: Count = 8
    """Side of the square in pixels; its centre lies anywhere in the image, so it may be cut by the border."""


@dataclass(frozen=True)
class AugmentConfig(Strict):
    """Random changes to training images, on the device, in this order; then per-channel normalisation."""

    pad_crop: PadCropConfig = field(default_factory=PadCropConfig)
    """Shift by zero-padding and cropping."""
    affine: AffineConfig = field(default_factory=AffineConfig)
    """Rotate, scale and shear."""
    flip: FlipConfig = field(default_factory=FlipConfig)
    """Mirror left and right."""
    cutout: CutoutConfig = field(default_factory=CutoutConfig)
    """Blank a square."""
