"""What `weights compare` says of networks that differ in one setting."""

import dataclasses
import functools

import flax.linen as nn
import jax
import numpy as np
import pytest

from jaxcnn.config import Preprocessing
from jaxcnn.errors import InputError
from jaxcnn.models import BatchNorm, Classifier, Conv, GroupNorm, ResNet
from jaxcnn.models.blocks import BottleneckBlock
from jaxcnn.weights import compare as compare_module
from jaxcnn.weights.compare import Side, compare, relative_difference, sample_images

IMAGES = Preprocessing((16, 16, 3), (0.5,) * 3, (0.25,) * 3)
BACKBONE = ResNet((1, 1), BottleneckBlock, width=4, stem="small")


class SameConv(Conv):
    """Pads as TensorFlow does."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param("kernel", self.kernel_init, (self.kernel_size,) * 2 + (x.shape[-1], self.features))
        numbers = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, kernel, (self.stride,) * 2, "SAME", dimension_numbers=numbers)


@pytest.fixture(scope="module")
def a() -> Side:
    model = Classifier(BACKBONE, 5)
    variables = jax.jit(model.init)(jax.random.key(0), np.zeros((1, 16, 16, 3), np.float32))
    return Side(model, variables, IMAGES)


@pytest.mark.parametrize(
    ("change", "layer", "reason"),
    [
        ({"stride_first": True}, "backbone/stage2/block1/conv1", "v1 or v1.5"),
        ({"norm": BatchNorm(epsilon=0.1)}, "backbone/stem/norm", "epsilon: 1e-05 in one, 0.1"),
        ({"conv": SameConv}, "backbone/stage2/block1/conv2", "padding: "),
        ({"activation": jax.nn.gelu}, "backbone/stem", "activation: relu in one, gelu in the other"),
        ({"conv": functools.partial(Conv, standardise=True)}, "backbone/stem/conv", "weight standardisation: False"),
    ],
)
def test_a_setting_is_named_at_the_first_layer_that_it_changes(a: Side, change: dict, layer: str, reason: str) -> None:
    b = dataclasses.replace(a, model=Classifier(dataclasses.replace(BACKBONE, **change), 5))
    found, _, _ = compare(a, b, sample_images(IMAGES, 2))
    assert (found[0].layer, len(found)) == (layer, 1)
    assert reason in found[0].reason


def test_every_layer_of_a_network_agrees_with_itself(a: Side) -> None:
    found, count, largest = compare(a, a, sample_images(IMAGES, 2))
    assert (found, largest) == ([], 0.0)
    assert count > 15


def test_groups_of_a_norm_are_named(a: Side) -> None:
    one, four = (Classifier(dataclasses.replace(BACKBONE, norm=GroupNorm(n)), 5) for n in (1, 4))
    variables = jax.jit(one.init)(jax.random.key(0), np.zeros((1, 16, 16, 3), np.float32))
    found, _, _ = compare(Side(one, variables, IMAGES), Side(four, variables, IMAGES), sample_images(IMAGES, 2))
    assert (found[0].layer, len(found)) == ("backbone/stem/norm", 1)
    assert "groups of the norm" in found[0].reason


def test_size_and_crop_are_differences_of_the_input(a: Side) -> None:
    other = dataclasses.replace(IMAGES, image_shape=(24, 24, 3), crop_share=0.8)
    found, count, _ = compare(a, dataclasses.replace(a, preprocessing=other), sample_images(IMAGES, 1))
    assert [one.layer for one in found] == ["input"]
    assert (
        found[0].reason
        == "image size: (16, 16) in one, (24, 24) in the other; crop share: 1.0 in one, 0.8 in the other"
    )
    assert count > 15


def test_layers_that_were_drawn_anew_are_not_compared(a: Side) -> None:
    params = {**a.variables["params"], "head": jax.tree.map(lambda leaf: leaf + 1, a.variables["params"]["head"])}
    b = dataclasses.replace(a, variables={**a.variables, "params": params})
    images = sample_images(IMAGES, 1)
    assert compare(a, b, images)[0][0].layer == "head"
    found, count, _ = compare(a, b, images, anew=("params/head/kernel", "params/head/bias"))
    assert found == []
    assert count == compare(a, a, images)[1] - 2  # the head, and the network as a whole


def test_a_layer_that_only_b_has_is_told(a: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    layers = compare_module.trace(a, np.zeros((1, 16, 16, 3), np.float32))
    more = {**layers, "backbone/extra": layers["output"]}
    traces = iter([layers, more])
    monkeypatch.setattr(compare_module, "trace", lambda side, inputs: next(traces))
    found, _, _ = compare(a, a, sample_images(IMAGES, 1))
    assert [(one.layer, one.reason) for one in found] == [("backbone/extra", "structure: A has no such layer")]


def test_images_of_other_channels_are_refused(a: Side) -> None:
    grey = dataclasses.replace(a, preprocessing=Preprocessing((16, 16, 1), (0.5,), (0.25,), "grey"))
    with pytest.raises(InputError, match="channels"):
        compare(a, grey, sample_images(IMAGES, 1))


def test_relative_difference_is_of_the_largest_value() -> None:
    assert relative_difference(np.array([4.0, 1.0]), np.array([4.0, 2.0])) == 0.25
