"""Operations that mix an image with another of the batch, and what that says of its label."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jaxcnn.augment.draws import inside
from jaxcnn.config import CutmixConfig, MixupConfig


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Mix:
    """The target of image i is share[i] * onehot(label[i]) + (1 - share[i]) * onehot(label[partner[i]])."""

    partner: jax.Array
    """int32 [N]: place in the batch of the image mixed in."""
    share: jax.Array
    """float32 [N]: of the image itself, 0..1; 1 where nothing is mixed in."""


def mix(key: jax.Array, images: jax.Array, mixup: MixupConfig, cutmix: CutmixConfig) -> tuple[jax.Array, Mix]:
    """Returns images [N, H, W, C] of which each is blended with another, or has a part of it, or neither.

    The partner is the image before in the batch, as in torchvision: batches are in random order, and a batch that is
    divided over devices passes one image on. Shares are drawn for each image, where the papers draw one for a batch.
    """
    which, mixup_key, cutmix_key = jax.random.split(key, 3)
    n, h, w, _ = images.shape
    draw = jax.random.uniform(which, (n,))
    partners = jnp.roll(images, 1, axis=0)
    share = jnp.ones((n,), jnp.float32)
    own = jnp.ones((n, 1, 1, 1), jnp.float32)  # the weight of the image in each pixel
    if mixup.prob:
        lam = jax.random.beta(mixup_key, mixup.alpha, mixup.alpha, (n,), jnp.float32)
        share = jnp.where(draw < mixup.prob, lam, share)
        own = share[:, None, None, None]
    if cutmix.prob:
        active = (draw >= mixup.prob) & (draw < mixup.prob + cutmix.prob)
        boxes = cutmix_boxes(cutmix_key, n, (h, w), cutmix.alpha)
        kept = 1 - (boxes[:, 2] * boxes[:, 3]) / (h * w)
        share = jnp.where(active, kept.astype(jnp.float32), share)
        own = jnp.where(inside(boxes, (h, w)) & active[:, None, None, None], 0.0, own)
    mixed = own * images + (1 - own) * partners
    return mixed, Mix((jnp.arange(n, dtype=jnp.int32) - 1) % n, share)


def cutmix_boxes(key: jax.Array, count: int, shape: tuple[int, int], alpha: float) -> jax.Array:
    """Returns int32 [count, 4]: (top, left, height, width) of the rectangles to paste (Yun et al. 2019, section 3.1).

    With lambda ~ Beta(alpha, alpha) the sides are sqrt(1 - lambda) of the image's, and the centre is uniform over it;
    what the border cuts off is not in the box, so the share of the label is that of the pixels.
    """
    share_key, y_key, x_key = jax.random.split(key, 3)
    half = 0.5 * jnp.sqrt(1 - jax.random.beta(share_key, alpha, alpha, (count,), jnp.float32))

    def extent(k: jax.Array, size: int) -> tuple[jax.Array, jax.Array]:
        centre = jax.random.randint(k, (count,), 0, size)
        reach = (half * size).astype(jnp.int32)
        first, last = jnp.maximum(centre - reach, 0), jnp.minimum(centre + reach, size)
        return first, last - first

    (top, height), (left, width) = extent(y_key, shape[0]), extent(x_key, shape[1])
    return jnp.stack([top, left, height, width], axis=-1)
