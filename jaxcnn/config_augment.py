"""What is done at random to training images: the part of a config that `augment/` works by.

One frozen dataclass an operation, off at `prob=0`, with its strength and its paper.
"""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge, Interval

from jaxcnn.config_strict import Count, Positive, Probability, Strict

Share = Annotated[float, Interval(gt=0.0, le=1.0)]
Strength = Annotated[float, Interval(ge=0.0, le=1.0)]


@dataclass(frozen=True)
class PadCropConfig(Strict):
    """Zero-pad each side, then crop the original size at a random place (He et al. 2015, section 4.2)."""

    prob: Probability = 1.0
    """Probability for each image; 0 turns the operation off."""
    pad_px: Annotated[int, Ge(0)] = 2
    """Padding of each side in pixels, so the largest shift; 4 is usual for 32x32."""


@dataclass(frozen=True)
class AffineConfig(Strict):
    """Rotate, scale, shear and shift about the centre, in one bilinear warp; amounts are uniform in minus to plus."""

    prob: Probability = 0.9
    """Probability for each image; 0 turns the operation off."""
    rotation_deg: Annotated[float, Interval(ge=0, le=180)] = 15.0
    """Largest rotation in degrees."""
    scale: Annotated[float, Interval(ge=0, lt=1)] = 0.15
    """Largest relative change of size, the same along both axes: 0.15 is 0.85 to 1.15 times."""
    shear_deg: Annotated[float, Interval(ge=0, le=60)] = 12.0
    """Largest horizontal shear in degrees."""
    translate: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    """Largest shift along each axis, as a share of that side: 0.1 is 3.2 pixels of 32."""


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
class ResizedCropConfig(Strict):
    """Crop a rectangle of random area and shape, resize it to the input size (Szegedy et al. 2014, section 6)."""

    prob: Probability = 0.0
    """Probability for each image; the others get the largest centre crop of the input's shape, resized."""
    area: tuple[Share, Share] = (0.08, 1.0)
    """Smallest and largest share of the image's area that is kept; 0.35 to 1 is milder, for short runs."""
    aspect: tuple[Positive, Positive] = (0.75, 4 / 3)
    """Smallest and largest width over height of what is cropped; its logarithm is uniform."""


@dataclass(frozen=True)
class VerticalFlipConfig(Strict):
    """Mirror top and bottom."""

    prob: Probability = 0.0
    """Probability for each image; for images without an up, such as those from microscopes and satellites."""


@dataclass(frozen=True)
class RandAugmentConfig(Strict):
    """A few operations of 14, drawn for each image, all of one magnitude (Cubuk et al. 2019); as in torchvision."""

    prob: Probability = 0.0
    """Probability for each image; the paper's is 1. Excludes trivialaugment."""
    num_ops: Annotated[int, Interval(ge=1, le=8)] = 2
    """Operations one after the other, drawn with replacement: N of the paper."""
    magnitude: Annotated[int, Interval(ge=0, le=30)] = 9
    """Strength of all of them, 0 to 30: M of the paper. 9 is for ImageNet; small networks want less."""


@dataclass(frozen=True)
class TrivialAugmentConfig(Strict):
    """One operation of 14 at a random magnitude, the wide space (Müller & Hutter 2021); as in torchvision."""

    prob: Probability = 0.0
    """Probability for each image; the paper's is 1. Excludes randaugment."""


@dataclass(frozen=True)
class BrightnessConfig(Strict):
    """Multiply the pixels by a factor (colour jitter, Krizhevsky et al. 2012 and Howard 2013)."""

    prob: Probability = 0.0
    """Probability for each image; 0 turns the operation off."""
    strength: Strength = 0.4
    """The factor is uniform in 1 - strength to 1 + strength."""


@dataclass(frozen=True)
class ContrastConfig(Strict):
    """Blend with the image's mean grey, or away from it (Howard 2013)."""

    prob: Probability = 0.0
    """Probability for each image; 0 turns the operation off."""
    strength: Strength = 0.4
    """The weight of the image is uniform in 1 - strength to 1 + strength."""


@dataclass(frozen=True)
class SaturationConfig(Strict):
    """Blend with the image in grey, or away from it (Howard 2013); grey images stay as they are."""

    prob: Probability = 0.0
    """Probability for each image; 0 turns the operation off."""
    strength: Strength = 0.4
    """The weight of the image is uniform in 1 - strength to 1 + strength."""


@dataclass(frozen=True)
class HueConfig(Strict):
    """Turn all hues by one angle (Szegedy et al. 2014's photometric distortions); grey images stay as they are."""

    prob: Probability = 0.0
    """Probability for each image; 0 turns the operation off."""
    shift: Annotated[float, Interval(ge=0.0, le=0.5)] = 0.1
    """Largest turn either way, as a share of the colour circle; 0.5 reaches every hue."""


