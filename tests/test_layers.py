"""Activations, initialisers, dropout, pooling and weight standardisation against closed forms."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.models.conv import Conv, standardised
from jaxcnn.models.layers import (
    ACTIVATIONS,
    GAINS,
    adaptive_mean,
    drop_image,
    dropout,
    global_mean,
    halve_mean,
    initializer,
    max_pool,
    relu,
)

CLOSED_FORMS = {
    "relu": lambda x: max(x, 0),
    "gelu": lambda x: x * 0.5 * (1 + math.erf(x / math.sqrt(2))),
    "gelu_tanh": lambda x: x * 0.5 * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "silu": lambda x: x / (1 + math.exp(-x)),
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
    "tanh": math.tanh,
    "leaky_relu": lambda x: x if x > 0 else 0.01 * x,
    "elu": lambda x: x if x > 0 else math.expm1(x),
    "hard_swish": lambda x: x * min(max(x + 3, 0), 6) / 6,
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_is_its_closed_form(name):
    x = np.linspace(-5, 5, 41)
    y = jax.jit(ACTIVATIONS[name])(jnp.float32(x))
    np.testing.assert_allclose(y, [CLOSED_FORMS[name](v) for v in x], rtol=1e-5, atol=1e-6)


def test_relu_has_the_derivatives_of_nn_relu_in_both_modes():
    x = jnp.array([-2.0, -0.0, 0.0, 1e-30, 3.0, jnp.nan])
    for function in (jax.vmap(jax.grad(relu)), lambda x: jax.jvp(relu, (x,), (jnp.ones_like(x),))[1]):
        np.testing.assert_array_equal(function(x), jax.vmap(jax.grad(jax.nn.relu))(x))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_gain_keeps_the_second_moment_or_is_pytorchs(name):
    z = np.linspace(-10, 10, 20001)
    density = np.exp(-z * z / 2) / math.sqrt(2 * math.pi) * (z[1] - z[0])
    moment = sum(CLOSED_FORMS[name](v) ** 2 * p for v, p in zip(z, density, strict=True))
    pytorchs = {"tanh": 5 / 3, "sigmoid": 1.0}
    assert GAINS[name] == pytest.approx(pytorchs.get(name, 1 / math.sqrt(moment)), rel=1e-4)


SHAPE = (3, 3, 32, 64)
FAN_IN, FAN_OUT = 9 * 32, 9 * 64
STANDARD_DEVIATIONS = {
    "kaiming_fan_in_normal": math.sqrt(2 / FAN_IN),
    "kaiming_fan_in_uniform": math.sqrt(2 / FAN_IN),
    "kaiming_fan_out_normal": math.sqrt(2 / FAN_OUT),
    "kaiming_fan_out_uniform": math.sqrt(2 / FAN_OUT),
    "xavier_normal": math.sqrt(2 / (FAN_IN + FAN_OUT)),
    "xavier_uniform": math.sqrt(2 / (FAN_IN + FAN_OUT)),
    "lecun_normal": math.sqrt(1 / FAN_IN),
    "orthogonal": math.sqrt(1 / FAN_IN),
    "normal": 0.05,
}


@pytest.mark.parametrize("name", STANDARD_DEVIATIONS)
def test_initialiser_has_its_standard_deviation_and_shape_of_distribution(name):
    draw = jax.jit(lambda key: initializer(name, std=0.05)(key, SHAPE, jnp.float32))
    kernel = np.asarray(draw(jax.random.key(0)))
    std = STANDARD_DEVIATIONS[name]
    assert kernel.std() == pytest.approx(std, rel=0.02)
    assert abs(kernel.mean()) < 0.03 * std
    if "uniform" in name:
        assert 0.99 < np.abs(kernel).max() / (math.sqrt(3) * std) <= 1
    elif name == "kaiming_fan_out_normal":
        assert np.abs(kernel).max() > 3 * std, "PyTorch's normal has no cut tails"


def test_kaiming_takes_the_gain_of_the_activation():
    relu, tanh = (
        initializer("kaiming_fan_in_normal", name)(jax.random.key(0), SHAPE, jnp.float32) for name in ("relu", "tanh")
    )
    np.testing.assert_allclose(tanh / relu, (5 / 3) / math.sqrt(2), rtol=1e-5)


def test_orthogonal_kernels_have_orthonormal_columns():
    kernel = initializer("orthogonal")(jax.random.key(0), (3, 3, 8, 16), jnp.float32).reshape(-1, 16)
    np.testing.assert_allclose(kernel.T @ kernel, np.eye(16), atol=1e-5)


MAPS = np.random.default_rng(0).uniform(1, 2, size=(16, 6, 6, 32)).astype(np.float32)


def drop_units(x, key, train=True, kind="unit", rate=0.25):
    module = dropout(rate, kind)(name="dropout", deterministic=not train)
    return module.apply({}, x, rngs={"dropout": key})


def drop_branch(x, key, train=True, rate=0.25):
    return drop_image(rate, name="drop", train=train).apply({}, x, rngs={"dropout": key})


def drop_channels(x, key, train=True):
    return drop_units(x, key, train, kind="channel")


@pytest.mark.parametrize("drop", [drop_units, drop_channels, drop_branch])
def test_dropout_keeps_the_expectation_and_is_the_identity_in_inference(drop):
    keys = jax.random.split(jax.random.key(0), 50)
    draws = np.asarray(jax.jit(jax.vmap(lambda key: drop(MAPS, key)))(keys))
    kept = draws != 0
    np.testing.assert_allclose(kept.mean(), 0.75, atol=0.03)  # stochastic depth: 800 draws
    np.testing.assert_allclose(draws.mean() / MAPS.mean(), 1, atol=0.04)
    np.testing.assert_allclose(draws[kept], np.broadcast_to(MAPS, draws.shape)[kept] / 0.75, rtol=1e-6)
    np.testing.assert_array_equal(drop(MAPS, jax.random.key(0), train=False), MAPS)


def test_what_a_dropout_drops_together():
    key = jax.random.key(1)
    units, channels, images = (np.asarray(drop(MAPS, key)) == 0 for drop in (drop_units, drop_channels, drop_branch))
    assert units.mean((1, 2)).min() > 0, "single values: no channel is spared"
    assert units.mean((1, 2)).max() < 1
    assert set(np.unique(channels.mean((1, 2)))) == {0, 1}, "whole channels"
    assert channels.mean((1, 2)).mean(1).min() > 0, "but not all channels of an image"
    assert set(np.unique(images.mean((1, 2, 3)))) == {0, 1}, "whole images"


@pytest.mark.parametrize("drop", [drop_units, drop_channels, drop_branch])
def test_dropped_units_pass_no_gradient(drop):
    """Also not to the weights before them: the gradient is that of the kept units alone."""
    key = jax.random.key(2)
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(jnp.sin(drop(x, key)))))(MAPS)
    dropped = np.asarray(drop(MAPS, key)) == 0
    assert dropped.any()
    assert np.all(np.asarray(gradient)[dropped] == 0)
    assert np.all(np.asarray(gradient)[~dropped] != 0)


def test_max_pool_pads_with_nothing_that_could_win():
    y = max_pool(-jnp.ones((1, 4, 4, 1)), window=3, stride=2, padding=1)
    np.testing.assert_array_equal(y, -np.ones((1, 2, 2, 1)))


def test_halve_mean_averages_the_pixels_there_are():
    x = np.arange(15, dtype=np.float32).reshape(1, 3, 5, 1)
    expected = [[(0 + 1 + 5 + 6) / 4, (2 + 3 + 7 + 8) / 4, (4 + 9) / 2], [(10 + 11) / 2, (12 + 13) / 2, 14]]
    np.testing.assert_allclose(halve_mean(x)[0, :, :, 0], expected)


@pytest.mark.parametrize(("height", "width"), [(7, 7), (2, 2), (9, 16)])
def test_adaptive_mean_has_pytorchs_windows(height, width):
    x = np.random.default_rng(0).normal(size=(2, height, width, 3)).astype(np.float32)

    def window(i, length):
        return slice(i * length // 7, math.ceil((i + 1) * length / 7))

    expected = [[x[:, window(i, height), window(j, width)].mean((1, 2)) for j in range(7)] for i in range(7)]
    np.testing.assert_allclose(adaptive_mean(x, 7), np.moveaxis(expected, 2, 0), rtol=1e-5, atol=1e-6)


def test_global_mean_is_float32_for_bfloat16():
    assert global_mean(jnp.asarray(MAPS, jnp.bfloat16)).dtype == jnp.float32


def test_standardised_kernels_have_mean_0_and_variance_1_an_output_channel():
    kernel = np.random.default_rng(0).normal(3, 2, size=(3, 3, 4, 5)).astype(np.float32)
    new = np.asarray(standardised(kernel))
    np.testing.assert_allclose(new.mean((0, 1, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(new.var((0, 1, 2)), 1, rtol=1e-5)
    tiny = np.asarray(standardised(kernel * 1e-3 / kernel.std((0, 1, 2))))
    np.testing.assert_allclose(tiny.var((0, 1, 2)), 0.5, rtol=1e-3, err_msg="epsilon 1e-6 stands inside the root")


def test_a_standardising_convolution_does_not_see_the_scale_of_its_kernel():
    x = np.random.default_rng(0).normal(size=(2, 5, 5, 4)).astype(np.float32)
    kernel = np.random.default_rng(1).normal(size=(3, 3, 4, 6)).astype(np.float32)
    apply = jax.jit(lambda kernel: Conv(6, standardise=True).apply({"params": {"kernel": kernel}}, x))
    np.testing.assert_allclose(apply(5 * kernel + 1), apply(kernel), rtol=1e-3, atol=1e-4)
    plain = jax.jit(Conv(6).apply)({"params": {"kernel": standardised(kernel)}}, x)
    np.testing.assert_allclose(apply(kernel), plain, rtol=1e-5, atol=1e-5)


def test_a_standardising_convolution_computes_in_bfloat16():
    module = Conv(6, standardise=True, dtype=jnp.bfloat16)
    y, variables = jax.eval_shape(module.init_with_output, jax.random.key(0), jnp.zeros((1, 4, 4, 3)))
    assert y.dtype == jnp.bfloat16
    assert variables["params"]["kernel"].dtype == jnp.float32
