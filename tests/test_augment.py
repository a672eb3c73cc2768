"""Augmentation: each operation against numpy, and the properties that all share."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.augment import make_augment
from jaxcnn.augment.erasing import cutout
from jaxcnn.augment.normalise import normalise
from jaxcnn.augment.spatial import flip, pad_and_crop, shift
from jaxcnn.config import AugmentConfig, CutoutConfig, FlipConfig, PadCropConfig

KEY = jax.random.key(3)
IMAGES = np.random.default_rng(0).integers(1, 256, (64, 9, 7, 3), np.uint8)


def test_shift_moves_pixels_and_pads_with_zero() -> None:
    dy, dx = np.array([2, -1]), np.array([-3, 0])
    moved = np.asarray(shift(jnp.asarray(IMAGES[:2]), jnp.asarray(dy), jnp.asarray(dx)))
    for image, out, y, x in zip(IMAGES, moved, dy, dx, strict=False):
        padded = np.pad(image, ((4, 4), (4, 4), (0, 0)))
        np.testing.assert_array_equal(out, padded[4 + y : 13 + y, 4 + x : 11 + x])


def test_pad_and_crop_is_one_of_the_crops_of_the_padded_image_and_uses_all() -> None:
    pad = 2
    out = np.asarray(pad_and_crop(KEY, jnp.asarray(IMAGES), pad, 1.0))
    seen = set()
    for image, cropped in zip(IMAGES, out, strict=True):
        padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)))
        crops = {(y, x): padded[y : y + 9, x : x + 7] for y in range(2 * pad + 1) for x in range(2 * pad + 1)}
        found = [place for place, crop in crops.items() if np.array_equal(crop, cropped)]
        assert len(found) == 1
        seen.add(found[0])
    assert {y for y, _ in seen} == {x for _, x in seen} == set(range(2 * pad + 1))


def test_flip_mirrors_about_the_wanted_share() -> None:
    many = jnp.asarray(np.tile(IMAGES, (16, 1, 1, 1)))
    out = np.asarray(flip(KEY, many, 0.25))
    mirrored = np.array([np.array_equal(o, i[:, ::-1]) for o, i in zip(out, np.asarray(many), strict=True)])
    same = np.array([np.array_equal(o, i) for o, i in zip(out, np.asarray(many), strict=True)])
    assert np.all(mirrored ^ same)
    assert abs(mirrored.mean() - 0.25) < 0.06  # 4 standard deviations


def test_cutout_blanks_one_square_that_the_border_may_cut() -> None:
    ones = jnp.ones((256, 10, 10, 2))
    out = np.asarray(cutout(KEY, ones, 4, 1.0))
    assert np.array_equal(out[..., 0], out[..., 1])
    areas = set()
    for hole in out[..., 0] == 0:
        rows, columns = np.flatnonzero(hole.any(1)), np.flatnonzero(hole.any(0))
        assert hole.sum() == len(rows) * len(columns)  # a filled rectangle
        assert len(rows) == np.ptp(rows) + 1 <= 4
        assert len(columns) == np.ptp(columns) + 1 <= 4
        areas.add(int(hole.sum()))
    assert max(areas) == 16
    assert min(areas) == 4  # cut at a corner to 2 x 2: the centre lies inside the image


def test_normalise_is_the_formula() -> None:
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    expected = (IMAGES / 255 - np.array(mean)) / np.array(std)
    np.testing.assert_allclose(normalise(jnp.asarray(IMAGES), mean, std), expected, atol=2e-6)


FULL = AugmentConfig(PadCropConfig(0.9, 3), FlipConfig(0.5), CutoutConfig(0.5, 3))


def test_probability_zero_is_normalisation_alone() -> None:
    augment = make_augment(AugmentConfig(PadCropConfig(0.0)), (0.0,) * 3, (1.0,) * 3)
    np.testing.assert_allclose(augment(KEY, jnp.asarray(IMAGES)), IMAGES / 255, atol=1e-6)


def test_the_same_key_gives_the_same_batch_and_another_another() -> None:
    augment = jax.jit(make_augment(FULL, (0.5,) * 3, (0.2,) * 3))
    first, again, other = (augment(key, jnp.asarray(IMAGES)) for key in (KEY, KEY, jax.random.key(4)))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("operation", ["pad_crop", "flip", "cutout"])
def test_images_of_a_batch_are_changed_independently(operation: str) -> None:
    config = AugmentConfig(
        PadCropConfig(1.0 if operation == "pad_crop" else 0.0, 3),
        FlipConfig(0.5 if operation == "flip" else 0.0),
        CutoutConfig(1.0 if operation == "cutout" else 0.0, 3),
    )
    same = jnp.asarray(np.repeat(IMAGES[:1], 64, axis=0))
    out = np.asarray(make_augment(config, (0.5,) * 3, (0.2,) * 3)(KEY, same))
    assert len({image.tobytes() for image in out}) > 1
