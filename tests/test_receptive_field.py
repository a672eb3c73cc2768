"""Receptive fields: the published sizes, and on small networks exactly the pixels whose change reaches an output."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxcnn.config import ModelConfig
from jaxcnn.inspection.effective_field import (
    at_initialisation,
    centre_of,
    ends_of,
    fit_gaussian,
    pixels_with,
    random_walk,
    spread_of,
)
from jaxcnn.inspection.modules import calls_of
from jaxcnn.inspection.receptive_field import Extent, Field, fields_of
from jaxcnn.models import Conv, build_model

# Of one axis at the end of a part, the networks as torchvision has them (v1.5); VGG-16's is in Araujo et al. 2019, too.
PUBLISHED = {
    "vgg16": {"backbone/stage5": 212},
    "resnet18": {
        "backbone/stem/conv": 7, "backbone/stem": 11, "backbone/stage1": 43, "backbone/stage2": 99,
        "backbone/stage3": 211, "backbone/stage4": 435,
    },
    "resnet34": {"backbone/stage1": 59, "backbone/stage2": 179, "backbone/stage3": 547, "backbone/stage4": 899},
    "resnet50": {"backbone/stage1": 35, "backbone/stage2": 91, "backbone/stage3": 267, "backbone/stage4": 427},
    "resnet101": {"backbone/stage1": 35, "backbone/stage2": 91, "backbone/stage3": 811, "backbone/stage4": 971},
}  # fmt: skip


def built(name: str, side: int = 224, **options: Any) -> Any:
    return build_model(ModelConfig(name=name, **options), (side, side, 3), 10)


def heat_of(model: Any, side: int, part: str, draws: int, images: int) -> np.ndarray:
    return at_initialisation(model, (side, side, 3), (part,), (0,), draws, images)[part][0]


def fields(model: Any, side: int) -> dict[str, Field | None]:
    return {call.path: call.field for call in calls_of(model, (side, side, 3))}


@pytest.mark.parametrize("name", PUBLISHED)
def test_fields_are_those_published(name: str) -> None:
    found = fields(built(name), 224)
    for path, size in PUBLISHED[name].items():
        field = found[path]
        assert field is not None
        assert field.rows is not None
        assert (field.rows.size, field.rows, field.is_global) == (size, field.columns, False), path


def test_the_size_of_the_image_does_not_change_a_field() -> None:
    model = built("resnet18")
    small = fields(model, 64)
    assert small["backbone/stage4"] is not None
    assert small == fields(model, 193)


OPERATIONS: dict[str, tuple[Callable[[jax.Array], jax.Array], int]] = {
    "stride and padding": (lambda x: convolved(x, 5, 3, (1, 2)), 2),
    "dilation": (lambda x: convolved(x, 3, 2, (2, 2), dilation=2), 3),
    "valid after same": (lambda x: convolved(convolved(x, 3, 1, (1, 1)), 4, 1, (0, 0)), 4),
    "mean pool": (lambda x: nn.avg_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1))), 3),
    "every second pixel": (lambda x: x[:, 1::2, 1::2], 4),
    "padded by numbers": (lambda x: jnp.pad(x, ((0, 0), (2, 1), (2, 1), (0, 3)))[..., :1], 5),
    "two branches": (lambda x: convolved(x, 7, 2, (3, 3)) + x[:, ::2, ::2], 3),
    "side by side in channels": (lambda x: jnp.concatenate([x, convolved(x, 3, 1, (1, 1))], -1), 5),
    "transposed twice": (lambda x: convolved(x.transpose(0, 2, 1, 3), 3, 2, (0, 1)).transpose(0, 2, 1, 3), 2),
    "a dense layer of channels": (lambda x: jnp.einsum("nhwc,cd->nhwd", x[:, :, 1::3], jnp.ones((1, 2))), 2),
    "in groups and back": (lambda x: convolved(x, 3, 2, (1, 1)).reshape(1, -1, 6, 1, 1).reshape(1, -1, 6, 1), 2),
    "scaled": (lambda x: jnp.exp(convolved(x, 3, 1, (1, 1))) * jnp.arange(1, 13)[:, None], 4),
}  # fmt: skip


def convolved(x: jax.Array, side: int, stride: int, padding: tuple[int, int], dilation: int = 1) -> jax.Array:
    kernel = jnp.ones((side, side, x.shape[-1], 1))
    numbers = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), (padding, padding), rhs_dilation=(dilation,) * 2, dimension_numbers=numbers
    )


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_sees_the_pixels_whose_change_reaches_it(name: str) -> None:
    function, unit = OPERATIONS[name]
    image = jnp.ones((1, 12, 12, 1)) / 50
    field = fields_of(function, jax.ShapeDtypeStruct(image.shape, image.dtype))
    changed = image + 0.1 * jnp.eye(144).reshape(144, 12, 12, 1)  # one pixel in each of them
    before = function(image)[0, unit, unit]
    after = jax.vmap(lambda image: function(image[None])[0, unit, unit])(changed)
    reached = np.asarray(jnp.any(after != before, axis=-1)).reshape(12, 12)
    assert (field.rows.seen_by(unit), field.columns.seen_by(unit)) == ends_of(reached)
    assert not field.is_global


def test_a_window_off_the_image_keeps_its_size() -> None:
    field = fields_of(lambda x: convolved(x, 5, 2, (3, 1)), jax.ShapeDtypeStruct((1, 9, 9, 1), jnp.float32))
    assert field.rows == Extent(stride=2, first=-3, last=1)
    assert (field.rows.size, field.rows.centre, field.rows.seen_by(2)) == (5, -1.0, (1, 5))


def test_a_mean_over_the_map_sees_all_and_hands_it_on() -> None:
    shape = jax.ShapeDtypeStruct((1, 9, 9, 1), jnp.float32)
    assert fields_of(lambda x: x.mean((1, 2)), shape) == Field(None, None)
    weighed = fields_of(lambda x: convolved(x, 3, 1, (1, 1)) * x.mean((1, 2), keepdims=True), shape)
    assert (weighed.rows.size, weighed.is_global) == (3, True)


def test_what_does_not_depend_on_the_image_has_no_field() -> None:
    shape = jax.ShapeDtypeStruct((1, 9, 9, 1), jnp.float32)
    assert fields_of(lambda x, w: {"a": w * 2, "b": x}, shape, shape) == {"a": None, "b": Field(Extent(), Extent())}


def test_an_operation_that_is_not_known_is_refused() -> None:
    with pytest.raises(NotImplementedError, match="'cumsum' is not known"):
        fields_of(lambda x: jnp.cumsum(x, axis=1), jax.ShapeDtypeStruct((1, 9, 9, 1), jnp.float32))


# Small networks of each kind: options, side of the image, part.
SMALL: dict[str, tuple[dict[str, Any], int, str]] = {
    "cifar": ({"name": "resnet8", "width": 4}, 44, "stage3"),
    "imagenet stem": ({"name": "resnet18", "width": 4, "stage_sizes": (1, 1)}, 96, "stage2"),
    "deep stem, pool": ({"name": "resnet18d", "width": 4, "stage_sizes": (1, 1)}, 112, "stage2"),
    "bottleneck": ({"name": "resnet50", "width": 2, "stage_sizes": (1, 2)}, 96, "stage2"),
    "v1": ({"name": "resnet50", "width": 2, "stage_sizes": (1, 1), "bottleneck_stride": "1x1"}, 96, "stage2"),
    "pre-activation": ({"name": "resnetv2_18", "width": 4, "stage_sizes": (1, 1)}, 40, "norm"),
    "vgg": ({"name": "vgg11", "width": 8, "stage_sizes": (1, 2)}, 40, "stage2"),
    "plain": ({"name": "resnet20", "width": 4, "stage_sizes": (2, 1), "block": "plain", "norm": "none"}, 40, "stage2"),
}  # fmt: skip


@pytest.mark.parametrize("kind", SMALL)
def test_a_network_sees_exactly_the_pixels_with_a_gradient(kind: str) -> None:
    options, side, part = SMALL[kind]
    model = build_model(ModelConfig(**options), (side, side, 3), 2)  # from 96 pixels on with the stem of ImageNet
    heat = heat_of(model, side, part, draws=4, images=4)
    calls = {call.path: call for call in calls_of(model, (side, side, 3))}
    call = calls.get(f"backbone/{part}") or calls["backbone"]
    assert call.field is not None
    unit = centre_of(call.returned.shape[1])
    expected = call.field.rows.seen_by(unit)
    assert expected[0] >= 0
    assert expected[1] < side, "the image must hold all of the field"
    assert ends_of(heat) == (expected, expected)


@pytest.mark.parametrize("name", ["seresnet18", "resnext50_32x4d", "wrn_16_4", "resnetv2_50", "resnet50d", "vgg13"])
def test_networks_of_all_families_have_a_field(name: str) -> None:
    model = built(name, 64, stage_sizes=(1, 1))
    found = fields(model, 64)
    assert all(field is not None for field in found.values())
    assert found["backbone"].rows.size > 3
    assert found["backbone"].is_global == (name == "seresnet18")
    assert found[""] == Field(None, None)


@pytest.mark.parametrize("norm", ["layer", "group", "instance"])
def test_a_norm_over_the_map_lets_all_pixels_reach_an_output(norm: str) -> None:
    model = built("resnet8", 32, width=4, stage_sizes=(1,), num_groups=2, norm=norm)
    field = fields(model, 24)["backbone/stage1"]
    assert field is not None
    assert (field.rows.size, field.is_global) == (7, True)
    heat = heat_of(model, 24, "stage1", draws=1, images=1)
    assert ends_of(heat) == ((0, 23), (0, 23))
    assert heat[9:16, 9:16].sum() > 0.5 * heat.sum()


def test_three_3x3_see_what_one_7x7_sees_with_27_of_49_weights() -> None:
    channels, shape = 4, jax.ShapeDtypeStruct((1, 15, 15, 4), jnp.float32)
    stack, single = nn.Sequential([Conv(channels, 3, plain=True) for _ in range(3)]), Conv(channels, 7, plain=True)
    counts = []
    for module in (stack, single):
        variables = jax.eval_shape(module.init, jax.random.key(0), shape)
        field = fields_of(lambda x, v, module=module: module.apply(v, x), shape, variables)
        assert field.rows == Extent(1, -3, 3)
        counts.append(sum(leaf.size for leaf in jax.tree.leaves(variables)))
    assert counts == [27 * channels**2, 49 * channels**2]


def test_a_stack_of_random_layers_spreads_as_a_random_walk() -> None:
    model = build_model(
        ModelConfig(name="resnet20", stage_sizes=(3,), block="plain", norm="none", width=8), (32, 32, 3), 2
    )
    heat = heat_of(model, 25, "stage1", draws=32, images=4)
    expected = random_walk([(3, 1)] * 7)
    assert expected == pytest.approx((2 * 7 / 3) ** 0.5)
    assert spread_of(heat) == pytest.approx(expected, rel=0.1)
    assert fit_gaussian(heat).r2 > 0.95


def test_a_gaussian_is_fitted_exactly() -> None:
    rows, columns = np.indices((41, 41))
    heat = 3e-9 * np.exp(-((rows - 19) ** 2 + (columns - 22) ** 2) / (2 * 3.5**2))
    found = fit_gaussian(heat)
    assert (found.sigma, *found.centre, found.r2) == pytest.approx((3.5, 19, 22, 1.0), rel=1e-4)
    assert spread_of(heat) == pytest.approx(3.5, rel=1e-3)
    # Of a normal distribution in two dimensions 1 - exp(-r² / 2 sigma²) lies within r.
    area = np.pi * 2 * 3.5**2 * np.log(1 / (1 - 0.9545))
    assert pixels_with(heat, 0.9545) == pytest.approx(area, rel=0.02)


def test_few_pixels_hold_what_lies_on_few() -> None:
    heat = np.zeros((5, 5))
    heat[2, 1], heat[4, 4] = 3.0, 1.0
    assert (pixels_with(heat, 0.7), pixels_with(heat, 0.8)) == (1, 2)
    assert ends_of(heat) == ((2, 4), (1, 4))
    with pytest.raises(ValueError, match="no pixel"):
        ends_of(np.zeros((3, 3)))
