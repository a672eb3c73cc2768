"""The configured operations in their order, as one function.

1 place     resized_crop, pad_crop, affine, flip, vertical_flip
2 policy    randaugment or trivialaugment, on pixels rounded to uint8
3 colour    brightness, contrast, saturation, hue, grayscale
4 blur
5 normalise a channel; from here on 0 is the mean of the data
6 blank     cutout, erasing
7 mix       mixup or cutmix
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxcnn.augment import colour
from jaxcnn.augment.blur import blur
from jaxcnn.augment.crop import resized_crop
from jaxcnn.augment.erasing import cutout, erase
from jaxcnn.augment.mixing import Mix, mix
from jaxcnn.augment.normalise import normalise
from jaxcnn.augment.policy import randaugment, trivialaugment
from jaxcnn.augment.spatial import affine, flip, pad_and_crop, vertical_flip
from jaxcnn.config import AugmentConfig
from jaxcnn.errors import InputError

Augment = Callable[[jax.Array, jax.Array], tuple[jax.Array, Mix | None]]
Keys = dict[str, jax.Array]

_DRAWS = (
    "pad_crop", "affine", "flip", "cutout", "resized_crop", "vertical_flip", "randaugment", "trivialaugment",
    "brightness", "contrast", "saturation", "hue", "grayscale", "blur", "erasing", "mix",
)  # fmt: skip
"""Who gets which key; a new operation is appended, so that the draws of the others stay as they were."""


def make_augment(
    config: AugmentConfig,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    image_shape: tuple[int, int, int] | None = None,
    skip_crop: bool = False,
) -> Augment:
    """Returns (key, images uint8 [N, H, W, C]) -> (float32 [N, h, w, C], Mix): augmented and normalised a channel.

    Operations with probability 0 leave no trace in the program; Mix is none where no images are mixed. The result is a
    function of the key and of an image's place in the batch, whatever devices the batch is divided over.

    Args:
      config: what to do.
      mean: of each channel, in 0..1.
      std: likewise.
      image_shape: (h, w, C) of the result; only resized_crop takes images of another size; none: that of the images.
      skip_crop: leave out resized_crop, which the loader has done.

    Raises:
      InputError: operations that exclude each other, or a range that ends below its start.
    """
    check(config)

    def augment(key: jax.Array, images: jax.Array) -> tuple[jax.Array, Mix | None]:
        keys = dict(zip(_DRAWS, jax.random.split(key, len(_DRAWS)), strict=True))
        shape = images.shape[1:] if image_shape is None else image_shape
        if config.resized_crop.prob and not skip_crop:
            images = resized_crop(keys["resized_crop"], images, (shape[0], shape[1]), config.resized_crop)
        if images.shape[1:] != tuple(shape):
            raise ValueError(f"{images.shape=} must end with {image_shape=}, or resized_crop.prob be above 0")
        images = _place(keys, images, config)
        images = _policy(keys, images, config)
        images = _colour(keys, images, config)
        images = normalise(images, mean, std)
        if config.cutout.prob:
            images = cutout(keys["cutout"], images, config.cutout.size_px, config.cutout.prob)
        if config.erasing.prob:
            images = erase(keys["erasing"], images, config.erasing)
        if config.mixup.prob or config.cutmix.prob:
            return mix(keys["mix"], images, config.mixup, config.cutmix)
        return images, None

    return augment


def check(config: AugmentConfig) -> None:
    """Raises InputError where operations exclude each other, or a range ends below its start."""
    if config.mixup.prob + config.cutmix.prob > 1:
        raise InputError(
            f"augment.mixup.prob={config.mixup.prob} and augment.cutmix.prob={config.cutmix.prob} are more than 1 "
            "together, but an image gets at most one of them"
        )
    if config.randaugment.prob and config.trivialaugment.prob:
        raise InputError("augment.randaugment.prob and augment.trivialaugment.prob are both above 0; set one to 0")
    ranges = {
        "resized_crop.area": config.resized_crop.area,
        "resized_crop.aspect": config.resized_crop.aspect,
        "blur.sigma_px": config.blur.sigma_px,
        "erasing.area": config.erasing.area,
        "erasing.aspect": config.erasing.aspect,
    }
    for name, (low, high) in ranges.items():
        if low > high:
            raise InputError(f"augment.{name}={low, high}: the first number must not be above the second")


def _place(keys: Keys, images: jax.Array, config: AugmentConfig) -> jax.Array:
    """Images with their pixels moved; of the type of the images, or float32."""
    if config.pad_crop.prob and config.pad_crop.pad_px:
        images = pad_and_crop(keys["pad_crop"], images, config.pad_crop.pad_px, config.pad_crop.prob)
    if config.affine.prob:
        images = affine(keys["affine"], images, config.affine)
    if config.flip.prob:
        images = flip(keys["flip"], images, config.flip.prob)
    if config.vertical_flip.prob:
        images = vertical_flip(keys["vertical_flip"], images, config.vertical_flip.prob)
    return images


def _policy(keys: Keys, images: jax.Array, config: AugmentConfig) -> jax.Array:
    """Images after RandAugment or TrivialAugment."""
    if not (config.randaugment.prob or config.trivialaugment.prob):
        return images
    if images.dtype != jnp.uint8:
        images = jnp.round(images).astype(jnp.uint8)
    if config.randaugment.prob:
        return randaugment(keys["randaugment"], images, config.randaugment)
    return trivialaugment(keys["trivialaugment"], images, config.trivialaugment.prob)


def _colour(keys: Keys, images: jax.Array, config: AugmentConfig) -> jax.Array:
    """Images with other colours, and blurred; float32 if any of that is on."""
    operations: tuple[tuple[str, Any, Callable[[jax.Array, jax.Array, Any], jax.Array]], ...] = (
        ("brightness", config.brightness, colour.brightness),
        ("contrast", config.contrast, colour.contrast),
        ("saturation", config.saturation, colour.saturation),
        ("hue", config.hue, colour.hue),
        ("grayscale", config.grayscale, colour.grayscale),
        ("blur", config.blur, blur),
    )
    for name, part, operation in operations:
        if part.prob:
            images = operation(keys[name], images.astype(jnp.float32), part)
    return images
