"""Pixels to the network's input."""

import jax
import jax.numpy as jnp


def normalise(images: jax.Array, mean: tuple[float, ...], std: tuple[float, ...]) -> jax.Array:
    """Returns float32 (x / 255 - mean) / std a channel, for images [N, H, W, C] in 0..255 and statistics in 0..1."""
    scale = 1 / (255 * jnp.asarray(std, jnp.float32))
    return images.astype(jnp.float32) * scale - jnp.asarray(mean, jnp.float32) / jnp.asarray(std, jnp.float32)
