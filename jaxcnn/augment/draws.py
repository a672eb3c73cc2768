"""What the operations draw: which images they change, amounts, rectangles. Each image's draw is its own."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

_ATTEMPTS = 10  # as in torchvision; with the usual ranges the first two nearly always hold one that fits


def chosen(key: jax.Array, images: jax.Array, prob: float) -> jax.Array:
    """Returns bool [N, 1, 1, 1]: which images an operation of probability `prob` changes."""
    return jax.random.bernoulli(key, prob, (images.shape[0], 1, 1, 1))


def apart(needed: jax.Array, change: Callable[[jax.Array], jax.Array], images: jax.Array) -> jax.Array:
    """Returns change(images); where `needed`, a bool [], is false that must be the images themselves.

    On CPU the change becomes a branch of the program. It is skipped if not needed, and above all it is not fused with
    what comes before: XLA would compute the input anew for each of its uses, ten times for a whole pipeline. For what
    uses each pixel once or twice, such as a flip, a branch costs more than it saves.
    """
    return lax.platform_dependent(
        images, cpu=lambda images: lax.cond(needed, change, lambda same: same, images), default=change
    )


def change_chosen(mask: jax.Array, change: Callable[[jax.Array], jax.Array], images: jax.Array) -> jax.Array:
    """Returns change(images), as the type of images, where `mask` is true, and images elsewhere.

    `mask` is bool [N, 1, 1, 1], or larger for parts of images.
    """

    def changed(images: jax.Array) -> jax.Array:
        return jnp.where(mask, change(images).astype(images.dtype), images)

    return apart(jnp.any(mask), changed, images)


def factors(key: jax.Array, images: jax.Array, prob: float, strength: float) -> jax.Array:
    """Returns float32 [N, 1, 1, 1]: uniform in 1 - strength to 1 + strength for a share `prob` of images, else 1."""
    which, amount = jax.random.split(key)
    drawn = jax.random.uniform(amount, (images.shape[0], 1, 1, 1), jnp.float32, 1 - strength, 1 + strength)
    return jnp.where(chosen(which, images, prob), drawn, 1.0)


def rectangles(
    key: jax.Array, count: int, shape: tuple[int, int], area: tuple[float, float], aspect: tuple[float, float]
) -> tuple[jax.Array, jax.Array]:
    """Returns (boxes int32 [count, 4], found bool [count]): rectangles inside an image, uniform over its places.

    Of ten draws the first that fits counts (Szegedy et al. 2014 and Zhong et al. 2017 repeat until one does).

    Args:
      key: of the draw.
      count: how many.
      shape: height and width of the image.
      area: smallest and largest share of its area, uniform.
      aspect: smallest and largest width over height, log-uniform.

    A box is (top, left, height, width) in pixels.
    """
    area_key, aspect_key, top_key, left_key = jax.random.split(key, 4)
    h, w = shape
    drawn = (count, _ATTEMPTS)
    pixels = h * w * jax.random.uniform(area_key, drawn, jnp.float32, *area)
    ratio = jnp.exp(jax.random.uniform(aspect_key, drawn, jnp.float32, *jnp.log(jnp.array(aspect, jnp.float32))))
    heights = jnp.round(jnp.sqrt(pixels / ratio)).astype(jnp.int32)
    widths = jnp.round(jnp.sqrt(pixels * ratio)).astype(jnp.int32)
    fits = (heights > 0) & (heights <= h) & (widths > 0) & (widths <= w)
    first = jnp.argmax(fits, axis=1, keepdims=True)
    height, width = (jnp.take_along_axis(sizes, first, axis=1)[:, 0] for sizes in (heights, widths))
    found = jnp.any(fits, axis=1)
    height, width = jnp.where(found, height, h), jnp.where(found, width, w)
    top = jax.random.randint(top_key, (count,), 0, h - height + 1)
    left = jax.random.randint(left_key, (count,), 0, w - width + 1)
    return jnp.stack([top, left, height, width], axis=-1), found


def inside(boxes: jax.Array, shape: tuple[int, int]) -> jax.Array:
    """Returns bool [N, H, W, 1]: which pixels of images of a shape (H, W) are in the boxes int32 [N, 4]."""

    def band(start: jax.Array, length: jax.Array, size: int) -> jax.Array:  # bool [N, size]
        place = jnp.arange(size)
        return (place >= start[:, None]) & (place < (start + length)[:, None])

    top, left, height, width = jnp.moveaxis(boxes, -1, 0)
    return band(top, height, shape[0])[:, :, None, None] & band(left, width, shape[1])[:, None, :, None]
