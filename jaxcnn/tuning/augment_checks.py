"""Check of augmentation: do its draws still show what the images show?"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn.tuning.findings import Finding, Verdict
from jaxcnn.tuning.passes import some
from jaxcnn.tuning.subject import Subject

_DRAWS = 4
_EDGES = 0.2
_LOST = (0.2, 0.25)
_COVERED = (0.7, 0.6)
"""Warn and fail: above such a share of lost draws, below such a covered area."""
_STEP = 0.004  # of a normalised value; one of 256 levels is some 0.016


def augmentation_keeps_content(subject: Subject) -> Finding:
    """Augmented draws still show what the image shows, as far as edges tell.

    The total variation of a draw, the sum of its differences between neighbours (Rudin et al. 1992), against that of
    the image: a crop of a share a of the area keeps about sqrt(a) of it, a blank square takes its part away, and
    shifts, flips, colours and warps change it little. A draw with less than a fifth is lost; warn from 20 % of lost
    draws, fail from 25 %. And the area in which neighbours differ at all, against that in the image (at most all of
    it), on average: warn below 0.7, fail below 0.6, as of a cutout as large as the image.

    On digits, CIFAR-10 and photos none of the usual augmentations come near: random resized crops from 8 % of the area,
    RandAugment, TrivialAugment, cutout of half the side, erasing, colour jitter, mixup, cutmix and blur lose up to 17 %
    of the draws and keep 0.78 of the area. Whether the label survives only eyes can tell: `jaxcnn data preview`.
    """
    batch = some(subject, 48)
    images = np.asarray(subject.normalise(batch.images), np.float64)
    augment = jax.jit(subject.augment)
    keys = jax.random.split(jax.random.key(subject.seed), _DRAWS)
    draws = [np.asarray(augment(key, jnp.asarray(batch.images))[0], np.float64) for key in keys]
    edges, area = _edges(images), _area(images)
    seen = (edges > 0) & (area > 0)  # an image of one colour has nothing to lose
    if not seen.any():
        return Finding(
            "augmentation keeps content",
            "fail",
            "every image has one colour",
            "images",
            "look at the data: all are blank",
        )
    kept = np.concatenate([(_edges(draw) / np.where(seen, edges, 1))[seen] for draw in draws])
    covered = np.concatenate([np.minimum(_area(draw) / np.where(seen, area, 1), 1)[seen] for draw in draws])
    lost, mean = float(np.mean(~(kept >= _EDGES))), float(np.mean(covered))
    verdict = _verdict(lost, mean)
    figure = f"{100 * lost:.0f} % of draws have lost their edges, {100 * mean:.0f} % of the area is left"
    expected = f"at most {100 * _LOST[0]:.0f} %, at least {100 * _COVERED[0]:.0f} %"
    advice: Any = (
        ""
        if verdict == "pass"
        else (
            "augmentation takes too much of the images away: see `jaxcnn data preview`, and lower augment.resized_crop "
            "(area), augment.cutout (size_px), augment.pad_crop (pad_px) or augment.erasing (area)"
        )
    )
    numbers = {"lost": lost, "area": mean, "edges": float(np.mean(kept))}
    return Finding("augmentation keeps content", verdict, figure, expected, advice, numbers)


def _verdict(lost: float, covered: float) -> Verdict:
    if lost > _LOST[1] or not covered >= _COVERED[1]:
        return "fail"
    return "warn" if lost > _LOST[0] or covered < _COVERED[0] else "pass"


def _edges(images: np.ndarray) -> np.ndarray:
    """Total variation of each image [N], as a mean over pixels."""
    down, right = (np.abs(np.diff(images, axis=axis)).mean((1, 2, 3)) for axis in (1, 2))
    return down + right


def _area(images: np.ndarray) -> np.ndarray:
    """Share of the pixels [N] that differ from the one below or to the right."""
    down, right = (np.abs(np.diff(images, axis=axis)).max(-1) > _STEP for axis in (1, 2))
    return (down[:, :, :-1] | right[:, :-1, :]).mean((1, 2))
