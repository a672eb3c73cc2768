"""Colours against PIL, matplotlib and numpy; the tolerance is in levels of 0..255."""

import colorsys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance

from jaxcnn.augment.colour import blend, brightness, contrast, grayscale, hue, luma, mean_luma, saturation, turn_hue
from jaxcnn.config import BrightnessConfig, ContrastConfig, GrayscaleConfig, HueConfig, SaturationConfig

KEY = jax.random.key(7)
IMAGES = np.random.default_rng(0).integers(0, 256, (6, 9, 7, 3), np.uint8)
PIXELS = jnp.asarray(IMAGES, jnp.float32)
FACTORS = np.array([0.0, 0.3, 0.8, 1.0, 1.2, 1.9], np.float32)


@pytest.mark.parametrize("name", ["Brightness", "Contrast", "Color"])
def test_blends_are_pils(name: str) -> None:
    reference = {"Brightness": 0.0, "Contrast": mean_luma(PIXELS), "Color": luma(PIXELS)}
    out = np.asarray(blend(PIXELS, reference[name], jnp.asarray(FACTORS)[:, None, None, None]))
    for image, found, factor in zip(IMAGES, out, FACTORS, strict=True):
        enhanced = getattr(ImageEnhance, name)(Image.fromarray(image)).enhance(float(factor))
        # PIL rounds the grey it blends with, which a factor of 1.9 makes 0.45 of a level, and cuts the result.
        assert np.abs(found - np.asarray(enhanced)).max() < 1.5


@pytest.mark.parametrize("turn", [-0.5, -0.13, 0.0, 0.07, 0.31, 0.5])
def test_turning_the_hue_is_colorsys(turn: float) -> None:
    out = np.asarray(turn_hue(PIXELS, jnp.full((6, 1, 1), turn))).reshape(-1, 3)
    for pixel, found in zip(IMAGES.reshape(-1, 3), out, strict=True):
        h, s, v = colorsys.rgb_to_hsv(*(pixel / 255))
        expected = 255 * np.array(colorsys.hsv_to_rgb((h + turn) % 1, s, v))
        np.testing.assert_allclose(found, expected, atol=0.01)


def test_grey_pixels_have_no_hue_and_black_and_white_stay() -> None:
    grey = jnp.tile(jnp.array([0.0, 17.0, 128.0, 255.0])[None, :, None, None], (1, 1, 1, 3))
    np.testing.assert_allclose(turn_hue(grey, jnp.full((1, 1, 1), 0.4)), grey, atol=1e-4)


def test_grayscale_is_pils_luma_in_three_channels() -> None:
    out = np.asarray(grayscale(KEY, PIXELS, GrayscaleConfig(1.0)))
    assert np.array_equal(out[..., 0], out[..., 1])
    assert np.array_equal(out[..., 0], out[..., 2])
    for image, found in zip(IMAGES, out, strict=True):
        assert np.abs(found[..., 0] - np.asarray(Image.fromarray(image).convert("L"))).max() <= 0.51


JITTERS = [
    (brightness, BrightnessConfig(0.5)),
    (contrast, ContrastConfig(0.5)),
    (saturation, SaturationConfig(0.5)),
    (hue, HueConfig(0.5)),
    (grayscale, GrayscaleConfig(0.5)),
]


@pytest.mark.parametrize(("operation", "config"), JITTERS, ids=lambda x: getattr(x, "__name__", None))
def test_the_wanted_share_of_images_changes_and_the_others_are_bit_identical(operation, config) -> None:
    many = jnp.tile(PIXELS[:1], (512, 1, 1, 1))
    out = np.asarray(operation(KEY, many, config))
    changed = np.array([not np.array_equal(image, IMAGES[0]) for image in out])
    assert abs(changed.mean() - 0.5) < 0.09  # 4 standard deviations
    assert out.min() >= 0
    assert out.max() <= 255.001


@pytest.mark.parametrize(("operation", "config"), JITTERS, ids=lambda x: getattr(x, "__name__", None))
def test_grey_images_keep_their_one_channel(operation, config) -> None:
    grey = jnp.asarray(IMAGES[..., :1], jnp.float32)
    out = operation(KEY, grey, config)
    assert out.shape == grey.shape
    if operation in (saturation, hue, grayscale):
        np.testing.assert_array_equal(out, grey)


def test_factors_are_uniform_within_the_strength() -> None:
    flat = jnp.full((4096, 1, 1, 1), 100.0)
    factor = np.asarray(brightness(KEY, flat, BrightnessConfig(1.0, strength=0.3))).ravel() / 100
    assert 0.7 <= factor.min() < 0.705
    assert 1.295 < factor.max() <= 1.3001
    assert abs(factor.mean() - 1) < 0.011  # 4 standard deviations
