"""RandAugment and TrivialAugment: operations of one list, drawn for each image.

In a batch every image would go through every operation. So each round is three steps that hold all of them, a warp, a
blend with a reference and a lookup table, each with parameters for each image that say what it does, or nothing.
Images are uint8 throughout and every operation rounds as PIL does.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn.augment import tables
from jaxcnn.augment.draws import apart
from jaxcnn.augment.spatial import warp_nearest
from jaxcnn.config import RandAugmentConfig

WARPS = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
BLENDS = ("brightness", "color", "contrast", "sharpness")
TABLES = ("posterize", "solarize", "autocontrast", "equalize")
OPERATIONS = ("identity", *WARPS, *BLENDS, *TABLES)
"""The list of Cubuk et al. 2019, figure 2, and of Müller & Hutter 2021, table 1, in torchvision's order."""
NUM_MAGNITUDES = 31


class Space(NamedTuple):
    """The largest amount of each kind of operation, at magnitude 30; at 0 none does anything but solarize at 255."""

    shear: float
    """Tangent of the angle."""
    translate: tuple[float, float]
    """Pixels along y and x."""
    rotation_deg: float
    blend: float
    """Largest distance of the factor from 1."""
    posterize_bits: int
    """Bits taken off the 8."""


def rand_space(shape: tuple[int, int]) -> Space:
    """Returns the amounts of RandAugment for images of a shape (H, W), as in torchvision."""
    return Space(0.3, (150 / 331 * shape[0], 150 / 331 * shape[1]), 30.0, 0.9, 4)


WIDE = Space(0.99, (32.0, 32.0), 135.0, 0.99, 6)
"""The wide space of TrivialAugment; its shift is in pixels whatever the size of the image, as in the paper."""


def randaugment(key: jax.Array, images: jax.Array, config: RandAugmentConfig) -> jax.Array:
    """Returns images uint8 [N, H, W, C] after `config.num_ops` operations of magnitude `config.magnitude`."""
    n, h, w, _ = images.shape
    which, *keys = jax.random.split(key, 1 + config.num_ops)
    active = jax.random.bernoulli(which, config.prob, (n,))
    magnitude = jnp.full((n,), config.magnitude)
    for round_key in keys:
        op_key, sign_key = jax.random.split(round_key)
        operation = jnp.where(active, jax.random.randint(op_key, (n,), 0, len(OPERATIONS)), 0)
        sign = 2 * jax.random.randint(sign_key, (n,), 0, 2) - 1
        images = apply(images, operation, magnitude, sign, rand_space((h, w)))
    return images


def trivialaugment(key: jax.Array, images: jax.Array, prob: float) -> jax.Array:
    """Returns images uint8 [N, H, W, C] after one operation each, of a magnitude uniform in 0..30."""
    n = images.shape[0]
    which, op_key, magnitude_key, sign_key = jax.random.split(key, 4)
    active = jax.random.bernoulli(which, prob, (n,))
    operation = jnp.where(active, jax.random.randint(op_key, (n,), 0, len(OPERATIONS)), 0)
    magnitude = jax.random.randint(magnitude_key, (n,), 0, NUM_MAGNITUDES)
    sign = 2 * jax.random.randint(sign_key, (n,), 0, 2) - 1
    return apply(images, operation, magnitude, sign, WIDE)


def apply(images: jax.Array, operation: jax.Array, magnitude: jax.Array, sign: jax.Array, space: Space) -> jax.Array:
    """Returns images uint8 [N, H, W, C] after an operation each.

    Args:
      images: the images, with 1 or 3 channels.
      operation: int32 [N], places in OPERATIONS.
      magnitude: int32 [N], 0..30.
      sign: int32 [N], -1 or 1: the direction of geometric operations and blends.
      space: the amounts at magnitude 30.
    """
    largest = NUM_MAGNITUDES - 1
    matrices, offsets = _geometry(operation, sign * magnitude / largest, images.shape[1:3], space)
    images = apart(_any(operation, *WARPS), lambda images: warp_nearest(images, matrices, offsets), images)
    # In float64 and then rounded: 1 - 0.9 in float32 is more than PIL's 0.1, and a whole level would be another.
    factors = 1 + np.arange(-largest, largest + 1) / largest * space.blend
    factor = jnp.asarray(factors, jnp.float32)[sign * magnitude + largest]
    images = apart(_any(operation, *BLENDS), lambda images: _blend(images, operation, factor), images)
    needed = _any(operation, *TABLES)
    identity = jnp.broadcast_to(jnp.arange(256, dtype=jnp.uint8), (images.shape[0], images.shape[3], 256))
    lookup = apart(needed, lambda lookup: _tables(lookup, images, operation, magnitude, space), identity)
    return apart(needed, lambda images: tables.look_up(images, lookup), images)


