"""Operations that blank a part of the image."""

import jax
import jax.numpy as jnp

from jaxcnn.augment.draws import chosen, inside, rectangles
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

    The paper's noise is uniform in 0..255; here it is uniform with mean 0 and variance 1, those of the data.
    """
    which, where, what = jax.random.split(key, 3)
    n, h, w, _ = images.shape
    boxes, found = rectangles(where, n, (h, w), config.area, config.aspect)
    active = chosen(which, images, config.prob) & found[:, None, None, None]
    if config.fill == "mean":
        value = jnp.zeros((), images.dtype)
    else:
        value = jax.random.uniform(what, images.shape, images.dtype, -(3**0.5), 3**0.5)
    return jnp.where(inside(boxes, (h, w)) & active, value, images)
