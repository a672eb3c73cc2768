"""The arithmetic of batch norm in training, with its own gradient: what it stores and how often it reads a map.

For y = scale · x̂ + bias with x̂ = (x - mean) · r, r = 1 / sqrt(var + epsilon), over M values a channel:

    dbias = sum dy,  dscale = sum dy · x̂,  dx = scale · r · (dy - dbias / M - x̂ · dscale / M)

(Ioffe & Szegedy 2015, section 3). Derived automatically, x - mean is stored in float32 for the way back; here x itself
is kept, in its own type, which the convolution before has stored anyway, and two values a channel.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax

Saved = tuple[jax.Array, ...]


def moments(x: jax.Array, axes: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    """Returns mean and biased variance of x over `axes`, which are kept with length 1; float32 or wider.

    float32 and wider: the mean of squared deviations, two passes, right also where the mean is thousands of standard
    deviations. Narrower types: max(0, E[x²] - E[x]²) in float32, one pass, which a TPU does while the convolution that
    makes x writes it. Its relative error is at most some 1e-7 · (1 + mean² / var), so below 1 % for a mean of up to 256
    standard deviations; beyond, a bfloat16 with its 8 bits no longer holds the deviations themselves.
    """
    if x.dtype.itemsize >= 4:
        mean = jnp.mean(x, axes, keepdims=True)
        return mean, jnp.mean(jnp.square(x - mean), axes, keepdims=True)
    wide = x.astype(jnp.float32)
    mean = jnp.mean(wide, axes, keepdims=True)
    return mean, jnp.maximum(jnp.mean(jnp.square(wide), axes, keepdims=True) - jnp.square(mean), 0)


def normalise(
    x: jax.Array, mean: jax.Array, var: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float
) -> jax.Array:
    """Returns (x - mean) / sqrt(var + epsilon) · scale + bias; all broadcast against x."""
    return (x - mean) * (lax.rsqrt(var + epsilon) * scale) + bias


def plain_batch_norm(
    x: jax.Array, scale: jax.Array, bias: jax.Array, axes: tuple[int, ...], epsilon: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns (y, mean, var) as `batch_norm` does, with the derivatives that JAX finds, forward mode among them."""
    mean, var = moments(x, axes)
    wide = x.astype(mean.dtype)
    return normalise(wide, mean, var, scale, bias, epsilon).astype(x.dtype), mean, var


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def batch_norm(
    x: jax.Array, scale: jax.Array, bias: jax.Array, axes: tuple[int, ...], epsilon: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns (y, mean, var): x [..., C] normalised by its moments over `axes`.

    y has the type of x; mean and var have length 1 along `axes`, and no gradient goes through them as outputs: they
    are for the running statistics.
    """
    return plain_batch_norm(x, scale, bias, axes, epsilon)


def _forward(
    x: jax.Array, scale: jax.Array, bias: jax.Array, axes: tuple[int, ...], epsilon: float
) -> tuple[tuple[jax.Array, jax.Array, jax.Array], Saved]:
    y, mean, var = plain_batch_norm(x, scale, bias, axes, epsilon)
    return (y, mean, var), (x, scale, mean, lax.rsqrt(var + epsilon))


def _backward(axes: tuple[int, ...], epsilon: float, saved: Saved, cotangents: Saved) -> Saved:
    x, scale, mean, r = saved
    dy = cotangents[0].astype(mean.dtype)
    wide = x.astype(mean.dtype)
    count = math.prod(x.shape[axis] for axis in axes)
    dbias = jnp.sum(dy, axes, keepdims=True)
    # sum dy · x̂ without a map of x̂: what is lost where mean >> std was lost in x itself, to the same order
    dscale = r * (jnp.sum(dy * wide, axes, keepdims=True) - mean * dbias)
    dx = scale * r * (dy - dbias / count - (wide - mean) * (r * dscale / count))
    features = scale.shape[0]  # several parts share one scale and bias
    of_parts = [leaf.reshape(-1, features).sum(0).astype(scale.dtype) for leaf in (dscale, dbias)]
    return dx.astype(x.dtype), *of_parts


batch_norm.defvjp(_forward, _backward)
