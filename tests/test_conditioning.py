"""Conditioning of a first layer by its input, against matrices whose eigenvalues are known; steps to a level."""

import itertools

import numpy as np
import pytest

from jaxcnn.inspection.conditioning import Conditioning, conditioning, patches, second_moments
from jaxcnn.studies.reaching import running_mean, steps_to

SIGNS = np.array(list(itertools.product((-1.0, 1.0), repeat=4)))
"""All signs of 4 inputs: uncorrelated, of mean 0 and variance 1, exactly."""


def number(inputs, bias=False) -> float:
    return Conditioning(np.linalg.eigvalsh(second_moments(inputs, bias=bias))).number


def test_uncorrelated_inputs_of_one_variance_are_perfectly_conditioned() -> None:
    assert number(SIGNS) == pytest.approx(1)
    assert number(SIGNS, bias=True) == pytest.approx(1)
    assert number(7 * SIGNS) == pytest.approx(1)
    assert number(7 * SIGNS, bias=True) == pytest.approx(49)  # the bias has its own scale


@pytest.mark.parametrize("mean", [0.5, 3.0])
def test_a_mean_makes_one_direction_steep(mean) -> None:
    assert number(SIGNS + mean) == pytest.approx(1 + 4 * mean**2)
    # With the bias it is the matrix [[1 + K m², m sqrt(K)], [m sqrt(K), 1]] beside ones: of determinant 1.
    half = 1 + 2 * mean**2
    largest = half + np.sqrt(half**2 - 1)
    assert number(SIGNS + mean, bias=True) == pytest.approx(largest**2)


def test_white_noise_around_a_mean_has_the_number_of_its_formula() -> None:
    noise = np.random.default_rng(0).normal(0.5, 0.25, (300, 12, 12, 3))
    found = conditioning(noise, bias=False)
    assert found.largest == pytest.approx(0.25**2 + 27 * 0.5**2, rel=0.01)
    assert found.number == pytest.approx(1 + 27 * 0.5**2 / 0.25**2, rel=0.1)  # the smallest of 27 is below their mean
    assert conditioning(noise - 0.5, bias=False).number == pytest.approx(1, abs=0.15)


def test_what_never_varies_has_no_finite_number() -> None:
    assert conditioning(np.zeros((2, 4, 4, 1))).number == float("inf")
    assert conditioning(np.ones((2, 4, 4, 1))).number == float("inf")


def test_patches_are_all_squares_inside_an_image() -> None:
    images = np.arange(2 * 4 * 5 * 2).reshape(2, 4, 5, 2)
    found = patches(images, 3)
    assert found.shape == (2 * 2 * 3, 18)
    expected = [
        images[n, y : y + 3, x : x + 3].transpose(2, 0, 1).ravel()
        for n in range(2) for y in range(2) for x in range(3)
    ]  # fmt: skip
    np.testing.assert_array_equal(found, expected)
    with pytest.raises(ValueError, match="size=5 must not be above"):
        patches(images, 5)


def test_the_running_mean_has_fewer_steps_at_the_beginning_only() -> None:
    np.testing.assert_allclose(running_mean([4, 2, 0, 1], 2), [4, 3, 1, 0.5])


def test_a_level_is_reached_by_the_mean_of_whole_windows_and_not_by_one_step() -> None:
    losses = [3.0, 0.1, 3.0, 1.0, 0.8, 0.6]
    assert steps_to(losses, 0.95, 1) == 2
    assert steps_to(losses, 0.95, 2) == 5
    assert steps_to(losses, 0.5, 2) is None
    assert steps_to([0.1], 0.5, 2) is None
