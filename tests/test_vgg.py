"""VGG backbones and their dense neck."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.models.layers import dropout
from jaxcnn.models.norms import BatchNorm, NoNorm
from jaxcnn.models.vgg import STAGE_SIZES, VGG, VGGNeck
from jaxcnn.paths import flatten, unflatten

IMAGES = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)


def shapes(module, x=IMAGES):
    variables = jax.eval_shape(functools.partial(module.init, train=False), jax.random.key(0), x)
    return {path: leaf.shape for path, leaf in flatten(variables["params"]).items()}


def test_widths_double_up_to_eight_times_the_first():
    found = shapes(VGG((1, 1, 1, 1, 1), width=8), jnp.zeros((1, 32, 32, 3)))
    widths = [found[f"stage{stage}/conv1/kernel"][-1] for stage in range(1, 6)]
    assert widths == [8, 16, 32, 64, 64]


@pytest.mark.parametrize("name", STAGE_SIZES)
def test_the_number_in_the_name_counts_convolutions_and_three_dense_layers(name):
    assert sum(STAGE_SIZES[name]) + 3 == int(name.removeprefix("vgg"))


def test_backbone_makes_the_map_it_promises():
    backbone = VGG((1, 2, 1), width=8)
    y, _ = jax.eval_shape(functools.partial(backbone.init_with_output, train=False), jax.random.key(0), IMAGES)
    assert y.shape == (2, 8 // backbone.total_stride, 8 // backbone.total_stride, backbone.num_features)


def test_convolutions_keep_their_biases_beside_a_norm_as_torchvisions_do():
    plain, normed = shapes(VGG((2,), 8, NoNorm())), shapes(VGG((2,), 8, BatchNorm()))
    assert set(plain) == {f"stage1/conv{index}/{leaf}" for index in (1, 2) for leaf in ("kernel", "bias")}
    assert set(normed) - set(plain) == {f"stage1/norm{index}/{leaf}" for index in (1, 2) for leaf in ("scale", "bias")}


def test_an_odd_last_row_is_left_out_by_the_pool_as_in_pytorch():
    backbone = VGG((1,), width=8)
    y, _ = jax.eval_shape(
        functools.partial(backbone.init_with_output, train=False), jax.random.key(0), jnp.zeros((1, 7, 9, 3))
    )
    assert y.shape == (1, 3, 4, 8)


def test_stage_dropout_drops_whole_channels_of_the_pooled_maps():
    backbone = VGG((1,), width=8, dropout=dropout(0.5, "channel"))
    params = {"stage1": {"conv1": {"kernel": np.zeros((3, 3, 3, 8)), "bias": np.ones(8)}}}
    apply = jax.jit(functools.partial(backbone.apply, train=True))
    y = apply({"params": params}, IMAGES, rngs={"dropout": jax.random.key(0)})
    assert set(np.unique(np.asarray(y).mean((1, 2)))) == {0, 2}, "1 / (1 - 0.5) or nothing"


def test_neck_is_two_dense_layers_over_a_7x7_map_in_the_order_h_w_c():
    neck = VGGNeck(dropout=0.5, features=4)
    x = np.random.default_rng(0).normal(size=(2, 7, 7, 3)).astype(np.float32)
    rng = np.random.default_rng(1)
    leaves = {path: rng.normal(size=shape).astype(np.float32) / 8 for path, shape in shapes(neck, x).items()}
    assert set(leaves) == {"fc1/kernel", "fc1/bias", "fc2/kernel", "fc2/bias"}
    hidden = x.reshape(2, -1)
    for name in ("fc1", "fc2"):
        hidden = np.maximum(hidden @ leaves[f"{name}/kernel"] + leaves[f"{name}/bias"], 0)
    y = jax.jit(functools.partial(neck.apply, train=False))({"params": unflatten(leaves)}, x)
    np.testing.assert_allclose(y, hidden, rtol=1e-4, atol=1e-5)


def test_neck_takes_maps_of_any_size():
    assert shapes(VGGNeck(features=4), jnp.zeros((1, 2, 3, 5))) == shapes(VGGNeck(features=4), jnp.zeros((1, 7, 7, 5)))
