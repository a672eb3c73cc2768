"""Operations that move pixels, against numpy and scipy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from jaxcnn.augment.spatial import affine, flip, pad_and_crop, shift, vertical_flip, warp, warp_nearest
from jaxcnn.config import AffineConfig

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


def test_warp_is_scipys_affine_transform() -> None:
    rng = np.random.default_rng(1)
    matrices, offsets = np.eye(2) + rng.normal(0, 0.3, (8, 2, 2)), rng.normal(0, 2, (8, 2))
    out = np.asarray(warp(jnp.asarray(IMAGES[:8]), *(jnp.asarray(x, jnp.float32) for x in (matrices, offsets))))
    pad = 4  # so that scipy too interpolates between the border and the zeros outside
    centre = np.array([(9 - 1) / 2, (7 - 1) / 2]) + pad
    for image, found, matrix, offset in zip(IMAGES, out, matrices, offsets, strict=False):
        for channel in range(3):
            padded = np.pad(image[..., channel].astype(np.float64), pad)
            moved = scipy.ndimage.affine_transform(padded, matrix, centre - matrix @ centre + offset, order=1)
            np.testing.assert_allclose(found[..., channel], moved[pad:-pad, pad:-pad], atol=0.01)  # of 0..255


def test_warp_nearest_is_scipys_of_order_0() -> None:
    rng = np.random.default_rng(2)
    matrices, offsets = np.eye(2) + rng.normal(0, 0.3, (8, 2, 2)), rng.normal(0, 2, (8, 2))
    out = warp_nearest(jnp.asarray(IMAGES[:8]), *(jnp.asarray(x, jnp.float32) for x in (matrices, offsets)))
    assert out.dtype == jnp.uint8
    pad, centre = 4, np.array([4.0, 3.0]) + 4
    for image, found, matrix, offset in zip(IMAGES, np.asarray(out), matrices, offsets, strict=False):
        padded = np.pad(image[..., 0], pad)
        moved = scipy.ndimage.affine_transform(padded, matrix, centre - matrix @ centre + offset, order=0)
        np.testing.assert_array_equal(found[..., 0], moved[pad:-pad, pad:-pad])


def test_a_warp_by_the_identity_is_the_image_and_by_a_quarter_turn_its_rotation() -> None:
    square = jnp.asarray(IMAGES[:, :7])
    np.testing.assert_allclose(warp(square, jnp.tile(jnp.eye(2), (64, 1, 1))), square, atol=1e-3)
    turn = jnp.tile(jnp.array([[0.0, 1.0], [-1.0, 0.0]]), (64, 1, 1))
    np.testing.assert_allclose(warp(square, turn), np.rot90(np.asarray(square), 1, axes=(1, 2)), atol=1e-2)


def test_affine_stays_within_its_limits() -> None:
    """The place of a bright spot tells rotation and scale: with shear 0 its radius changes by the scale alone."""
    spot = np.zeros((512, 41, 41, 1), np.uint8)
    spot[:, 20 - 12, 20] = 255  # 12 pixels above the centre
    out = np.asarray(affine(KEY, jnp.asarray(spot), AffineConfig(1.0, rotation_deg=30.0, scale=0.2, shear_deg=0.0)))
    grid = np.arange(41) - 20
    mass = out[..., 0].sum((1, 2))
    y, x = (out[..., 0].sum(2) * grid).sum(1) / mass, (out[..., 0].sum(1) * grid).sum(1) / mass
    radius, angle = np.hypot(y, x), np.degrees(np.arctan2(x, -y))
    assert 12 * 0.8 - 0.5 < radius.min() < 12 * 0.85
    assert 12 * 1.15 < radius.max() < 12 * 1.2 + 0.5
    assert -32 < angle.min() < -27
    assert 27 < angle.max() < 32


def test_affine_shifts_by_a_share_of_each_side_and_not_along_a_turned_axis() -> None:
    spot = np.zeros((512, 41, 81, 1), np.uint8)
    spot[:, 20, 40] = 255  # the centre: neither turn nor scale moves it
    config = AffineConfig(1.0, rotation_deg=90.0, scale=0.0, shear_deg=0.0, translate=0.25)
    out = np.asarray(affine(KEY, jnp.asarray(spot), config))[..., 0]
    mass = out.sum((1, 2))
    y = (out.sum(2) * (np.arange(41) - 20)).sum(1) / mass
    x = (out.sum(1) * (np.arange(81) - 40)).sum(1) / mass
    for place, limit in ((y, 0.25 * 41), (x, 0.25 * 81)):
        assert -limit - 0.6 < place.min() < -0.95 * limit
        assert 0.95 * limit < place.max() < limit + 0.6
    assert abs(np.corrcoef(y, x)[0, 1]) < 0.2


@pytest.mark.parametrize(("operation", "axis"), [(flip, 2), (vertical_flip, 1)])
def test_flips_mirror_about_the_wanted_share(operation, axis: int) -> None:
    many = jnp.asarray(np.tile(IMAGES, (16, 1, 1, 1)))
    out = np.asarray(operation(KEY, many, 0.25))
    mirrored = np.array([np.array_equal(o, m) for o, m in zip(out, np.flip(many, axis), strict=True)])
    same = np.array([np.array_equal(o, i) for o, i in zip(out, np.asarray(many), strict=True)])
    assert np.all(mirrored ^ same)
    assert abs(mirrored.mean() - 0.25) < 0.06  # 4 standard deviations
