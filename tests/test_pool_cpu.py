"""Max-pooling on CPU: values and gradients are those of lax, ties included; a NaN shows."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.models.layers import max_pool
from jaxcnn.models.pool_cpu import max_pool_cpu

# window, stride, padding, h, w
CASES = [
    (2, 2, 0, 8, 8),
    (2, 2, 0, 7, 5),
    (3, 2, 1, 8, 9),
    (3, 2, 1, 7, 7),
    (3, 3, 1, 8, 8),
    (3, 1, 1, 5, 5),
    (2, 3, 0, 9, 9),
    (3, 2, 0, 3, 4),
    (1, 2, 0, 5, 4),
    (3, 2, 1, 1, 1),
    (17, 3, 2, 21, 18),
]


def by_lax(window: int, stride: int, padding: int, x: jax.Array) -> jax.Array:
    return nn.max_pool(x, (window, window), (stride, stride), ((padding, padding),) * 2)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_values_and_gradients_are_those_of_lax(case: tuple[int, ...], dtype: jnp.dtype) -> None:
    window, stride, padding, h, w = case
    rng = np.random.default_rng(sum(case))
    # Whole numbers: many ties, and sums of gradients that are exact in any order.
    x = jnp.asarray(np.maximum(rng.integers(-3, 3, size=(2, h, w, 3)), 0), dtype)
    y, transpose = jax.vjp(lambda x: max_pool_cpu(window, stride, padding, x), x)
    expected, expected_transpose = jax.vjp(lambda x: by_lax(window, stride, padding, x), x)
    np.testing.assert_array_equal(y, expected)
    dy = jnp.asarray(rng.integers(-4, 5, size=y.shape), dtype)
    np.testing.assert_array_equal(transpose(dy)[0], expected_transpose(dy)[0])
    assert y.dtype == transpose(dy)[0].dtype == dtype


def test_a_nan_shows_wherever_it_is_in_a_window() -> None:
    for place in range(4):
        x = jnp.zeros((1, 2, 2, 1)).at[0, place // 2, place % 2, 0].set(jnp.nan)
        assert jnp.isnan(max_pool_cpu(2, 2, 0, x)).all()


def test_other_platforms_get_the_pool_of_lax() -> None:
    trace = jax.jit(jax.grad(lambda x: max_pool(x, 3, 2, 1).sum())).trace(jnp.ones((1, 8, 8, 2)))
    text = {platform: trace.lower(lowering_platforms=(platform,)).as_text() for platform in ("cpu", "tpu")}
    assert "select_and_scatter" in text["tpu"]
    assert "select_and_scatter" not in text["cpu"]
