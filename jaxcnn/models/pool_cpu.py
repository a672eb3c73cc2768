"""Max-pooling on CPU, whose gradient XLA finds there by a scatter, pixel after pixel, on one core.

Here the place of each maximum is kept, a small number, and the gradient is put together from masks of it.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
from jax import lax


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def max_pool_cpu(window: int, stride: int, padding: int, x: jax.Array) -> jax.Array:
    """Returns the maxima [N, H', W', C] of windows of x [N, H, W, C], padded on both sides; NaN where there is one.

    The gradient goes to the first of equal maxima, along rows, as in `lax.reduce_window` and PyTorch. It is a rule of
    reverse mode: forward mode fails.
    """
    return _forward(window, stride, padding, x)[0]


def _forward(window: int, stride: int, padding: int, x: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    sides = (padding, padding, 0)
    padded = lax.pad(x, jnp.array(-jnp.inf, x.dtype), [(0, 0, 0), sides, sides, (0, 0, 0)])
    ends = [size - window + 1 for size in padded.shape[1:3]]
    corners = list(itertools.product(range(window), repeat=2))
    values = [padded[:, i : i + ends[0] : stride, j : j + ends[1] : stride] for i, j in corners]
    kind = jnp.uint8 if window < 16 else jnp.uint16  # two numbers are left that are no places
    best, place = values[0], jnp.zeros(values[0].shape, kind)
    for k, value in enumerate(values[1:], start=1):
        better = (value > best) | (jnp.isnan(value) & ~jnp.isnan(best))
        best, place = jnp.where(better, value, best), jnp.where(better, jnp.array(k, kind), place)
    return best, (place, jnp.zeros((0, *x.shape[1:3]), x.dtype))


def _backward(
    window: int, stride: int, padding: int, saved: tuple[jax.Array, jax.Array], dy: jax.Array
) -> tuple[jax.Array]:
    """A pixel at s·u + r of the padded map takes dy of the windows u - q whose maximum was at their place s·q + r."""
    place, like = saved
    h, w = like.shape[1:]
    blocks = [-(-(size + 2 * padding) // stride) for size in (h, w)]  # of `stride` pixels
    inside = jnp.arange(stride)
    dx = jnp.zeros((), dy.dtype)
    for q, p in itertools.product(range(-(-window // stride)), repeat=2):
        # The place of each pixel of a block in window (u - q, v - p); beyond the window it is no place of any maximum.
        rows, columns = inside + q * stride, inside + p * stride
        places = jnp.where(columns < window, rows[:, None] * window + columns, window**2).astype(place.dtype)
        of_block = (_shifted(array, (q, p), blocks, fill) for array, fill in ((place, window**2 + 1), (dy, 0)))
        places_of, dy_of = (array[:, :, None, :, None] for array in of_block)  # [N, blocks, 1, blocks, 1, C]
        dx = dx + jnp.where(places_of == places[:, None, :, None], dy_of, jnp.zeros((), dy.dtype))
    dx = dx.reshape(len(dy), blocks[0] * stride, blocks[1] * stride, dy.shape[-1])
    return (dx[:, padding : padding + h, padding : padding + w],)


def _shifted(x: jax.Array, shifts: tuple[int, int], lengths: list[int], fill: int) -> jax.Array:
    """x [N, H', W', C] moved down and to the right, cut or filled to `lengths`."""
    sides = [(shift, length - out - shift, 0) for shift, length, out in zip(shifts, lengths, x.shape[1:3], strict=True)]
    return lax.pad(x, jnp.array(fill, x.dtype), [(0, 0, 0), *sides, (0, 0, 0)])


max_pool_cpu.defvjp(_forward, _backward)
