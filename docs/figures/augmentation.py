"""Draws docs/figures/augmentation_*.jpg from a folder of photos: one figure a family, by the code that trains.

    python docs/figures/augmentation.py FOLDER [--size 128] [--seed 0]

Each row is an operation, applied to every image with the probability and strength in its label; the first row is what
goes in. FOLDER is searched for .jpg and .png files, of which the first with enough pixels and most colour are taken.
"""

import argparse
import dataclasses
import io
from pathlib import Path

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from jaxcnn import config_augment as configs
from jaxcnn.augment import make_augment
from jaxcnn.config import AugmentConfig

OFF = AugmentConfig(configs.PadCropConfig(0.0), configs.AffineConfig(0.0))
COLUMNS = 8
FAMILIES: dict[str, list[tuple[str, dict[str, object]]]] = {
    "geometric": [
        ("pad_crop, 16 px", {"pad_crop": configs.PadCropConfig(1.0, 16)}),
        ("flip", {"flip": configs.FlipConfig(0.5)}),
        ("vertical_flip", {"vertical_flip": configs.VerticalFlipConfig(0.5)}),
        ("rotation, 30°", {"affine": configs.AffineConfig(1.0, 30.0, 0.0, 0.0)}),
        ("scale, 0.3", {"affine": configs.AffineConfig(1.0, 0.0, 0.3, 0.0)}),
        ("shear, 25°", {"affine": configs.AffineConfig(1.0, 0.0, 0.0, 25.0)}),
        ("translate, 0.2", {"affine": configs.AffineConfig(1.0, 0.0, 0.0, 0.0, 0.2)}),
    ],
    "crops": [
        ("area 0.08 to 1", {"resized_crop": configs.ResizedCropConfig(1.0)}),
        ("area 0.35 to 1", {"resized_crop": configs.ResizedCropConfig(1.0, (0.35, 1.0))}),
        ("aspect 0.5 to 2", {"resized_crop": configs.ResizedCropConfig(1.0, (0.35, 1.0), (0.5, 2.0))}),
    ],
    "colour": [
        ("brightness, 0.4", {"brightness": configs.BrightnessConfig(1.0)}),
        ("contrast, 0.8", {"contrast": configs.ContrastConfig(1.0, 0.8)}),
        ("saturation, 1", {"saturation": configs.SaturationConfig(1.0, 1.0)}),
        ("hue, 0.1", {"hue": configs.HueConfig(1.0)}),
        ("hue, 0.5", {"hue": configs.HueConfig(1.0, 0.5)}),
        ("grayscale", {"grayscale": configs.GrayscaleConfig(0.5)}),
    ],
    "blur_erasing": [
        ("blur, 0.1 to 4 px", {"blur": configs.BlurConfig(1.0, (0.1, 4.0))}),
        ("cutout, 44 px", {"cutout": configs.CutoutConfig(1.0, 44)}),
        ("erasing, mean", {"erasing": configs.ErasingConfig(1.0)}),
        ("erasing, noise", {"erasing": configs.ErasingConfig(1.0, fill="noise")}),
    ],
    "mixing": [
        ("mixup, alpha 0.2", {"mixup": configs.MixupConfig(1.0)}),
        ("mixup, alpha 1", {"mixup": configs.MixupConfig(1.0, 1.0)}),
        ("cutmix, alpha 1", {"cutmix": configs.CutmixConfig(1.0)}),
        ("half and half", {"mixup": configs.MixupConfig(0.5), "cutmix": configs.CutmixConfig(0.5)}),
    ],
    "policies": [
        ("randaugment, 1 of 9", {"randaugment": configs.RandAugmentConfig(1.0, 1)}),
        ("randaugment, 2 of 9", {"randaugment": configs.RandAugmentConfig(1.0)}),
        ("randaugment, 2 of 20", {"randaugment": configs.RandAugmentConfig(1.0, 2, 20)}),
        ("trivialaugment", {"trivialaugment": configs.TrivialAugmentConfig(1.0)}),
        ("trivialaugment, again", {"trivialaugment": configs.TrivialAugmentConfig(1.0)}),
    ],
}


def main() -> None:
    """Reads the photos and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, default=128, help="side of the images in pixels")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    found = parser.parse_args()
    photos = read_photos(found.folder, found.size)
    for name, rows in FAMILIES.items():
        drawn = io.BytesIO()
        draw(photos, rows, found.seed, name == "crops").savefig(drawn)
        Image.open(drawn).convert("RGB").save(found.out / f"augmentation_{name}.jpg", quality=88)


def read_photos(folder: Path, size: int, at_most: int = 400) -> np.ndarray:
    """Returns uint8 [COLUMNS, S, S, 3] RGB: centre crops of the most colourful photos, one a subfolder while there are.

    Raises:
      SystemExit: there are too few photos.
    """
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in (".jpg", ".jpeg", ".png"))
    candidates: dict[Path, list[tuple[float, np.ndarray]]] = {}
    for file in files[:: max(1, len(files) // at_most)]:
        image = cv2.imread(str(file), cv2.IMREAD_COLOR_RGB)
        if image is None or min(image.shape[:2]) < size:
            continue
        side = min(image.shape[:2])
        top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
        square = cv2.resize(image[top : top + side, left : left + side], (size, size), interpolation=cv2.INTER_AREA)
        colourful = float(np.mean(np.ptp(square.astype(np.float32), axis=-1)) + square.std())
        candidates.setdefault(file.parent, []).append((colourful, square))
    ranked = [sorted(group, key=lambda pair: -pair[0]) for group in candidates.values()]
    chosen = [group[place][1] for place in range(COLUMNS) for group in ranked if place < len(group)][:COLUMNS]
    if len(chosen) < COLUMNS:
        raise SystemExit(f"{folder}: {len(chosen)} photos of at least {size} pixels; {COLUMNS} are needed")
    return np.stack(chosen)


def draw(photos: np.ndarray, rows: list[tuple[str, dict[str, object]]], seed: int, crops: bool) -> Figure:
    """Returns a figure: the photos, and a row for each operation; under a mixed image the share of its own label."""
    size = photos.shape[1]
    figure = Figure(figsize=(12, 1.42 * (len(rows) + 1)), dpi=80, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.015, h_pad=0.015, wspace=0.01, hspace=0.01)
    axes = figure.subplots(len(rows) + 1, COLUMNS)
    show(axes[0], "original", photos, None)
    for index, (label, fields) in enumerate(rows):
        config = dataclasses.replace(OFF, **fields)
        shape = (size * 3 // 4, size * 3 // 4, 3) if crops else photos.shape[1:]
        statistics = tuple(photos.mean((0, 1, 2)) / 255), tuple(photos.std((0, 1, 2)) / 255)
        augment = jax.jit(make_augment(config, *statistics, shape))
        images, mix = augment(jax.random.fold_in(jax.random.key(seed), index), jnp.asarray(photos))
        pixels = np.asarray(images) * statistics[1] + statistics[0]
        show(axes[1 + index], label, pixels.clip(0, 1), None if mix is None else np.asarray(mix.share))
    return figure


def show(axes: np.ndarray, label: str, images: np.ndarray, shares: np.ndarray | None) -> None:
    """Draws one row."""
    for place, (axis, image) in enumerate(zip(axes, images, strict=True)):
        axis.imshow(image)
        axis.set_xticks([])
        axis.set_yticks([])
        axis.spines[:].set_visible(False)
        if shares is not None:
            axis.set_xlabel(f"{shares[place]:.2f} own", fontsize=9, labelpad=2)
    axes[0].set_ylabel(label, fontsize=9)


if __name__ == "__main__":
    main()
