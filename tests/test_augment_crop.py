"""Resized crops: the resize against PIL's, the rectangles against what Inception's crop is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxcnn.augment.crop import centre_box, crop_and_resize, resized_crop
from jaxcnn.augment.draws import rectangles
from jaxcnn.config import ResizedCropConfig

KEY = jax.random.key(5)
RNG = np.random.default_rng(0)


@pytest.mark.parametrize("shape", [(8, 8), (20, 12), (45, 61)])  # smaller, between, larger than the boxes
def test_crop_and_resize_is_pils_bilinear_resize_of_the_box(shape: tuple[int, int]) -> None:
    images = RNG.integers(0, 256, (6, 40, 30, 3), np.uint8)
    boxes = [(0, 0, 40, 30), (3, 4, 20, 12), (10, 0, 30, 30), (39, 29, 1, 1), (0, 5, 40, 2), (7, 7, 9, 23)]
    out = np.asarray(crop_and_resize(jnp.asarray(images), jnp.array(boxes), shape))
    for image, found, (top, left, height, width) in zip(images, out, boxes, strict=True):
        part = Image.fromarray(image[top : top + height, left : left + width])
        expected = np.asarray(part.resize(shape[::-1], Image.Resampling.BILINEAR), np.float32)
        # PIL rounds to whole levels after each of its two passes; no more may lie between.
        assert np.abs(found - expected).max() < 1.01


def test_a_crop_of_everything_at_the_same_size_is_the_image() -> None:
    images = RNG.integers(0, 256, (2, 9, 7, 1), np.uint8)
    same = crop_and_resize(jnp.asarray(images), jnp.array([[0, 0, 9, 7]] * 2), (9, 7))
    np.testing.assert_allclose(same, images, atol=1e-4)


def test_rectangles_have_the_wanted_areas_and_shapes_anywhere_inside() -> None:
    boxes, found = rectangles(KEY, 4096, (60, 80), (0.1, 0.5), (0.5, 2.0))
    assert bool(jnp.all(found))
    top, left, height, width = np.asarray(boxes).T
    assert top.min() == left.min() == 0
    assert (top + height).max() == 60
    assert (left + width).max() == 80
    area = height * width / 4800
    assert 0.09 < area.min() < 0.11
    assert 0.49 < area.max() < 0.515  # the sides are rounded to pixels
    assert 0.48 < (width / height).min() < 0.52
    assert 1.9 < (width / height).max() < 2.1
    assert abs(np.median(width / height) - 1) < 0.05


def test_rectangles_are_those_of_torchvisions_loop() -> None:
    """The distribution of sides after ten attempts, where many do not fit: against the loop of the paper in numpy."""
    shape, area, aspect = (20, 50), (0.3, 1.0), (0.75, 4 / 3)
    rng = np.random.default_rng(1)
    expected = []
    for _ in range(8000):
        for _ in range(10):
            pixels, ratio = 1000 * rng.uniform(*area), np.exp(rng.uniform(*np.log(aspect)))
            width, height = round(np.sqrt(pixels * ratio)), round(np.sqrt(pixels / ratio))
            if width <= 50 and height <= 20:
                expected.append((height, width))
                break
        else:
            expected.append((0, 0))
    boxes, found = rectangles(KEY, 8000, shape, area, aspect)
    sides = np.where(np.asarray(found)[:, None], np.asarray(boxes)[:, 2:], 0)
    np.testing.assert_allclose(sides.mean(0), np.mean(expected, 0), atol=0.4)
    np.testing.assert_allclose(sides.std(0), np.std(expected, 0), atol=0.4)
    assert abs(np.mean(found) - np.mean([height > 0 for height, _ in expected])) < 0.03


@pytest.mark.parametrize(
    ("stored", "shape", "box"),
    [((40, 60), (8, 8), (0, 10, 40, 40)), ((60, 40), (8, 8), (10, 0, 40, 40)), ((32, 32), (16, 32), (8, 0, 16, 32))],
)
def test_the_centre_box_is_the_largest_of_the_shape(stored, shape, box) -> None:
    assert centre_box(stored, shape) == box


def test_an_image_that_is_not_chosen_gets_the_centre_crop() -> None:
    images = jnp.asarray(RNG.integers(0, 256, (64, 24, 36, 3), np.uint8))
    centre = np.asarray(crop_and_resize(images, jnp.array([[0, 6, 24, 24]] * 64), (12, 12)))
    out = np.asarray(resized_crop(KEY, images, (12, 12), ResizedCropConfig(0.0)))
    np.testing.assert_array_equal(out, centre)
    out = np.asarray(resized_crop(KEY, images, (12, 12), ResizedCropConfig(0.5)))
    same = np.array([np.array_equal(o, c) for o, c in zip(out, centre, strict=True)])
    assert 0.25 < same.mean() < 0.75  # 4 standard deviations
