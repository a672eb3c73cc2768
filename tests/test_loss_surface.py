"""Slices of the loss: directions scaled by filter, and figures of a slice, on losses that are known in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.training.loss_surface import curvatures, filter_normalised_direction, half_width, losses_at

PARAMS = {
    "conv": {"kernel": 3.0 * jax.random.normal(jax.random.key(0), (3, 3, 2, 5)), "bias": jnp.ones(5)},
    "norm": {"scale": jnp.ones(5), "bias": jnp.zeros(5)},
    "head": {"kernel": jax.random.normal(jax.random.key(1), (5, 4)).at[:, 0].set(0.0)},
}


def test_each_filter_of_a_direction_has_the_norm_of_the_weights() -> None:
    direction = filter_normalised_direction(jax.random.key(2), PARAMS)
    assert jax.tree.structure(direction) == jax.tree.structure(PARAMS)
    for name in ("conv", "head"):
        drawn, weights = (np.asarray(tree[name]["kernel"]).reshape(-1, tree[name]["kernel"].shape[-1])
                          for tree in (direction, PARAMS))  # fmt: skip
        np.testing.assert_allclose(np.linalg.norm(drawn, axis=0), np.linalg.norm(weights, axis=0), rtol=1e-5)
        assert abs(np.corrcoef(drawn[:, 1:].ravel(), weights[:, 1:].ravel())[0, 1]) < 0.5  # another direction


def test_biases_and_scales_stay_as_they_are() -> None:
    direction = filter_normalised_direction(jax.random.key(2), PARAMS)
    for leaf in (direction["conv"]["bias"], *direction["norm"].values()):
        assert not np.any(leaf)


def test_the_slice_of_a_quadratic_loss_is_a_parabola() -> None:
    curvature = jnp.array([2.0, 5.0, 1.0])
    directions = {"w": jnp.array([[1.0, 0.0, 0.0], [0.0, 2.0, 1.0]])}
    points = jnp.array([[0.0, 0.0], [0.5, 0.0], [0.0, -1.0], [1.0, 2.0]])
    losses = losses_at(lambda p: 0.5 * jnp.sum(curvature * p["w"] ** 2), {"w": jnp.zeros(3)}, directions, points)
    a, b = np.asarray(points).T
    np.testing.assert_allclose(losses, 0.5 * (2 * a**2 + 21 * b**2), rtol=1e-6)


def test_the_half_width_of_a_wedge_is_where_it_is_half_way_to_chance() -> None:
    places = np.linspace(-1, 1, 9)
    assert half_width(places, 0.4 + 2 * np.abs(places), chance=2.0) == pytest.approx(0.4)
    steep_left = np.where(places < 0, -8 * places, 2 * places)
    assert half_width(places, steep_left, chance=2.0) == pytest.approx((1 / 8 + 1 / 2) / 2)


def test_a_loss_that_stays_low_is_as_wide_as_was_measured_and_one_at_chance_has_no_width() -> None:
    places = np.linspace(-1, 1, 9)
    assert half_width(places, np.full(9, 0.1), chance=2.0) == 1.0
    assert np.isnan(half_width(places, np.full(9, 2.1), chance=2.0))
    overflowed = np.where(np.abs(places) > 0.6, np.nan, 0.1)
    assert half_width(places, overflowed, chance=2.0) == 0.75


@pytest.mark.parametrize(("hessian", "expected"), [([[3, 1], [1, 3]], (2, 4)), ([[1, 0], [0, -2]], (-2, 1))])
def test_curvatures_of_a_quadratic_slice_are_the_eigenvalues_of_its_hessian(hessian, expected) -> None:
    a, b = np.meshgrid(np.linspace(-1, 1, 5), np.linspace(-1, 1, 5), indexing="ij")
    ((p, q), (_, r)) = hessian
    found = curvatures(0.5 * (p * a**2 + 2 * q * a * b + r * b**2), 0.5)
    assert found.shape == (3, 3, 2)
    np.testing.assert_allclose(found, np.broadcast_to(expected, (3, 3, 2)), atol=1e-9)
