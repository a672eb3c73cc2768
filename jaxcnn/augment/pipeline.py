"""The configured operations in their order, as one function."""

from collections.abc import Callable

import jax

from jaxcnn.augment.erasing import cutout
from jaxcnn.augment.normalise import normalise
from jaxcnn.augment.spatial import affine, flip, pad_and_crop
from jaxcnn.config import AugmentConfig

Augment = Callable[[jax.Array, jax.Array], jax.Array]


def make_augment(config: AugmentConfig, mean: tuple[float, ...], std: tuple[float, ...]) -> Augment:
    """Returns (key, images uint8 [N, H, W, C]) -> float32 images, augmented and normalised a channel.

    Operations with probability 0 leave no trace in the program. The result is a function of the key and of an image's
    place in the batch, whatever devices the batch is divided over.
    """

    def augment(key: jax.Array, images: jax.Array) -> jax.Array:
        crop_key, affine_key, flip_key, cutout_key = jax.random.split(key, 4)
        if config.pad_crop.prob and config.pad_crop.pad_px:
            images = pad_and_crop(crop_key, images, config.pad_crop.pad_px, config.pad_crop.prob)
        if config.affine.prob:
            images = affine(affine_key, images, config.affine)
        if config.flip.prob:
            images = flip(flip_key, images, config.flip.prob)
        images = normalise(images, mean, std)
        if config.cutout.prob:
            images = cutout(cutout_key, images, config.cutout.size_px, config.cutout.prob)
        return images

    return augment
