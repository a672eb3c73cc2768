"""Arithmetic of PIL's ImageOps and ImageEnhance on batches of uint8 images, exact to its rounding."""

import jax
import jax.numpy as jnp


def grey(images: jax.Array) -> jax.Array:
    """Returns int32 [N, H, W, 1]: PIL's conversion of uint8 images with 1 or 3 channels to "L"."""
    pixels = images.astype(jnp.int32)
    if images.shape[-1] == 1:
        return pixels
    red, green, blue = (pixels[..., i : i + 1] for i in range(3))
    return (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16


def mean_of(images: jax.Array) -> jax.Array:
    """Returns int32 [N, 1, 1, 1]: the rounded mean of grey images int32 [N, H, W, 1], of up to 8 million pixels."""
    count = images.shape[1] * images.shape[2]
    return (jnp.sum(images, axis=(1, 2, 3), keepdims=True) + count // 2) // count


def smooth(images: jax.Array) -> jax.Array:
    """Returns int32 [N, H, W, C]: PIL's SMOOTH, a 3x3 mean whose middle counts five times; the border stays."""
    pixels = images.astype(jnp.int32)
    _, h, w, _ = images.shape
    if h < 3 or w < 3:
        return pixels
    rows = pixels[:, :-2] + pixels[:, 1:-1] + pixels[:, 2:]
    total = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:] + 4 * pixels[:, 1:-1, 1:-1]
    inner = (2 * total + 13) // 26
    return jnp.pad(inner, ((0, 0), (1, 1), (1, 1), (0, 0))) + jnp.where(_border(h, w), pixels, 0)


def _border(h: int, w: int) -> jax.Array:
    """Bool [H, W, 1]: the outermost pixels."""
    y, x = jnp.arange(h)[:, None, None], jnp.arange(w)[None, :, None]
    return (y == 0) | (y == h - 1) | (x == 0) | (x == w - 1)


def histogram(images: jax.Array) -> jax.Array:
    """Returns int32 [N, C, 256]: how often each value is in each channel of uint8 images [N, H, W, C]."""
    n, h, w, channels = images.shape
    values = jnp.moveaxis(images.reshape(n, h * w, channels), -1, 1).astype(jnp.int32)  # [N, C, HW]

    def count(values: jax.Array) -> jax.Array:
        return jnp.zeros((256,), jnp.int32).at[values].add(1)

    return jax.vmap(jax.vmap(count))(values)  # so written, each device counts its own images


def autocontrast(counts: jax.Array) -> jax.Array:
    """Returns int32 [N, C, 256]: the table that stretches the values of histograms to 0..255, cut off."""
    values = jnp.arange(256)
    seen = counts > 0
    low = jnp.argmax(seen, axis=-1, keepdims=True)
    high = 255 - jnp.argmax(seen[..., ::-1], axis=-1, keepdims=True)
    stretched = 255 * (values - low) // jnp.maximum(high - low, 1)
    return jnp.where(high > low, jnp.clip(stretched, 0, 255), values)


def equalize(counts: jax.Array) -> jax.Array:
    """Returns int32 [N, C, 256]: the table after which the values of histograms are as evenly spread as can be."""
    values = jnp.arange(256)
    last = 255 - jnp.argmax((counts > 0)[..., ::-1], axis=-1, keepdims=True)
    step = (jnp.sum(counts, axis=-1, keepdims=True) - jnp.take_along_axis(counts, last, axis=-1)) // 255
    before = jnp.cumsum(counts, axis=-1) - counts
    spread = (step // 2 + before) // jnp.maximum(step, 1)
    return jnp.where(step > 0, jnp.minimum(spread, 255), values)


def look_up(images: jax.Array, lookup: jax.Array) -> jax.Array:
    """Returns lookup[n, c, images[n, y, x, c]], for images uint8 [N, H, W, C] and tables [N, C, 256]."""
    n, h, w, channels = images.shape
    index = images.reshape(n, h * w, channels).astype(jnp.int32)
    return jnp.take_along_axis(jnp.moveaxis(lookup, 1, 2), index, axis=1).reshape(images.shape)
