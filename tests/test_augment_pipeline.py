"""The operations together: what all share, in the order that the pipeline gives them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn import config_augment as configs
from jaxcnn import config_reader
from jaxcnn.augment import make_augment
from jaxcnn.augment.normalise import normalise
from jaxcnn.config import AffineConfig, AugmentConfig, PadCropConfig
from jaxcnn.errors import InputError
from tests.test_mesh import on_devices

KEY = jax.random.key(3)
IMAGES = np.random.default_rng(0).integers(1, 256, (64, 9, 7, 3), np.uint8)
OFF = AugmentConfig(PadCropConfig(0.0), AffineConfig(0.0))
OPERATIONS = [field.name for field in dataclasses.fields(AugmentConfig)]
MIXING = ("mixup", "cutmix")


def only(name: str, prob: float = 1.0, config: AugmentConfig = OFF) -> AugmentConfig:
    """Returns a config with one operation on, of its default strength."""
    return dataclasses.replace(config, **{name: dataclasses.replace(getattr(config, name), prob=prob)})


def everything(policy: str) -> AugmentConfig:
    """Returns a config with all that can be on together."""
    config = dataclasses.replace(OFF, erasing=configs.ErasingConfig(fill="noise"))
    for name in OPERATIONS:
        if name not in (*MIXING, "randaugment", "trivialaugment"):
            config = only(name, 0.5, config)
    return only("mixup", 0.4, only("cutmix", 0.4, only(policy, 0.8, config)))


def test_normalise_is_the_formula() -> None:
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    expected = (IMAGES / 255 - np.array(mean)) / np.array(std)
    np.testing.assert_allclose(normalise(jnp.asarray(IMAGES), mean, std), expected, atol=2e-6)


def test_probability_zero_is_normalisation_alone_and_leaves_no_trace_in_the_program() -> None:
    augment = make_augment(OFF, (0.0,) * 3, (1.0,) * 3)
    images, mix = augment(KEY, jnp.asarray(IMAGES))
    np.testing.assert_allclose(images, IMAGES / 255, atol=1e-6)
    assert mix is None
    plain = jax.jit(lambda key, images: (normalise(images, (0.0,) * 3, (1.0,) * 3), None))
    programs = [f.lower(KEY, IMAGES).compile().cost_analysis() for f in (jax.jit(augment), plain)]
    assert programs[0] == programs[1]


def test_the_defaults_are_the_quick_starts() -> None:
    on = {name for name in OPERATIONS if getattr(AugmentConfig(), name).prob}
    assert on == {"pad_crop", "affine"}
    assert AugmentConfig().affine.translate == 0


def test_the_same_key_gives_the_same_batch_and_another_another() -> None:
    config = only("erasing", 0.5, only("flip", 0.5, only("pad_crop", 0.5)))
    augment = jax.jit(make_augment(config, (0.5,) * 3, (0.2,) * 3))
    first, again, other = (augment(key, jnp.asarray(IMAGES))[0] for key in (KEY, KEY, jax.random.key(4)))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_images_of_a_batch_are_changed_independently(operation: str) -> None:
    prob = 0.5 if operation in ("flip", "vertical_flip", "grayscale") else 1.0
    same = jnp.asarray(np.repeat(IMAGES[:1], 64, axis=0))
    if operation in MIXING:
        same = same.at[::2].set(IMAGES[1])
    out, mix = jax.jit(make_augment(only(operation, prob), (0.5,) * 3, (0.2,) * 3))(KEY, same)
    assert out.shape == same.shape
    assert out.dtype == jnp.float32
    assert len({image.tobytes() for image in np.asarray(out)}) >= (2 if prob == 0.5 else 8)
    assert (mix is not None) == (operation in MIXING)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("channels", [1, 3])
def test_half_the_images_change_and_the_others_are_those_of_no_augmentation(operation: str, channels: int) -> None:
    images = jnp.asarray(IMAGES[..., :channels])
    statistics = (0.5,) * channels, (0.2,) * channels
    plain = np.asarray(make_augment(OFF, *statistics)(KEY, images)[0])
    out, mix = jax.jit(make_augment(only(operation, 0.5), *statistics))(KEY, images)
    same = np.array([np.allclose(o, p, atol=1e-5) for o, p in zip(np.asarray(out), plain, strict=True)])
    if channels == 1 and operation in ("saturation", "hue", "grayscale"):
        assert np.all(same)
    elif operation == "resized_crop":  # the others get the centre crop, here the image itself
        assert 0.25 < same.mean() < 0.75
    else:
        assert 0.2 < same.mean() < 0.9
    if mix is not None:
        assert np.all(same[np.asarray(mix.share) == 1])


@pytest.mark.parametrize(("policy", "channels"), [("trivialaugment", 1), ("randaugment", 3)])
def test_everything_at_once_is_finite(policy: str, channels: int) -> None:
    augment = jax.jit(make_augment(everything(policy), (0.5,) * channels, (0.2,) * channels, (6, 5, channels)))
    out, mix = augment(KEY, jnp.asarray(IMAGES[..., :channels]))
    assert out.shape == (64, 6, 5, channels)
    assert bool(jnp.all(jnp.isfinite(out)))
    assert mix.share.shape == mix.partner.shape == (64,)


def test_larger_images_are_cropped_to_the_shape_or_told() -> None:
    crop = make_augment(only("resized_crop"), (0.5,) * 3, (0.2,) * 3, (4, 5, 3))
    assert crop(KEY, jnp.asarray(IMAGES))[0].shape == (64, 4, 5, 3)
    for augment in (
        make_augment(OFF, (0.5,) * 3, (0.2,) * 3, (4, 5, 3)),
        make_augment(only("resized_crop"), (0.5,) * 3, (0.2,) * 3, (4, 5, 3), skip_crop=True),
    ):
        with pytest.raises(ValueError, match=r"images\.shape=\(64, 9, 7, 3\) must end with image_shape=\(4, 5, 3\)"):
            augment(KEY, jnp.asarray(IMAGES))


def test_a_crop_that_the_loader_has_done_is_left_out_and_changes_no_other_draw() -> None:
    config = only("flip", 0.5, only("resized_crop"))
    done = make_augment(config, (0.5,) * 3, (0.2,) * 3, (9, 7, 3), skip_crop=True)(KEY, jnp.asarray(IMAGES))[0]
    flipped = make_augment(only("flip", 0.5), (0.5,) * 3, (0.2,) * 3)(KEY, jnp.asarray(IMAGES))[0]
    np.testing.assert_array_equal(done, flipped)


def test_what_excludes_each_other_is_an_error_before_anything_compiles() -> None:
    cases = {
        r"augment\.mixup\.prob=0\.6 and augment\.cutmix\.prob=0\.5": only("mixup", 0.6, only("cutmix", 0.5)),
        r"augment\.randaugment\.prob and augment\.trivialaugment\.prob": only(
            "randaugment", 0.5, only("trivialaugment")
        ),
        r"augment\.blur\.sigma_px=\(2\.0, 1\.0\)": AugmentConfig(blur=configs.BlurConfig(sigma_px=(2.0, 1.0))),
    }
    for message, config in cases.items():
        with pytest.raises(InputError, match=message):
            make_augment(config, (0.5,) * 3, (0.2,) * 3)


def test_a_config_survives_its_file_and_values_out_of_range_are_told() -> None:
    config = everything("randaugment")
    assert config_reader.parse_json(AugmentConfig, config_reader.to_json(config), "c.json") == config
    for wrong in (
        AugmentConfig(randaugment=configs.RandAugmentConfig(magnitude=31)),
        AugmentConfig(resized_crop=configs.ResizedCropConfig(area=(0.0, 1.0))),
        AugmentConfig(hue=configs.HueConfig(shift=0.6)),
    ):
        with pytest.raises(InputError):
            config_reader.check(wrong, "c.py")


# A batch augmented on 1 and on 4 devices with everything on: prints the largest difference and the shares' difference.
DIVIDED = """
import jax, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxcnn.augment import make_augment
from tests.test_augment_pipeline import IMAGES, KEY, everything
results = []
for count in (1, 4):
    over = NamedSharding(Mesh(jax.devices()[:count], "data"), PartitionSpec("data"))
    augment = jax.jit(make_augment(everything("randaugment"), (0.5,) * 3, (0.2,) * 3), in_shardings=(None, over))
    compiled = augment.lower(KEY, IMAGES).compile()
    images, mix = compiled(KEY, jax.device_put(IMAGES, over))
    results.append([np.asarray(x) for x in (images, mix.share, mix.partner)])
largest = [np.abs(one - four).max() for one, four in zip(*results)]
print(*largest, images.sharding.is_equivalent_to(over, 4), " all-gather(" in compiled.as_text())
"""


def test_a_batch_is_the_same_whatever_it_is_divided_over_and_its_images_stay_where_they_are() -> None:
    *differences, stays, gathers = on_devices(4, DIVIDED).split()
    assert all(float(value) < 1e-5 for value in differences)
    assert stays == "True"
    assert gathers == "False"
