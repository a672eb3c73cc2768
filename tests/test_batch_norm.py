"""Batch norm's own gradient, and the 1x1 convolution with it, against float64 and the gradients that JAX finds."""

import contextlib
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.models.batch_norm import batch_norm, moments, plain_batch_norm
from jaxcnn.models.conv import Conv
from jaxcnn.models.norms import BatchNorm
from jaxcnn.models.pointwise import pointwise_batch_norm

RNG = np.random.default_rng(0)
EPSILON = 1e-5
TOLERANCE = {"float32": 2e-5, "float64": 1e-12}


def arrays(dtype: str, *shapes: tuple[int, ...]) -> list[np.ndarray]:
    return [RNG.normal(size=shape).astype(dtype) for shape in shapes]


def precision(dtype: str):
    return jax.enable_x64(True) if dtype == "float64" else contextlib.nullcontext()


def assert_same_gradients(function, reference, given, weights, tolerance):
    """Values and gradients of sum(weights · sin(first output)), which is linear in nothing."""

    def total(function):
        return lambda *args: jnp.sum(weights * jnp.sin(function(*args)[0]))

    ours = jax.jit(lambda *args: (function(*args), jax.grad(total(function), range(len(args)))(*args)))(*given)
    theirs = jax.jit(lambda *args: (reference(*args), jax.grad(total(reference), range(len(args)))(*args)))(*given)
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert one.dtype == other.dtype
        scale = max(1.0, float(jnp.abs(other).max()))
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("shape", "axes"), [((4, 3, 5, 8), (0, 1, 2)), ((2, 3, 4, 5, 8), (1, 2, 3))])
def test_own_gradient_of_batch_norm_is_the_derived_one(dtype, shape, axes):
    with precision(dtype):
        x, weights, scale, bias = arrays(dtype, shape, shape, (8,), (8,))
        given = [jnp.asarray(leaf) for leaf in (3 * x + 1, scale, bias)]
        forms = [lambda x, s, b, form=form: form(x, s, b, axes, EPSILON) for form in (batch_norm, plain_batch_norm)]
        assert_same_gradients(*forms, given, weights, TOLERANCE[dtype])


