"""Mixup and cutmix: labels mix with the same weight as pixels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.augment.mixing import cutmix_boxes, mix
from jaxcnn.config import CutmixConfig, MixupConfig

KEY = jax.random.key(11)
N = 512
# Image i has the value i everywhere, so a mixed pixel says by what share it is mixed.
IMAGES = jnp.broadcast_to(jnp.arange(N, dtype=jnp.float32)[:, None, None, None], (N, 9, 7, 2))
OTHERS = (np.arange(N) - 1) % N


def shares(mixup: MixupConfig, cutmix: CutmixConfig) -> tuple[np.ndarray, np.ndarray]:
    """Returns (the share of the own image in each pixel [N, H, W], the share of the label [N])."""
    images, found = mix(KEY, IMAGES, mixup, cutmix)
    assert found.partner.dtype == jnp.int32
    np.testing.assert_array_equal(found.partner, OTHERS)
    assert np.array_equal(images[..., 0], images[..., 1])
    own = (np.asarray(images)[..., 0] - OTHERS[:, None, None]) / (np.arange(N) - OTHERS)[:, None, None]
    return own, np.asarray(found.share)


def test_mixup_mixes_all_pixels_by_the_share_of_the_label() -> None:
    own, share = shares(MixupConfig(1.0, alpha=0.4), CutmixConfig())
    np.testing.assert_allclose(own, np.broadcast_to(share[:, None, None], own.shape), atol=2e-3)  # of values to 511
    assert abs(share.mean() - 0.5) < 0.07
    assert abs(share.var() - 1 / (4 * (2 * 0.4 + 1))) < 0.03  # of Beta(a, a)


def test_cutmix_pastes_one_rectangle_whose_area_is_the_share_of_the_other_label() -> None:
    own, share = shares(MixupConfig(), CutmixConfig(1.0))
    assert np.all((np.abs(own) < 1e-3) | (np.abs(own - 1) < 1e-3))
    pasted = own < 0.5
    np.testing.assert_allclose(1 - pasted.mean((1, 2)), share, atol=1e-6)
    for hole in pasted:
        rows, columns = np.flatnonzero(hole.any(1)), np.flatnonzero(hole.any(0))
        assert hole.sum() == len(rows) * len(columns)
    assert np.all(pasted.any(0))  # everywhere in the image


def test_an_image_gets_at_most_one_with_the_wanted_probabilities() -> None:
    own, share = shares(MixupConfig(0.3, alpha=1.0), CutmixConfig(0.5))
    np.testing.assert_allclose(own.mean((1, 2)), share, atol=2e-3)
    whole = np.all(np.abs(own - 1) < 1e-3, axis=(1, 2))
    blended = np.ptp(own, axis=(1, 2)) < 1e-2
    tenth = np.abs(own - own.round()).max((1, 2)) > 0.01
    assert abs((blended & tenth).mean() - 0.3) < 0.09
    assert abs(whole.mean() - 0.2) < 0.09  # and a few whose rectangle is empty
    np.testing.assert_array_equal(share[whole], 1.0)


def test_cutmix_boxes_have_the_area_of_beta_where_the_border_does_not_cut() -> None:
    boxes = np.asarray(cutmix_boxes(KEY, 4096, (100, 50), 1.0))
    top, left, height, width = boxes.T
    assert top.min() == left.min() == 0
    assert (top + height).max() == 100
    assert (left + width).max() == 50
    free = (top > 0) & (left > 0) & (top + height < 100) & (left + width < 50) & (height > 0)
    np.testing.assert_allclose(height[free] / 100, width[free] / 50, atol=2 / 50)  # the shape of the image


@pytest.mark.parametrize("alpha", [0.1, 1.0, 4.0])
def test_mixing_finite_images_is_finite(alpha: float) -> None:
    images, found = mix(KEY, IMAGES, MixupConfig(0.5, alpha), CutmixConfig(0.5, alpha))
    assert bool(jnp.all(jnp.isfinite(images)))
    assert bool(jnp.all((found.share >= 0) & (found.share <= 1)))