def _is(operation: jax.Array, *names: str) -> jax.Array:
    """Bool [N]: which images have one of the operations."""
    return jnp.isin(operation, jnp.array([OPERATIONS.index(name) for name in names]))


def _any(operation: jax.Array, *names: str) -> jax.Array:
    """Bool []: whether an image has one of the operations."""
    return jnp.any(_is(operation, *names))


def _geometry(
    operation: jax.Array, amount: jax.Array, shape: tuple[int, ...], space: Space
) -> tuple[jax.Array, jax.Array]:
    """The warp [N, 2, 2], [N, 2] of each image; amount: signed share of the largest, [N]."""
    h, w = shape
    angle = jnp.deg2rad(jnp.where(_is(operation, "rotate"), amount * space.rotation_deg, 0.0))
    shear_x = jnp.where(_is(operation, "shear_x"), amount * space.shear, 0.0)
    shear_y = jnp.where(_is(operation, "shear_y"), amount * space.shear, 0.0)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    # Acting on (y, x); a turn is anticlockwise on the screen, and a shear is about the corner of the image.
    matrices = jnp.stack([jnp.stack([cos, shear_y + sin], -1), jnp.stack([shear_x - sin, cos], -1)], -2)
    down = jnp.where(_is(operation, "translate_y"), jnp.trunc(amount * space.translate[0]), 0.0)
    right = jnp.where(_is(operation, "translate_x"), jnp.trunc(amount * space.translate[1]), 0.0)
    return matrices, jnp.stack([shear_y * w / 2 - down, shear_x * h / 2 - right], -1)


def _blend(images: jax.Array, operation: jax.Array, factor: jax.Array) -> jax.Array:
    """The images blended with what their operation takes for the factor 0; others as they are."""

    def where(name: str) -> jax.Array:
        return _is(operation, name)[:, None, None, None]

    grey = tables.grey(images)
    reference = jnp.where(where("brightness"), 0, images.astype(jnp.int32))
    reference = jnp.where(where("color"), grey, reference)
    reference = jnp.where(where("contrast"), tables.mean_of(grey), reference)
    reference = jnp.where(where("sharpness"), tables.smooth(images), reference)
    # For the image itself the difference is 0. What is left is not negative: the cast cuts off, as PIL does.
    mixed = reference + factor[:, None, None, None] * (images - reference).astype(jnp.float32)
    return jnp.clip(mixed, 0.0, 255.0).astype(jnp.uint8)


def _tables(
    lookup: jax.Array, images: jax.Array, operation: jax.Array, magnitude: jax.Array, space: Space
) -> jax.Array:
    """The lookup table uint8 [N, C, 256] of each image; that given where its operation has none."""
    values = jnp.arange(256)

    def where(name: str) -> jax.Array:
        return _is(operation, name)[:, None, None]

    counts = tables.histogram(images)  # [N, C, 256]
    largest = NUM_MAGNITUDES - 1
    bits = jnp.round(magnitude * space.posterize_bits / largest).astype(jnp.int32)[:, None, None]
    lookup = jnp.where(where("posterize"), values >> bits << bits, lookup)
    solarized = jnp.where(values * largest < 255 * (largest - magnitude)[:, None, None], values, 255 - values)
    lookup = jnp.where(where("solarize"), solarized, lookup)
    lookup = jnp.where(where("autocontrast"), tables.autocontrast(counts), lookup)
    lookup = jnp.where(where("equalize"), tables.equalize(counts), lookup)
    return lookup.astype(jnp.uint8)
