"""Gaussian blur with a width drawn for each image."""

import math

import jax
import jax.numpy as jnp

from jaxcnn.augment.draws import change_chosen, chosen
from jaxcnn.config import BlurConfig

_REACH = 3.0  # standard deviations that the kernel reaches: 99.7 % of a Gaussian


def blur(key: jax.Array, images: jax.Array, config: BlurConfig) -> jax.Array:
    """Returns float32 images [N, H, W, C] of which a share is blurred (Chen et al. 2020, SimCLR, appendix A)."""
    which, amount = jax.random.split(key)
    sigma = jax.random.uniform(amount, (images.shape[0],), jnp.float32, *config.sigma_px)
    radius = radius_of(config.sigma_px[1], images.shape[1:3])
    mask = chosen(which, images, config.prob)
    return change_chosen(mask, lambda images: gaussian(images, sigma, radius), images.astype(jnp.float32))


def radius_of(sigma_px: float, shape: tuple[int, ...]) -> int:
    """Returns the reach in pixels of the kernel, the same for all images: three sigmas, and less than the sides."""
    return max(0, min(math.ceil(_REACH * sigma_px), min(shape) - 1))


def gaussian(images: jax.Array, sigma: jax.Array, radius: int) -> jax.Array:
    """Returns float32 images [N, H, W, C] convolved with a Gaussian each, sigma [N] in pixels.

    The border is mirrored without repeating its pixel; weights end at `radius` and sum to 1.
    """
    place = jnp.arange(-radius, radius + 1)
    weights = jnp.exp(-0.5 * jnp.square(place / sigma[:, None]))  # [N, 2 * radius + 1]
    weights = (weights / jnp.sum(weights, axis=1, keepdims=True))[..., None, None, None]
    pixels = images.astype(jnp.float32)
    for axis in (1, 2):
        size = pixels.shape[axis]
        padding = [(radius, radius) if side == axis else (0, 0) for side in range(4)]
        padded = jnp.pad(pixels, padding, mode="reflect")
        shifted = (jax.lax.slice_in_dim(padded, i, i + size, axis=axis) for i in range(2 * radius + 1))
        pixels = sum(weights[:, i] * part for i, part in enumerate(shifted))  # type: ignore[assignment]
    return pixels
