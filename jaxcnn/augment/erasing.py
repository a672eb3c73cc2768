"""Operations that blank a part of the image."""

import math

import jax
import jax.numpy as jnp

from jaxcnn.augment.draws import change_chosen, chosen, inside, rectangles
from jaxcnn.config import ErasingConfig


def cutout(key: jax.Array, images: jax.Array, size_px: int, prob: float) -> jax.Array:
    """Returns normalised images [N, H, W, C] with a square of side `size_px` set to 0, the mean of the data.

    The centre is uniform over the image, so the border may cut the square (DeVries & Taylor 2017, section 3.2).
    """
    which, where_y, where_x = jax.random.split(key, 3)
    n, h, w, _ = images.shape
    top, left = (jax.random.randint(k, (n,), 0, size) - size_px // 2 for k, size in ((where_y, h), (where_x, w)))
    side = jnp.full((n,), size_px)
    square = inside(jnp.stack([top, left, side, side], -1), (h, w))
    return jnp.where(square & chosen(which, images, prob), jnp.zeros((), images.dtype), images)


def erase(key: jax.Array, images: jax.Array, config: ErasingConfig) -> jax.Array:
    """Returns normalised images [N, H, W, C] with a rectangle inside each filled (Zhong et al. 2017, algorithm 1).

    The paper's noise is uniform in 0..255; here it is brought to mean 0 and variance 1, those of the data.
    """
    which, where, what = jax.random.split(key, 3)
    n, h, w, _ = images.shape
    boxes, found = rectangles(where, n, (h, w), config.area, config.aspect)
    active = inside(boxes, (h, w)) & chosen(which, images, config.prob) & found[:, None, None, None]
    if config.fill == "mean":
        return jnp.where(active, jnp.zeros((), images.dtype), images)
    return change_chosen(active, lambda same: _noise(what, same), images)


def _noise(key: jax.Array, images: jax.Array) -> jax.Array:
    """Noise for images [N, H, W, C]: uniform over 256 levels, mean 0, variance 1; four pixels of one random word."""
    n, *sides = images.shape
    words = jax.random.bits(key, (n, -(-math.prod(sides) // 4)), jnp.uint32)
    levels = jax.lax.bitcast_convert_type(words, jnp.uint8).reshape(n, -1)[:, : math.prod(sides)]
    return ((levels.astype(images.dtype) - 127.5) * (12 / (256**2 - 1)) ** 0.5).reshape(images.shape)