def unfused(h, kernel, scale, bias):
    y = jax.lax.conv_general_dilated(h, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    z, mean, var = plain_batch_norm(y, scale, bias, (0, 1, 2), EPSILON)
    return z, mean[0, 0, 0], var[0, 0, 0]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("size", [(4, 5, 3), (1, 7, 7)], ids=str)
def test_convolution_and_norm_as_one_are_the_two_in_value_and_gradients(dtype, size):
    with precision(dtype):
        h, kernel, scale, bias, weights = arrays(dtype, (*size, 6), (1, 1, 6, 24), (24,), (24,), (*size, 24))
        given = [jnp.asarray(leaf) for leaf in (np.maximum(h, 0), kernel, scale, bias)]
        one = functools.partial(pointwise_batch_norm, epsilon=EPSILON)
        assert_same_gradients(lambda *args: one(*args), unfused, given, weights, 5 * TOLERANCE[dtype])


def test_convolution_and_norm_as_one_are_no_further_from_float64_in_bfloat16_than_the_two():
    with jax.enable_x64(True):
        h, kernel, scale, bias = arrays("float64", (8, 14, 14, 16), (1, 1, 16, 64), (64,), (64,))
        rounded = [jnp.asarray(np.maximum(h, 0), jnp.bfloat16), jnp.asarray(kernel / 4, jnp.bfloat16)]
        weights = jnp.asarray(RNG.normal(size=(8, 14, 14, 64)))

        def gradients(function, dtype):
            def total(h, kernel, scale, bias):
                return jnp.sum(weights * jnp.sin(function(h, kernel, scale, bias)[0].astype(jnp.float64)))

            wide = jnp.float64 if dtype == jnp.float64 else jnp.float32
            maps = [leaf.astype(dtype) for leaf in rounded]
            return jax.jit(jax.grad(total, (0, 1, 2, 3)))(*maps, *(jnp.asarray(leaf, wide) for leaf in (scale, bias)))

        exact = gradients(unfused, jnp.float64)
        fused = gradients(functools.partial(pointwise_batch_norm, epsilon=EPSILON), jnp.bfloat16)
        for ours, theirs, truth in zip(fused, gradients(unfused, jnp.bfloat16), exact, strict=True):
            errors = [float(jnp.linalg.norm((leaf - truth).ravel())) for leaf in (ours, theirs)]
            assert errors[0] < 1.2 * errors[1] + 1e-6 * float(jnp.linalg.norm(truth.ravel()))


def test_two_passes_hold_for_a_mean_of_a_thousand_standard_deviations():
    x = (RNG.normal(size=(16, 8, 8, 4)) + 1000).astype(np.float32)
    mean, var = moments(jnp.asarray(x), (0, 1, 2))
    np.testing.assert_allclose(mean[0, 0, 0], x.astype(np.float64).mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(var[0, 0, 0], x.astype(np.float64).var((0, 1, 2)), rtol=1e-4)


@pytest.mark.parametrize("ratio", [0, 30, 256])
def test_one_pass_holds_to_a_percent_as_far_as_16_bits_hold_the_deviations(ratio):
    x = jnp.asarray(RNG.normal(size=(16, 16, 16, 4)) + ratio, jnp.bfloat16)
    _, var = moments(x, (0, 1, 2))
    np.testing.assert_allclose(var[0, 0, 0], np.asarray(x, np.float64).var((0, 1, 2)), rtol=1e-2)


def test_a_variance_is_never_negative():
    x = jnp.full((4, 7, 7, 3), 1.01e4, jnp.bfloat16)
    assert float(moments(x, (0, 1, 2))[1].min()) >= 0
    y, _, var = pointwise_batch_norm(x, jnp.ones((1, 1, 3, 6), jnp.bfloat16), jnp.ones(6), jnp.zeros(6), EPSILON)
    assert float(var.min()) >= 0
    assert bool(jnp.all(jnp.isfinite(y)))


def lowered(platform: str, dtype=jnp.bfloat16, **spec) -> str:
    """The program for a platform of the gradient of a wide 1x1 convolution and its batch norm."""

    def total(variables, x):
        y = Conv(32, 1, dtype=dtype, lazy=True).apply({"params": variables["conv"]}, x)
        norm = BatchNorm(**spec)(name="norm", train=True)
        z, _ = norm.apply({"params": variables["norm"]}, y, mutable=["batch_stats"])
        return jnp.sum(jnp.square(z.astype(jnp.float32)))

    shape = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.float32)
    norm = {"scale": shape((32,)), "bias": shape((32,))}
    variables = {"conv": {"kernel": shape((1, 1, 8, 32))}, "norm": norm}
    x = jax.ShapeDtypeStruct((4, 6, 6, 8), dtype)
    return jax.jit(jax.grad(total)).trace(variables, x).lower(lowering_platforms=(platform,)).as_text()


COVARIANCE = re.compile(r"dot_general.*tensor<4x6x6x8xbf16>, tensor<4x6x6x8xbf16>\) -> tensor<8x8xf32>")


def test_only_a_tpu_takes_the_moments_from_the_input_of_the_convolution():
    assert COVARIANCE.search(lowered("tpu"))
    for platform in ("cpu", "cuda"):
        assert not COVARIANCE.search(lowered(platform))


def test_float32_virtual_batches_and_plain_norms_store_the_convolution():
    assert "tensor<8x8xf32>" not in lowered("tpu", jnp.float32)
    assert "tensor<8x8xf32>" not in lowered("tpu", virtual_batch_size=2)
    assert "tensor<8x8xf32>" not in lowered("tpu", plain=True)


def test_plain_has_forward_mode_derivatives():
    module = BatchNorm(plain=True)(name="norm", train=True)
    x = jnp.asarray(RNG.normal(size=(4, 3, 3, 8)), jnp.float32)
    variables = module.init(jax.random.key(0), x)

    def out(x):
        return module.apply(variables, x, mutable=["batch_stats"])[0]

    _, tangent = jax.jvp(out, (x,), (jnp.ones_like(x),))
    np.testing.assert_allclose(tangent, 0, atol=1e-5)  # a common shift of a channel changes nothing
