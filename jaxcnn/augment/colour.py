"""Operations on colours: (key, images float32 [N, H, W, C] in 0..255) -> the same, cut to 0..255.

An image with one channel has neither saturation nor hue: those operations leave it as it is.
"""

import jax
import jax.numpy as jnp

from jaxcnn.augment.draws import change_chosen, chosen, factors
from jaxcnn.config import BrightnessConfig, ContrastConfig, GrayscaleConfig, HueConfig, SaturationConfig

LUMA = (0.299, 0.587, 0.114)  # ITU-R 601, as in PIL


def luma(images: jax.Array) -> jax.Array:
    """Returns the grey [N, H, W, 1] of images with 1 or 3 channels; not rounded."""
    if images.shape[-1] == 1:
        return images
    return sum(weight * images[..., i : i + 1] for i, weight in enumerate(LUMA))  # type: ignore[return-value]


def mean_luma(images: jax.Array) -> jax.Array:
    """Returns the mean of `luma` over each image [N, 1, 1, 1]; as one product, which is the fastest sum on CPU."""
    n, h, w, channels = images.shape
    weights = jnp.tile(jnp.array(LUMA if channels == 3 else (1.0,), jnp.float32), h * w) / (h * w)
    return jnp.dot(images.reshape(n, -1), weights, precision="highest").reshape(n, 1, 1, 1)


def blend(images: jax.Array, reference: jax.Array | float, factor: jax.Array) -> jax.Array:
    """Returns factor * images + (1 - factor) * reference, cut to 0..255; factor [N, 1, 1, 1], 1 is the image."""
    return jnp.clip(factor * images + (1 - factor) * reference, 0.0, 255.0)


def brightness(key: jax.Array, images: jax.Array, config: BrightnessConfig) -> jax.Array:
    """Returns images times a factor for each."""
    return blend(images, 0.0, factors(key, images, config.prob, config.strength))


def contrast(key: jax.Array, images: jax.Array, config: ContrastConfig) -> jax.Array:
    """Returns images blended with their mean luma."""
    return blend(images, mean_luma(images), factors(key, images, config.prob, config.strength))


def saturation(key: jax.Array, images: jax.Array, config: SaturationConfig) -> jax.Array:
    """Returns images blended with their luma."""
    if images.shape[-1] == 1:
        return images
    return blend(images, luma(images), factors(key, images, config.prob, config.strength))


def hue(key: jax.Array, images: jax.Array, config: HueConfig) -> jax.Array:
    """Returns images whose hue in HSV is turned by a share of the circle drawn for each."""
    if images.shape[-1] == 1:
        return images
    which, amount = jax.random.split(key)
    turn = jax.random.uniform(amount, (images.shape[0], 1, 1), jnp.float32, -config.shift, config.shift)
    return change_chosen(chosen(which, images, config.prob), lambda images: turn_hue(images, turn), images)


def turn_hue(images: jax.Array, turn: jax.Array) -> jax.Array:
    """Returns images [N, H, W, 3] whose hue in HSV is turned by `turn` [N, 1, 1], a share of the circle."""
    red, green, blue = jnp.moveaxis(images, -1, 0)  # each [N, H, W]
    value = jnp.maximum(jnp.maximum(red, green), blue)
    chroma = value - jnp.minimum(jnp.minimum(red, green), blue)
    sixth = 1 / jnp.maximum(chroma, 1e-6)
    angle = jnp.where(
        value == red,
        (green - blue) * sixth,
        jnp.where(value == green, 2 + (blue - red) * sixth, 4 + (red - green) * sixth),
    )  # in sixths of the circle, -1..5
    angle += 6 * turn

    def channel(offset: int) -> jax.Array:  # falls from the value to value - chroma around the channel's opposite
        place = angle + offset
        place -= 6 * jnp.floor(place / 6)  # the remainder; `%` takes twice as long on CPU
        return value - chroma * jnp.clip(jnp.minimum(place, 4 - place), 0.0, 1.0)

    return jnp.stack([channel(5), channel(3), channel(1)], axis=-1)


def grayscale(key: jax.Array, images: jax.Array, config: GrayscaleConfig) -> jax.Array:
    """Returns images of which each is grey in all channels with probability `config.prob`."""
    return jnp.where(chosen(key, images, config.prob), luma(images), images)