@dataclass(frozen=True)
class GrayscaleConfig(Strict):
    """Replace the colours by their luma, in all channels (Chen et al. 2020, SimCLR, appendix A)."""

    prob: Probability = 0.0
    """Probability for each image; 0.2 is SimCLR's."""


@dataclass(frozen=True)
class BlurConfig(Strict):
    """Gaussian blur (Chen et al. 2020, SimCLR, appendix A); the border is mirrored."""

    prob: Probability = 0.0
    """Probability for each image; 0.5 is SimCLR's."""
    sigma_px: tuple[Positive, Positive] = (0.1, 2.0)
    """Smallest and largest standard deviation in pixels, uniform between; 2 is for 224x224."""


@dataclass(frozen=True)
class ErasingConfig(Strict):
    """Blank a rectangle of random area and shape that lies inside the image (Zhong et al. 2017)."""

    prob: Probability = 0.0
    """Probability for each image; the paper's is 0.5."""
    area: tuple[Share, Share] = (0.02, 0.4)
    """Smallest and largest share of the image's area that is blanked."""
    aspect: tuple[Positive, Positive] = (0.3, 10 / 3)
    """Smallest and largest width over height of the rectangle; its logarithm is uniform."""
    fill: Literal["mean", "noise"] = "mean"
    """mean: the mean of the data; noise: uniform noise with the mean and variance of the data, slower on CPU."""


@dataclass(frozen=True)
class MixupConfig(Strict):
    """Blend an image with another of the batch, and their labels with it (Zhang et al. 2017)."""

    prob: Probability = 0.0
    """Probability for each image; mixup.prob + cutmix.prob is at most 1: an image gets one of them."""
    alpha: Positive = 0.2
    """The share of the image is Beta(alpha, alpha): below 1 mostly near 0 or 1; 0.1 to 0.4 for ImageNet."""


@dataclass(frozen=True)
class CutmixConfig(Strict):
    """Paste a rectangle of another image of the batch, and mix the labels by area (Yun et al. 2019)."""

    prob: Probability = 0.0
    """Probability for each image; mixup.prob + cutmix.prob is at most 1: an image gets one of them."""
    alpha: Positive = 1.0
    """The share kept, before the border cuts the rectangle, is Beta(alpha, alpha); 1 is uniform, as in the paper."""


@dataclass(frozen=True)
class AugmentConfig(Strict):
    """Random changes to training images, on the device; the order is that of `augment/pipeline.py`, not of the fields.

    resized_crop, pad_crop, affine, flip, vertical_flip; randaugment or trivialaugment; brightness, contrast,
    saturation, hue, grayscale; blur; normalisation a channel; cutout, erasing; mixup or cutmix.
    """

    pad_crop: PadCropConfig = field(default_factory=PadCropConfig)
    """Shift by zero-padding and cropping."""
    affine: AffineConfig = field(default_factory=AffineConfig)
    """Rotate, scale, shear and shift."""
    flip: FlipConfig = field(default_factory=FlipConfig)
    """Mirror left and right."""
    cutout: CutoutConfig = field(default_factory=CutoutConfig)
    """Blank a square."""
    resized_crop: ResizedCropConfig = field(default_factory=ResizedCropConfig)
    """Crop a random rectangle and resize it."""
    vertical_flip: VerticalFlipConfig = field(default_factory=VerticalFlipConfig)
    """Mirror top and bottom."""
    randaugment: RandAugmentConfig = field(default_factory=RandAugmentConfig)
    """A few random operations of one magnitude."""
    trivialaugment: TrivialAugmentConfig = field(default_factory=TrivialAugmentConfig)
    """One random operation of random magnitude."""
    brightness: BrightnessConfig = field(default_factory=BrightnessConfig)
    """Darker or brighter."""
    contrast: ContrastConfig = field(default_factory=ContrastConfig)
    """Less or more contrast."""
    saturation: SaturationConfig = field(default_factory=SaturationConfig)
    """Paler or more vivid."""
    hue: HueConfig = field(default_factory=HueConfig)
    """Turn the colours."""
    grayscale: GrayscaleConfig = field(default_factory=GrayscaleConfig)
    """Without colour."""
    blur: BlurConfig = field(default_factory=BlurConfig)
    """Out of focus."""
    erasing: ErasingConfig = field(default_factory=ErasingConfig)
    """Blank a rectangle."""
    mixup: MixupConfig = field(default_factory=MixupConfig)
    """Blend two images and their labels."""
    cutmix: CutmixConfig = field(default_factory=CutmixConfig)
    """Paste a part of another image, with its share of the label."""
