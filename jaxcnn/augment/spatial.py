"""Operations that move pixels. Each takes a key and images [N, H, W, C] and draws for each image alone."""

import jax
import jax.numpy as jnp


def chosen(key: jax.Array, images: jax.Array, prob: float) -> jax.Array:
    """Returns bool [N, 1, 1, 1]: which images an operation of probability `prob` changes."""
    return jax.random.bernoulli(key, prob, (images.shape[0], 1, 1, 1))


def shift(images: jax.Array, dy: jax.Array, dx: jax.Array) -> jax.Array:
    """Returns images whose pixel (y, x) is (y + dy, x + dx) of the input, 0 outside; dy, dx: int32 [N]."""
    for axis, offset in ((1, dy), (2, dx)):
        size = images.shape[axis]
        place = offset[:, None] + jnp.arange(size)  # [N, size]
        shape = (-1, size, 1, 1) if axis == 1 else (-1, 1, size, 1)
        moved = jnp.take_along_axis(images, jnp.clip(place, 0, size - 1).reshape(shape), axis=axis)
        inside = (place >= 0) & (place < size)
        images = jnp.where(inside.reshape(shape), moved, jnp.zeros((), images.dtype))
    return images


def pad_and_crop(key: jax.Array, images: jax.Array, pad_px: int, prob: float) -> jax.Array:
    """Returns images zero-padded by `pad_px` on each side and cropped at random (He et al. 2015, section 4.2)."""
    which, where_y, where_x = jax.random.split(key, 3)
    offsets = [jax.random.randint(k, (images.shape[0],), -pad_px, pad_px + 1) for k in (where_y, where_x)]
    active = chosen(which, images, prob).reshape(-1)
    return shift(images, *(jnp.where(active, offset, 0) for offset in offsets))


def flip(key: jax.Array, images: jax.Array, prob: float) -> jax.Array:
    """Returns images of which each is mirrored left to right with probability `prob`."""
    return jnp.where(chosen(key, images, prob), images[:, :, ::-1], images)
