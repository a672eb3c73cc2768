"""Crops that are resized to the network's input: random ones, and the largest in the centre."""

import jax
import jax.numpy as jnp

from jaxcnn.augment.draws import chosen, rectangles
from jaxcnn.config import ResizedCropConfig


def resized_crop(key: jax.Array, images: jax.Array, shape: tuple[int, int], config: ResizedCropConfig) -> jax.Array:
    """Returns float32 [N, h, w, C]: a random rectangle of each image, resized to (h, w).

    The rectangles are those of Inception (Szegedy et al. 2014, section 6) as torchvision draws them; an image for
    which none of ten fits, or that is not chosen, gets `centre_box`.

    Args:
      key: of the draw.
      images: [N, H, W, C], 0..255, of any size.
      shape: (h, w).
      config: probability, area and shape.
    """
    which, where = jax.random.split(key)
    n, *stored, _ = images.shape
    boxes, found = rectangles(where, n, (stored[0], stored[1]), config.area, config.aspect)
    active = chosen(which, images, config.prob).reshape(n) & found
    centre = jnp.array(centre_box((stored[0], stored[1]), shape), jnp.int32)
    return crop_and_resize(images, jnp.where(active[:, None], boxes, centre), shape)


def centre_box(stored: tuple[int, int], shape: tuple[int, int]) -> tuple[int, int, int, int]:
    """Returns (top, left, height, width): the largest centred rectangle in (H, W) of the shape of (h, w)."""
    scale = min(stored[0] / shape[0], stored[1] / shape[1])
    height, width = (max(1, round(scale * side)) for side in shape)
    return (stored[0] - height) // 2, (stored[1] - width) // 2, height, width


def crop_and_resize(images: jax.Array, boxes: jax.Array, shape: tuple[int, int]) -> jax.Array:
    """Returns float32 [N, h, w, C]: boxes int32 [N, 4] (top, left, height, width) of images, resized to (h, w).

    Bilinear with antialiasing, as PIL and torchvision do it: where the box is larger than the result, each pixel is a
    triangle-weighted mean of as many as it stands for; nothing outside the box is seen.
    """
    top, left, height, width = jnp.moveaxis(boxes, -1, 0)
    rows = _weights(top, height, images.shape[1], shape[0])  # [N, h, H]
    columns = _weights(left, width, images.shape[2], shape[1])  # [N, w, W]
    pixels = images.astype(jnp.float32)
    pixels = jnp.einsum("nyh,nhwc->nywc", rows, pixels, precision="highest")  # [N, h, W, C]
    return jnp.einsum("nxw,nywc->nyxc", columns, pixels, precision="highest")  # [N, h, w, C]


def _weights(start: jax.Array, length: jax.Array, stored: int, size: int) -> jax.Array:
    """[N, size, stored]: the weight of each stored pixel in each pixel of the result, along one axis; rows sum to 1."""
    scale = length.astype(jnp.float32)[:, None, None] / size
    centre = start[:, None, None] + (jnp.arange(size) + 0.5)[:, None] * scale
    place = jnp.arange(stored)
    distance = jnp.abs(place + 0.5 - centre) / jnp.maximum(scale, 1.0)
    inside = (place >= start[:, None, None]) & (place < (start + length)[:, None, None])
    weight = jnp.where(inside, jnp.maximum(1 - distance, 0.0), 0.0)
    return weight / jnp.sum(weight, axis=-1, keepdims=True)
