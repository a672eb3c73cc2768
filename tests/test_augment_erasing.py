"""Operations that blank a part of an image: the parts are rectangles of the wanted sizes, and nothing else changes."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn.augment.erasing import cutout, erase
from jaxcnn.config import ErasingConfig

KEY = jax.random.key(3)


def rectangle(hole: np.ndarray) -> tuple[int, int]:
    """Returns height and width of the one filled rectangle that bool [H, W] holds."""
    rows, columns = np.flatnonzero(hole.any(1)), np.flatnonzero(hole.any(0))
    assert hole.sum() == len(rows) * len(columns)
    assert len(rows) == np.ptp(rows) + 1
    assert len(columns) == np.ptp(columns) + 1
    return len(rows), len(columns)


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


def test_erasing_blanks_one_rectangle_of_the_wanted_area_and_shape_in_the_wanted_share() -> None:
    config = ErasingConfig(0.5, area=(0.05, 0.25), aspect=(0.5, 2.0))
    ones = jnp.ones((512, 40, 50, 3))
    out = np.asarray(erase(KEY, ones, config))
    assert np.array_equal(out[..., 0], out[..., 2])
    holes = [hole for hole in out[..., 0] == 0 if hole.any()]
    assert abs(len(holes) / 512 - 0.5) < 0.09  # 4 standard deviations
    height, width = np.array([rectangle(hole) for hole in holes]).T
    area, aspect = height * width / 2000, width / height
    assert 0.045 < area.min() < 0.07
    assert 0.23 < area.max() < 0.26
    assert abs(area.mean() - 0.15) < 0.02  # uniform; 4 standard deviations are 0.015
    assert 0.45 < aspect.min() < 0.6
    assert 1.7 < aspect.max() < 2.15
    assert abs(np.log(aspect).mean()) < 0.11  # log-uniform, symmetric; 4 standard deviations are 0.1


def test_erasing_reaches_all_of_the_image_and_nothing_outside() -> None:
    out = np.asarray(erase(KEY, jnp.ones((2048, 12, 10, 1)), ErasingConfig(1.0, area=(0.1, 0.2))))
    assert np.all((out[..., 0] == 0).any(0))
    sides = [rectangle(hole) for hole in out[..., 0] == 0]
    assert max(h for h, _ in sides) <= 12
    assert max(w for _, w in sides) <= 10


def test_noise_has_mean_0_and_variance_1_and_is_its_own_in_each_image() -> None:
    config = ErasingConfig(1.0, area=(1.0, 1.0), aspect=(1.0, 1.0), fill="noise")
    out = np.asarray(erase(KEY, jnp.full((16, 40, 40, 3), 9.0), config))
    assert abs(out.mean()) < 0.02
    assert abs(out.var() - 1) < 0.02
    assert np.abs(np.corrcoef(out.reshape(16, -1)) - np.eye(16)).max() < 0.06


def test_a_rectangle_that_does_not_fit_is_not_drawn() -> None:
    ones = jnp.ones((8, 10, 10, 1))
    np.testing.assert_array_equal(erase(KEY, ones, ErasingConfig(1.0, area=(1.0, 1.0), aspect=(3.0, 3.0))), ones)
