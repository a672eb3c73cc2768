"""The convolution: values and both gradients against sums written out in numpy, and against lax."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.models import conv_cpu as cpu_path
from jaxcnn.models.conv import Conv, _lax_conv, conv
from jaxcnn.models.conv_cpu import conv_cpu

# n, h, w, c, o, side, stride, padding, groups
CASES = [
    (2, 5, 6, 4, 6, 3, 1, 1, 1),
    (1, 6, 6, 4, 6, 3, 2, 1, 2),
    (2, 7, 6, 3, 3, 7, 2, 3, 3),
    (2, 5, 5, 4, 8, 1, 2, 0, 1),
    (2, 4, 4, 4, 8, 1, 1, 0, 4),
    (2, 2, 2, 2, 4, 3, 1, 1, 1),
    (1, 1, 1, 2, 2, 3, 2, 1, 2),
    (2, 9, 7, 2, 2, 5, 3, 2, 1),
    (2, 6, 6, 2, 2, 2, 2, 0, 1),
    (2, 9, 9, 2, 2, 3, 4, 0, 1),
    (1, 4, 4, 2, 2, 1, 1, 1, 1),
    (2, 23, 24, 3, 2, 1, 1, 0, 1),
    (2, 45, 46, 2, 3, 1, 2, 0, 1),
    (2, 1, 9, 3, 2, 3, 2, 1, 1),
    (18, 5, 4, 2, 3, 3, 2, 1, 1),
]


def written_out(x: np.ndarray, kernel: np.ndarray, dy: np.ndarray, stride: int, padding: int, groups: int):
    """(y, dx, dkernel) by the definition: a sum over kernel places, float64."""
    side, _, in_group, features = kernel.shape
    padded = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    y, dpadded, dkernel = np.zeros(dy.shape), np.zeros(padded.shape), np.zeros(kernel.shape)
    rows, columns = dy.shape[1:3]
    out_group = features // groups
    for i, j, g in itertools.product(range(side), range(side), range(groups)):
        ins, outs = slice(g * in_group, (g + 1) * in_group), slice(g * out_group, (g + 1) * out_group)
        place = np.s_[:, i : i + stride * rows : stride, j : j + stride * columns : stride, ins]
        y[..., outs] += padded[place][:, :rows, :columns] @ kernel[i, j, :, outs]
        dpadded[place] += dy[..., outs] @ kernel[i, j, :, outs].T
        dkernel[i, j, :, outs] += np.einsum("npqc,npqo->co", padded[place], dy[..., outs])
    h, w = x.shape[1:3]
    return y, dpadded[:, padding : padding + h, padding : padding + w], dkernel


def draw(case: tuple[int, ...]):
    n, h, w, c, o, side, stride, padding, groups = case
    rng = np.random.default_rng(sum(case))
    x, kernel = rng.normal(size=(n, h, w, c)), rng.normal(size=(side, side, c // groups, o))
    rows, columns = ((length + 2 * padding - side) // stride + 1 for length in (h, w))
    return x, kernel, rng.normal(size=(n, rows, columns, o)), (stride, padding, groups)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_value_and_gradients_are_the_written_out_sums(case: tuple[int, ...]) -> None:
    x, kernel, dy, (stride, padding, groups) = draw(case)
    with jax.enable_x64(True):
        y, transpose = jax.vjp(lambda x, k: conv(x, k, stride, padding, groups), jnp.asarray(x), jnp.asarray(kernel))
        found = [np.asarray(value) for value in (y, *transpose(jnp.asarray(dy)))]
    for value, expected in zip(found, written_out(x, kernel, dy, stride, padding, groups), strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("case", [(18, 5, 4, 2, 4, 3, 2, 1, 2), (24, 4, 4, 2, 3, 3, 1, 1, 1)], ids=str)
def test_gradient_of_the_kernel_some_images_at_a_time(case: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    x, kernel, dy, (stride, padding, groups) = draw(case)
    monkeypatch.setattr(cpu_path, "_CHUNK_BYTES", 1)
    with jax.enable_x64(True):
        arguments = (jnp.asarray(x), jnp.asarray(dy), case[5], stride, padding, groups)
        text = str(jax.make_jaxpr(cpu_path._kernel_gradient, static_argnums=(2, 3, 4, 5))(*arguments))
        assert "dynamic_slice" in text
        found = cpu_path._kernel_gradient(*arguments)
    np.testing.assert_allclose(found, written_out(x, kernel, dy, stride, padding, groups)[2], rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(("shape", "side", "padding"), [((0, 4, 4, 2), 3, 1), ((2, 2, 2, 2), 5, 1)])
def test_where_there_is_no_output_gradients_are_zero(shape: tuple[int, ...], side: int, padding: int) -> None:
    x, kernel = jnp.ones(shape), jnp.ones((side, side, 2, 3))
    y, transpose = jax.vjp(lambda x, k: conv(x, k, 1, padding), x, kernel)
    assert y.size == 0
    dx, dkernel = transpose(y)
    assert dx.shape == shape
    assert not dx.any()
    assert not dkernel.any()


def test_kernel_gradient_in_16_bits_is_summed_in_32() -> None:
    x, kernel, dy, _ = draw((64, 8, 8, 4, 4, 3, 1, 1, 1))
    x, dy = (jnp.asarray(value, jnp.bfloat16) for value in (x, dy))
    expected = written_out(np.asarray(x, float), kernel, np.asarray(dy, float), 1, 1, 1)[2]
    found = cpu_path._kernel_gradient(x, dy, 3, 1, 1, 1)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.slow
def test_cpu_path_is_lax_over_a_grid() -> None:
    """Every side, stride, padding and grouping on odd, even and tiny maps: value and both gradients, float64."""
    grid = itertools.product((1, 2, 3, 5, 7), (1, 2, 3, 4), (0, 1, 2, 3), (1, 2), ((1, 1), (2, 3), (5, 4), (8, 8)))
    checked = 0
    with jax.enable_x64(True):
        for side, stride, padding, groups, (h, w) in grid:
            if min(h, w) + 2 * padding < side or padding >= side:
                continue
            x, kernel, dy, _ = draw((1 + h % 2, h, w, 2, 4, side, stride, padding, groups))
            found = jax.vjp(functools.partial(conv_cpu, stride, padding, groups), jnp.asarray(x), jnp.asarray(kernel))
            values = [found[0], *found[1](jnp.asarray(dy))]
            for value, expected in zip(values, written_out(x, kernel, dy, stride, padding, groups), strict=True):
                np.testing.assert_allclose(value, expected, rtol=1e-11, atol=1e-11)
            checked += 1
    assert checked > 200


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("case", CASES[:6], ids=str)
def test_cpu_path_equals_lax_in_low_precision(case: tuple[int, ...], dtype: jnp.dtype) -> None:
    x, kernel, dy, (stride, padding, groups) = draw(case)
    x, kernel, dy = (jnp.asarray(value, dtype) for value in (x, kernel, dy))
    ours = functools.partial(conv_cpu, stride, padding, groups)
    theirs = functools.partial(_lax_conv, stride=stride, padding=padding, groups=groups)
    pairs = []
    for function in (ours, theirs):
        y, transpose = jax.vjp(function, x, kernel)
        pairs.append([np.asarray(value, np.float32) for value in (y, *transpose(dy))])
    for value, expected in zip(*pairs, strict=True):
        np.testing.assert_allclose(value, expected, atol=float(jnp.finfo(dtype).eps) * np.abs(expected).max() * 4)


def test_gradients_in_a_loop_are_canonical_convolutions() -> None:
    """The derived forms run many times slower inside a loop on CPU: none may come back."""

    def body(_, carry):
        x, kernel = carry
        y, transpose = jax.vjp(lambda x, k: conv(x, k, 1, 1), x, kernel)
        dx, dkernel = transpose(jnp.tanh(y))
        return x + dx, kernel + dkernel

    loop = jax.jit(lambda x, k, n: jax.lax.fori_loop(0, n, body, (x, k)))
    text = loop.lower(jnp.ones((4, 8, 8, 4)), jnp.ones((3, 3, 4, 4)), 3).compile().as_text()
    labels = {word.strip(",") for word in text.split() if word.startswith("dim_labels=")}
    assert labels == {"dim_labels=b01f_01io->b01f"}


def test_other_platforms_get_the_plain_convolution() -> None:
    """Lowered for a TPU, the step has no custom form: lax alone, with its own transposes."""
    gradient = jax.jit(jax.grad(lambda k, x: conv(x, k, 1, 1).sum()))
    arguments = (jnp.ones((3, 3, 4, 4)), jnp.ones((2, 8, 8, 4)))
    trace = gradient.trace(*arguments)
    text = {platform: trace.lower(lowering_platforms=(platform,)).as_text() for platform in ("cpu", "tpu")}
    derived = "[f, 0, 1, b]x[i, 0, 1, o]->[0, 1, b, f]"
    assert derived in text["tpu"]
    assert derived not in text["cpu"]


def test_padding_keeps_the_size_and_stride_halves_it() -> None:
    x = jnp.ones((1, 8, 8, 2))
    for side in (1, 3, 5, 7):
        assert Conv(4, side).init_with_output(jax.random.key(0), x)[0].shape == (1, 8, 8, 4)
        assert Conv(4, side, 2).init_with_output(jax.random.key(0), x)[0].shape == (1, 4, 4, 4)


def test_groups_must_divide_the_channels() -> None:
    with pytest.raises(ValueError, match="groups=3 must divide in_features=4 and features=6"):
        Conv(6, groups=3).init(jax.random.key(0), jnp.ones((1, 4, 4, 4)))


def test_plain_convolution_has_a_forward_derivative() -> None:
    model = Conv(2, plain=True)
    x = jnp.ones((1, 4, 4, 2))
    variables = model.init(jax.random.key(0), x)
    tangent = jax.jvp(lambda x: model.apply(variables, x), (x,), (x,))[1]
    np.testing.assert_allclose(tangent, model.apply(variables, x), rtol=1e-6)  # linear
