"""A 1x1 convolution and the batch norm after it as one function, in which the convolution's output is never stored.

The convolution is linear, y = h W with h [N, H, W, I] and W [I, O], so the moments of y follow from those of h:

    mean(y) = mean(h) W,    var(y) = diag(Wᵀ C W),    C = cov(h), I x I

and normalising becomes part of writing y. So do the sums of the way back: with D = hᵀ dz - M mean(h) mean(dz)ᵀ, I x O,

    dbias = sum dz,    dscale = r · diag(Wᵀ D),    dW = D diag(a) + M C W diag(k)
    dh = (a · dz) Wᵀ + h W diag(k) Wᵀ + W (-k · mean(y) - a · dbias / M)

where r = 1 / sqrt(var + epsilon), a = scale · r, k = -a · r · dscale / M. This is the derivative of `batch_norm(h W)`,
sum for sum, without y in it. In a bottleneck y has four times the channels of h: on a TPU, where memory traffic is what
a step waits for, the last convolution's output was 4 of the 10 parts that a block kept, and 4 of its 5 reads are gone.
The price is the product C, I / O of the convolution's arithmetic, forward and once more back.

Guarantee: the products are summed in float32 and C is centred before W meets it, so what is lost is lost where h, not
y, has a mean of many standard deviations; after a norm and ReLU it has about one. It is meant for 16-bit types; a
float32 network takes the two passes of `batch_norm`.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax

_NHWC = ("NHWC", "HWIO", "NHWC")
_small = functools.partial(jnp.matmul, precision=lax.Precision.HIGHEST)  # of parameters, not of maps

Saved = tuple[jax.Array, ...]


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def pointwise_batch_norm(
    h: jax.Array, kernel: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns (z, mean, var) of y = conv(h, kernel): z [N, H, W, O] = scale · (y - mean) / sqrt(var + epsilon) + bias.

    Args:
      h: [N, H, W, I].
      kernel: [1, 1, I, O], of the type of h, as z is.
      scale, bias: [O].
      epsilon: added to the variance.

    mean and var are [O], float32 or wider; no gradient goes through them as outputs.
    """
    return _forward(h, kernel, scale, bias, epsilon)[0]


def _forward(
    h: jax.Array, kernel: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float
) -> tuple[tuple[jax.Array, jax.Array, jax.Array], Saved]:
    wide = jnp.promote_types(h.dtype, jnp.float32)
    weights, count = kernel[0, 0].astype(wide), math.prod(h.shape[:3])
    mean_in = jnp.sum(h, (0, 1, 2), wide) / count  # [I]
    squares = jnp.einsum("nhwi,nhwj->ij", h, h, preferred_element_type=wide) / count
    spread = _small(squares - mean_in[:, None] * mean_in, weights)  # C W [I, O]
    mean = _small(mean_in, weights)
    var = jnp.maximum(jnp.sum(weights * spread, 0), 0)
    r = lax.rsqrt(var + epsilon)
    y = lax.conv_general_dilated(h, kernel, (1, 1), "VALID", dimension_numbers=_NHWC, preferred_element_type=wide)
    z = (y - mean) * (r * scale) + bias
    return (z.astype(h.dtype), mean, var), (h, kernel, scale, mean_in, spread, mean, r)


def _backward(epsilon: float, saved: Saved, cotangents: Saved) -> Saved:
    h, kernel, scale, mean_in, spread, mean, r = saved
    dz, wide = cotangents[0], mean.dtype
    weights, count = kernel[0, 0].astype(wide), math.prod(h.shape[:3])
    dbias = jnp.sum(dz, (0, 1, 2), wide)
    cross = jnp.einsum("nhwi,nhwo->io", h, dz, preferred_element_type=wide) - mean_in[:, None] * dbias  # D
    dscale = r * jnp.sum(weights * cross, 0)
    a = scale * r
    k = -a * r * dscale / count
    dweights = cross * a + count * spread * k
    turned = lax.conv_general_dilated(
        (dz.astype(wide) * a).astype(h.dtype),
        kernel.transpose(0, 1, 3, 2),
        (1, 1),
        "VALID",
        dimension_numbers=_NHWC,
    )
    correction = lax.conv_general_dilated(
        h, _small(weights * k, weights.T).astype(h.dtype)[None, None], (1, 1), "VALID", dimension_numbers=_NHWC
    )
    constant = _small(weights, -k * mean - a * dbias / count)
    dh = turned.astype(wide) + correction.astype(wide) + constant
    return (
        dh.astype(h.dtype),
        dweights[None, None].astype(kernel.dtype),
        dscale.astype(scale.dtype),
        dbias.astype(scale.dtype),
    )


pointwise_batch_norm.defvjp(_forward, _backward)
