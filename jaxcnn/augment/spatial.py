"""Operations that move pixels. Each takes a key and images [N, H, W, C] and draws for each image alone."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxcnn.augment.draws import apart, change_chosen, chosen
from jaxcnn.config import AffineConfig


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
    dy, dx = (jnp.where(active, offset, 0) for offset in offsets)
    return apart(jnp.any(active), lambda images: shift(images, dy, dx), images)


def flip(key: jax.Array, images: jax.Array, prob: float) -> jax.Array:
    """Returns images of which each is mirrored left to right with probability `prob`."""
    return jnp.where(chosen(key, images, prob), images[:, :, ::-1], images)


def vertical_flip(key: jax.Array, images: jax.Array, prob: float) -> jax.Array:
    """Returns images of which each is mirrored top to bottom with probability `prob`."""
    return jnp.where(chosen(key, images, prob), images[:, ::-1], images)


def affine(key: jax.Array, images: jax.Array, config: AffineConfig) -> jax.Array:
    """Returns float32 images rotated, scaled, sheared and shifted by amounts drawn for each."""
    which, *keys = jax.random.split(key, 6)
    n, h, w, _ = images.shape
    limits: tuple[Any, ...] = (
        jnp.deg2rad(config.rotation_deg),
        config.scale,
        jnp.deg2rad(config.shear_deg),
        config.translate * h,
        config.translate * w,
    )
    angle, scale, shear, dy, dx = (
        jax.random.uniform(k, (n,), minval=-limit, maxval=limit) for k, limit in zip(keys, limits, strict=True)
    )
    # From a place in the result to the place in the image: undo the shift, the scale, the rotation, then the shear.
    cos, sin, tan = jnp.cos(angle) / (1 + scale), jnp.sin(angle) / (1 + scale), jnp.tan(shear)
    rows = [jnp.stack([cos, -sin], -1), jnp.stack([sin + tan * cos, cos - tan * sin], -1)]
    matrices = jnp.stack(rows, -2)
    offsets = -jnp.einsum("nij,nj->ni", matrices, jnp.stack([dy, dx], -1), precision="highest")
    mask = chosen(which, images, config.prob)
    return change_chosen(mask, lambda images: warp(images, matrices, offsets), images.astype(jnp.float32))


def places(shape: tuple[int, int], matrices: jax.Array, offsets: jax.Array | None = None) -> jax.Array:
    """Returns [N, H * W, 2]: where each pixel p of the result lies in the image, A (p - c) + c + b, as (y, x).

    Args:
      shape: H and W; c is the centre ((H - 1) / 2, (W - 1) / 2).
      matrices: A for each image, [N, 2, 2].
      offsets: b for each image, [N, 2]; none: 0.
    """
    h, w = shape
    centre = jnp.array([(h - 1) / 2, (w - 1) / 2])
    grid = jnp.stack(jnp.meshgrid(jnp.arange(h), jnp.arange(w), indexing="ij"), -1).reshape(-1, 2) - centre  # [HW, 2]
    place = jnp.einsum("nij,pj->npi", matrices, grid, precision="highest") + centre
    return place if offsets is None else place + offsets[:, None]


def warp(images: jax.Array, matrices: jax.Array, offsets: jax.Array | None = None) -> jax.Array:
    """Returns float32 images whose pixel p is the input [N, H, W, C] at `places`, bilinear, 0 outside."""
    n, h, w, channels = images.shape
    place = places((h, w), matrices, offsets)
    corner = jnp.floor(place)
    part = place - corner
    flat = images.reshape(n, h * w, channels).astype(jnp.float32)
    total = jnp.zeros(flat.shape, jnp.float32)
    for dy, dx in ((0, 0), (0, 1), (1, 0), (1, 1)):
        share = jnp.abs(1 - dy - part[..., 0]) * jnp.abs(1 - dx - part[..., 1])
        value, inside = _take(flat, (h, w), corner[..., 0] + dy, corner[..., 1] + dx)
        total += value * jnp.where(inside, share, 0.0)[..., None]
    return total.reshape(images.shape)


def warp_nearest(images: jax.Array, matrices: jax.Array, offsets: jax.Array | None = None) -> jax.Array:
    """Returns images of the same type whose pixel p is the input's pixel nearest to `places`, 0 outside."""
    n, h, w, channels = images.shape
    place = jnp.floor(places((h, w), matrices, offsets) + 0.5)
    value, inside = _take(images.reshape(n, h * w, channels), (h, w), place[..., 0], place[..., 1])
    return jnp.where(inside[..., None], value, jnp.zeros((), images.dtype)).reshape(images.shape)


def _take(flat: jax.Array, shape: tuple[int, int], y: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Pixels (y, x) [N, P] of images [N, HW, C], and which of them are inside; those outside are any pixel."""
    h, w = shape
    rows, columns = y.astype(jnp.int32), x.astype(jnp.int32)
    inside = (rows >= 0) & (rows < h) & (columns >= 0) & (columns < w)
    index = jnp.clip(rows, 0, h - 1) * w + jnp.clip(columns, 0, w - 1)
    return jnp.take_along_axis(flat, index[..., None], axis=1), inside
