"""Gaussian blur against scipy's."""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.ndimage

from jaxcnn.augment.blur import blur, gaussian, radius_of
from jaxcnn.config import BlurConfig

KEY = jax.random.key(2)
IMAGES = np.random.default_rng(0).integers(0, 256, (5, 17, 12, 3), np.uint8)


def test_blur_is_scipys_gaussian_filter_with_a_mirrored_border() -> None:
    sigma = np.array([0.1, 0.5, 1.0, 1.7, 2.0], np.float32)
    out = np.asarray(gaussian(jnp.asarray(IMAGES), jnp.asarray(sigma), 6))
    for image, found, width in zip(IMAGES, out, sigma, strict=True):
        pixels = image.astype(np.float64)
        expected = scipy.ndimage.gaussian_filter(pixels, float(width), mode="mirror", radius=6, axes=(0, 1))
        np.testing.assert_allclose(found, expected, atol=1e-3)  # levels of 0..255


def test_blur_keeps_flat_images_and_the_images_not_chosen() -> None:
    flat = jnp.full((4, 8, 8, 1), 77.0)
    np.testing.assert_allclose(blur(KEY, flat, BlurConfig(1.0)), flat, rtol=1e-5)
    many = jnp.asarray(np.tile(IMAGES[:1], (256, 1, 1, 1)), jnp.float32)
    out = np.asarray(blur(KEY, many, BlurConfig(0.25, sigma_px=(0.5, 2.0))))
    same = np.array([np.array_equal(image, IMAGES[0]) for image in out])
    assert abs(same.mean() - 0.75) < 0.11  # 4 standard deviations
    assert len({image.tobytes() for image in out}) == 1 + (~same).sum()  # each with a width of its own


def test_the_kernel_is_not_wider_than_the_image() -> None:
    assert radius_of(2.0, (32, 32)) == 6
    assert radius_of(5.0, (4, 9)) == 3
    assert radius_of(5.0, (1, 1)) == 0
    np.testing.assert_allclose(gaussian(jnp.ones((1, 1, 1, 1)), jnp.ones(1), 0), 1.0)
