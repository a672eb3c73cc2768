"""The random changes to images that are compared with each other, each alone and some together."""

import dataclasses
from typing import Any

from jaxcnn.config import (
    AffineConfig,
    AugmentConfig,
    BrightnessConfig,
    ContrastConfig,
    CutmixConfig,
    CutoutConfig,
    FlipConfig,
    MixupConfig,
    PadCropConfig,
    RandAugmentConfig,
    SaturationConfig,
    TrivialAugmentConfig,
)
from jaxcnn.studies.setting import AS_THEY_ARE

NOT_MIRRORED = ("mnist", "mnist5k", "emnist", "kmnist", "svhn_cropped")
"""Data sets whose classes depend on left and right."""


def operations(pad_px: int, hole_px: int, *, mirrored: bool) -> dict[str, AugmentConfig]:
    """Returns what is compared, by name: nothing, each operation alone, some together.

    Args:
      pad_px: largest shift of crops.
      hole_px: side of cutout's square.
      mirrored: whether a mirror image is of the same class, so that flips are among those together.
    """
    part: dict[str, dict[str, Any]] = {
        "crop": {"pad_crop": PadCropConfig(1.0, pad_px)},
        "flip": {"flip": FlipConfig(0.5)},
        "affine": {"affine": AffineConfig(0.9)},
        "colour": {
            "brightness": BrightnessConfig(0.8),
            "contrast": ContrastConfig(0.8),
            "saturation": SaturationConfig(0.8),
        },
        "cutout": {"cutout": CutoutConfig(1.0, hole_px)},
        "mixup": {"mixup": MixupConfig(1.0, 0.2)},
        "cutmix": {"cutmix": CutmixConfig(0.5)},
        "randaugment": {"randaugment": RandAugmentConfig(1.0, 2, 5)},
        "trivialaugment": {"trivialaugment": TrivialAugmentConfig(1.0)},
    }
    part["crop + flip"] = part["crop"] | part["flip"]
    part["together"] = part["crop"] | (part["flip"] if mirrored else part["affine"]) | part["randaugment"]
    if mirrored:
        part["together"] |= part["cutout"]
    return {"none": AS_THEY_ARE, **{name: dataclasses.replace(AS_THEY_ARE, **own) for name, own in part.items()}}
