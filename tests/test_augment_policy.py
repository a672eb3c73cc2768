"""RandAugment and TrivialAugment: each operation against PIL at several magnitudes, and what is drawn."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from jaxcnn.augment import tables
from jaxcnn.augment.policy import BLENDS, OPERATIONS, WARPS, WIDE, Space, apply, rand_space, randaugment, trivialaugment
from jaxcnn.config import RandAugmentConfig

KEY = jax.random.key(1)
H, W = 33, 24
RNG = np.random.default_rng(0)
# Noise, and smooth images with few values, for the tables.
IMAGES = np.concatenate(
    [
        RNG.integers(0, 256, (2, H, W, 3), np.uint8),
        np.clip(RNG.normal(90, 15, (2, H, W, 3)), 0, 255).astype(np.uint8),
        np.stack(np.broadcast_arrays(*np.ogrid[40 : 40 + H, 20 : 20 + W], 7), -1).astype(np.uint8)[None],
    ]
)


def with_pil(image: Image.Image, name: str, magnitude: int, sign: int, space: Space) -> Image.Image:
    """The operation as the papers' code and torchvision do it with PIL."""
    share = magnitude / 30
    signed = sign * share
    shift_y, shift_x = (int(signed * limit) for limit in space.translate)
    matrices = {
        "shear_x": (1, signed * space.shear, 0, 0, 1, 0),
        "shear_y": (1, 0, 0, signed * space.shear, 1, 0),
        "translate_x": (1, 0, -shift_x, 0, 1, 0),
        "translate_y": (1, 0, 0, 0, 1, -shift_y),
    }
    if name in matrices:
        return image.transform(image.size, Image.Transform.AFFINE, matrices[name], Image.Resampling.NEAREST)
    enhancers = {"brightness": "Brightness", "color": "Color", "contrast": "Contrast", "sharpness": "Sharpness"}
    if name in enhancers:
        return getattr(ImageEnhance, enhancers[name])(image).enhance(1 + signed * space.blend)
    rest = {
        "identity": lambda: image,
        "rotate": lambda: image.rotate(signed * space.rotation_deg, Image.Resampling.NEAREST),
        "posterize": lambda: ImageOps.posterize(image, 8 - round(share * space.posterize_bits)),
        "solarize": lambda: ImageOps.solarize(image, 255 * (1 - share)),
        "autocontrast": lambda: ImageOps.autocontrast(image),
        "equalize": lambda: ImageOps.equalize(image),
    }
    return rest[name]()


def applied(images: np.ndarray, name: str, magnitude: int, sign: int, space: Space) -> np.ndarray:
    operation, level, direction = (jnp.full((len(images),), x) for x in (OPERATIONS.index(name), magnitude, sign))
    out = JITTED(jnp.asarray(images), operation, level, direction, space)
    assert out.dtype == jnp.uint8
    return np.asarray(out)


JITTED = jax.jit(apply, static_argnums=4)


@pytest.mark.parametrize("channels", [3, 1])
@pytest.mark.parametrize("space", [rand_space((H, W)), WIDE], ids=["rand", "wide"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_each_operation_is_pils(name: str, space: Space, channels: int) -> None:
    images = IMAGES[..., :channels]
    for magnitude in (0, 7, 18, 30):
        for sign in (1, -1):
            out = applied(images, name, magnitude, sign, space)
            for image, found in zip(images, out, strict=True):
                pil = Image.fromarray(image if channels == 3 else image[..., 0])
                expected = np.asarray(with_pil(pil, name, magnitude, sign, space)).reshape(image.shape)
                different = found != expected
                if name in ("shear_x", "shear_y", "rotate"):  # a place on the edge of two pixels may fall on either
                    assert different.any(-1).mean() < 0.01, (magnitude, sign)
                elif name in ("autocontrast", "brightness", "color", "contrast", "sharpness"):
                    # PIL's factors are rounded before they multiply: a whole level may be cut to the one below.
                    assert different.mean() < 0.02, (magnitude, sign)
                    assert np.abs(found.astype(int) - expected).max() <= 1
                else:
                    assert not different.any(), (magnitude, sign)


@pytest.mark.parametrize("shape", [(1, 1), (2, 5), (3, 3)])
def test_tiny_images_are_pils_too(shape: tuple[int, int]) -> None:
    images = RNG.integers(0, 256, (3, *shape, 3), np.uint8)
    for name in ("sharpness", "equalize", "autocontrast", "translate_x", "contrast"):
        for image, found in zip(images, applied(images, name, 20, 1, WIDE), strict=True):
            expected = np.asarray(with_pil(Image.fromarray(image), name, 20, 1, WIDE))
            assert np.abs(found.astype(int) - expected).max() <= 1, name


def test_grey_is_pils_for_every_kind_of_colour() -> None:
    image = RNG.integers(0, 256, (256, 256, 3), np.uint8)
    found = tables.grey(jnp.asarray(image[None]))[0, ..., 0]
    np.testing.assert_array_equal(found, np.asarray(Image.fromarray(image).convert("L")))


def test_randaugment_draws_each_operation_and_sign_equally_often() -> None:
    image, count = IMAGES[2], 1024
    many = jnp.asarray(np.tile(image, (count, 1, 1, 1)))
    out = np.asarray(randaugment(KEY, many, RandAugmentConfig(1.0, num_ops=1, magnitude=15)))
    outcomes: dict[tuple[str, int], np.ndarray] = {}
    for name in OPERATIONS:
        for sign in (1, -1) if name in WARPS + BLENDS else (1,):
            outcomes[name, sign] = applied(image[None], name, 15, sign, rand_space((H, W)))[0]
    # The nearest outcome: two programs may round a few pixels differently.
    distance = np.stack([np.abs(out - expected.astype(int)).mean((1, 2, 3)) for expected in outcomes.values()])
    assert distance.min(0).max() < 0.02
    share = np.bincount(distance.argmin(0), minlength=len(outcomes)) / count
    for (name, _), found in zip(outcomes, share, strict=True):
        expected = 1 / 14 / (2 if name in WARPS + BLENDS else 1)
        assert abs(found - expected) < 4 * math.sqrt(expected / count), name


def test_rounds_follow_each_other_and_images_not_chosen_stay() -> None:
    many = jnp.asarray(np.tile(IMAGES[2], (512, 1, 1, 1)))
    for prob, stay in ((1.0, 1 / 14**2), (0.5, 0.5 + 0.5 / 14**2), (0.0, 1.0)):
        out = np.asarray(randaugment(KEY, many, RandAugmentConfig(prob, num_ops=2, magnitude=15)))
        same = np.mean([np.array_equal(o, IMAGES[2]) for o in out])
        assert abs(same - stay) < 4 * math.sqrt(stay * (1 - stay) / 512) + 0.01
    assert len({o.tobytes() for o in np.asarray(randaugment(KEY, many, RandAugmentConfig(1.0, 2, 15)))}) > 100


def test_trivialaugment_draws_magnitudes_of_the_whole_range() -> None:
    many = jnp.asarray(np.tile(IMAGES[2], (2048, 1, 1, 1)))
    out = {o.tobytes() for o in np.asarray(trivialaugment(KEY, many, 1.0))}
    posterized = {applied(IMAGES[2:3], "posterize", m, 1, WIDE).tobytes() for m in range(31)}
    assert len(posterized) == 7  # 8 to 2 bits
    assert posterized <= out
    turned = {applied(IMAGES[2:3], "rotate", m, s, WIDE).tobytes() for m in range(31) for s in (1, -1)}
    assert len(turned) == 61
    assert len(turned & out) > 40
