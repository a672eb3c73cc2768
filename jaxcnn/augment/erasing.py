"""Operations that blank a part of the image."""

import jax
import jax.numpy as jnp

from jaxcnn.augment.spatial import chosen


def cutout(key: jax.Array, images: jax.Array, size_px: int, prob: float) -> jax.Array:
    """Returns normalised images [N, H, W, C] with a square of side `size_px` set to 0, the mean of the data.

    The centre is uniform over the image, so the border may cut the square (DeVries & Taylor 2017, section 3.2).
    """
    which, where_y, where_x = jax.random.split(key, 3)
    n, h, w, _ = images.shape

    def band(k: jax.Array, size: int) -> jax.Array:  # bool [N, size]: the side of the square along one axis
        start = jax.random.randint(k, (n, 1), 0, size) - size_px // 2
        place = jnp.arange(size)
        return (place >= start) & (place < start + size_px)

    square = band(where_y, h)[:, :, None, None] & band(where_x, w)[:, None, :, None]
    return jnp.where(square & chosen(which, images, prob), jnp.zeros((), images.dtype), images)
