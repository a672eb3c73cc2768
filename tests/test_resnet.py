"""Residual blocks, stems, stages and shortcuts, in networks of width 8."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.errors import InputError
from jaxcnn.models.blocks import BLOCKS, BasicBlock, BottleneckBlock, PlainBlock, PreActBlock, SqueezeExcite
from jaxcnn.models.conv import Conv
from jaxcnn.models.layers import dropout
from jaxcnn.models.norms import LayerNorm, NoNorm
from jaxcnn.models.resnet import ResNet, ResNetStem
from jaxcnn.paths import flatten, unflatten

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(2, 8, 8, 3)).astype(np.float32)
MAP = RNG.normal(size=(2, 6, 6, 8)).astype(np.float32)
OPS = {"norm": NoNorm(), "activation": nn.relu, "conv": Conv, "train": False}


def shapes(module, x=IMAGES, **call):
    """Returns {path: shape} of the parameters; nothing is computed."""
    variables = jax.eval_shape(functools.partial(module.init, **call), jax.random.key(0), x)
    return {path: leaf.shape for path, leaf in flatten(variables["params"]).items()}


def draw(module, x, **call):
    """Returns random parameters, biases included, of a module without running statistics."""
    rng = np.random.default_rng(1)
    drawn = {path: rng.normal(size=shape).astype(np.float32) / 4 for path, shape in shapes(module, x, **call).items()}
    return {"params": unflatten(drawn)}


def conv(params, name, x, stride=1):
    layer = params[name]
    padding = (layer["kernel"].shape[0] - 1) // 2
    y = jax.lax.conv_general_dilated(
        x, layer["kernel"], (stride, stride), ((padding, padding),) * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return y + layer["bias"]


def block_and_params(kind, features, stride, x=MAP, **options):
    block = BLOCKS[kind](features=features, stride=stride, **{"shortcut": "projection", **OPS, **options})
    variables = draw(block, x)
    return np.asarray(jax.jit(block.apply)(variables, x)), variables["params"]


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def test_basic_block_is_two_convolutions_and_a_projection():
    y, p = block_and_params("basic", 16, 2)
    branch = conv(p, "conv2", nn.relu(conv(p, "conv1", MAP, 2)))
    close(y, nn.relu(branch + conv(p, "shortcut_conv", MAP, 2)))


def test_plain_block_is_the_basic_block_without_addition_and_without_shortcut_parameters():
    y, p = block_and_params("plain", 16, 2)
    assert set(p) == {"conv1", "conv2"}
    close(y, nn.relu(conv(p, "conv2", nn.relu(conv(p, "conv1", MAP, 2)))))


@pytest.mark.parametrize("stride_first", [False, True])
def test_bottleneck_has_its_stride_on_the_3x3_or_as_v1_on_the_first_1x1(stride_first):
    y, p = block_and_params("bottleneck", 4, 2, stride_first=stride_first)
    first, second = (2, 1) if stride_first else (1, 2)
    branch = nn.relu(conv(p, "conv2", nn.relu(conv(p, "conv1", MAP, first)), second))
    close(y, nn.relu(conv(p, "conv3", branch) + conv(p, "shortcut_conv", MAP, 2)))


def test_preact_block_projects_the_active_input_but_passes_an_unchanged_one():
    y, p = block_and_params("preact", 16, 2)
    active = nn.relu(MAP)
    branch = conv(p, "conv2", nn.relu(conv(p, "conv1", active, 2)))
    close(y, branch + conv(p, "shortcut_conv", active, 2))
    y, p = block_and_params("preact", 8, 1)
    close(y, conv(p, "conv2", nn.relu(conv(p, "conv1", active))) + MAP)


def test_preact_bottleneck_ends_without_norm_and_activation():
    y, p = block_and_params("preact_bottleneck", 2, 1)
    branch = nn.relu(conv(p, "conv2", nn.relu(conv(p, "conv1", nn.relu(MAP)))))
    close(y, conv(p, "conv3", branch) + MAP)


def test_option_a_takes_every_second_pixel_and_adds_zero_channels_on_both_sides():
    y, p = block_and_params("basic", 16, 2, shortcut="pad")
    assert "shortcut_conv" not in p
    padded = np.pad(MAP[:, ::2, ::2], ((0, 0), (0, 0), (0, 0), (4, 4)))
    close(y, nn.relu(conv(p, "conv2", nn.relu(conv(p, "conv1", MAP, 2))) + padded))


def test_option_a_cannot_take_channels_away():
    with pytest.raises(InputError, match="shortcut='pad'"):
        block_and_params("basic", 4, 1, shortcut="pad")


def test_pool_shortcut_averages_before_it_projects():
    y, p = block_and_params("basic", 16, 2, shortcut="pool")
    means = MAP.reshape(2, 3, 2, 3, 2, 8).mean((2, 4))
    close(y, nn.relu(conv(p, "conv2", nn.relu(conv(p, "conv1", MAP, 2))) + conv(p, "shortcut_conv", means)))


def test_squeeze_excite_is_its_formula():
    module = SqueezeExcite(Conv)
    variables = draw(module, MAP)
    p = jax.tree.map(lambda leaf: leaf.reshape(leaf.shape[-2:]) if leaf.ndim == 4 else leaf, variables["params"])
    hidden = np.maximum(MAP.mean((1, 2)) @ p["fc1"]["kernel"] + p["fc1"]["bias"], 0)
    gate = 1 / (1 + np.exp(-(hidden @ p["fc2"]["kernel"] + p["fc2"]["bias"])))
    close(jax.jit(module.apply)(variables, MAP), MAP * gate[:, None, None])


@pytest.mark.parametrize(("channels", "reduced"), [(8, 8), (64, 8), (256, 16), (2048, 128)])
def test_squeeze_excite_reduces_by_sixteen_in_multiples_of_eight(channels, reduced):
    assert shapes(SqueezeExcite(Conv), jnp.zeros((1, 1, 1, channels)))["fc1/kernel"] == (1, 1, channels, reduced)


def test_squeeze_excite_keeps_its_kernels_where_convolutions_are_standardised():
    standard = functools.partial(Conv, standardise=True)
    variables = draw(SqueezeExcite(Conv), MAP)
    apply = [jax.jit(SqueezeExcite(c).apply)(variables, MAP) for c in (Conv, standard)]
    close(*apply)


STEMS = {
    "small": ({"conv/kernel": (3, 3, 3, 8)}, 8),
    "imagenet": ({"conv/kernel": (7, 7, 3, 8)}, 2),
    "deep": ({"conv1/kernel": (3, 3, 3, 4), "conv2/kernel": (3, 3, 4, 4), "conv3/kernel": (3, 3, 4, 8)}, 2),
}


@pytest.mark.parametrize("kind", STEMS)
def test_stem_has_the_layers_and_the_stride_of_its_kind(kind):
    stem = ResNetStem(8, kind, False, **{**OPS, "norm": LayerNorm()})
    expected, side = STEMS[kind]
    found = shapes(stem)
    assert {path: shape for path, shape in found.items() if "conv" in path} == expected
    assert len([path for path in found if path.endswith("scale")]) == len(expected), "a norm after each convolution"
    y, _ = jax.eval_shape(stem.init_with_output, jax.random.key(0), IMAGES)
    assert y.shape == (2, side, side, 8)


def test_stem_of_a_preactivation_network_ends_with_its_convolution():
    stem = ResNetStem(8, "deep", True, **{**OPS, "norm": LayerNorm()})
    assert {path.split("/")[0] for path in shapes(stem)} == {"conv1", "norm1", "conv2", "norm2", "conv3"}


def tiny(**options):
    return ResNet(**{"stage_sizes": (1, 1), "width": 8, "stem": "small", **options})


@pytest.mark.parametrize("kind", BLOCKS)
def test_every_block_makes_maps_of_the_shape_the_backbone_promises(kind):
    backbone = tiny(block=BLOCKS[kind])
    y, _ = jax.eval_shape(functools.partial(backbone.init_with_output, train=False), jax.random.key(0), IMAGES)
    assert y.shape == (2, 8 // backbone.total_stride, 8 // backbone.total_stride, backbone.num_features)


def test_paths_are_an_interface():
    basic = {path.rsplit("/", 1)[0] for path in shapes(tiny(), train=False)}
    block = {"conv1", "norm1", "conv2", "norm2"}
    assert basic == {"stem/conv", "stem/norm"} | {f"stage1/block1/{part}" for part in block} | {
        f"stage2/block1/{part}" for part in (*block, "shortcut_conv", "shortcut_norm")
    }
    preact = {path.rsplit("/", 1)[0] for path in shapes(tiny(block=PreActBlock, squeeze_excite=True), train=False)}
    block |= {"se/fc1", "se/fc2"}
    assert preact == {"stem/conv", "norm"} | {f"stage1/block1/{part}" for part in block} | {
        f"stage2/block1/{part}" for part in (*block, "shortcut_conv")
    }


def test_a_plain_network_has_the_parameters_of_its_twin_with_option_a():
    assert shapes(tiny(block=PlainBlock), train=False) == shapes(tiny(shortcut="pad"), train=False)


def test_groups_and_widening_are_those_of_the_3x3():
    found = shapes(tiny(block=BottleneckBlock, groups=4, widening=2), train=False)
    assert found["stage1/block1/conv1/kernel"] == (1, 1, 8, 16)
    assert found["stage1/block1/conv2/kernel"] == (3, 3, 4, 16)
    assert found["stage1/block1/conv3/kernel"] == (1, 1, 16, 32)


def test_convolutions_have_biases_only_without_norm():
    convolutions = [path for path in shapes(tiny(), train=False) if path.endswith("kernel")]
    biased = {path.replace("kernel", "bias") for path in convolutions}
    assert not biased & set(shapes(tiny(), train=False))
    assert biased <= set(shapes(tiny(norm=NoNorm()), train=False))


def test_zero_last_scale_is_that_of_each_blocks_last_norm():
    backbone = tiny(block=BottleneckBlock, zero_last_scale=True)

    def scales(key):
        params = flatten(backbone.init(key, IMAGES, train=False)["params"])
        return {path: leaf for path, leaf in params.items() if path.endswith("scale")}

    zero = {path for path, scale in jax.jit(scales)(jax.random.key(0)).items() if np.all(scale == 0)}
    assert zero == {"stage1/block1/norm3/scale", "stage2/block1/norm3/scale"}


def test_stochastic_depth_falls_linearly_from_the_last_block_to_the_first():
    """Huang et al. 2016, equation 4: block l of L is dropped with l / L of the last rate."""
    assert tiny(stage_sizes=(2, 2), stochastic_depth=0.4)._drop_rates() == pytest.approx((0.1, 0.2, 0.3, 0.4))


def test_stochastic_depth_keeps_the_expectation_of_a_block():
    block = functools.partial(PreActBlock, 8, 1, "pad", NoNorm(), nn.relu, Conv, drop_rate=0.25)
    variables = draw(block(train=False), MAP)
    whole = np.asarray(jax.jit(block(train=False).apply)(variables, MAP))[0] - MAP[0]
    many = np.repeat(MAP[:1], 2000, axis=0)  # one image, 2,000 draws
    train = jax.jit(lambda x: block(train=True).apply(variables, x, rngs={"dropout": jax.random.key(0)}))
    branches = np.asarray(train(many)) - many
    kept = branches[np.abs(branches).max((1, 2, 3)) > 0]
    close(kept, np.broadcast_to(whole / 0.75, kept.shape))
    np.testing.assert_allclose(branches.mean(0), whole, rtol=0.06, atol=1e-5)


@pytest.mark.parametrize("kind", BLOCKS)
def test_block_dropout_is_before_the_last_convolution(kind):
    """With its input dropped, the last convolution gives its bias everywhere."""
    block = BLOCKS[kind](4, 1, "projection", **{**OPS, "train": True}, dropout=dropout(1.0))
    variables = draw(block, MAP)
    _, seen = block.apply(
        variables, MAP, capture_intermediates=True, mutable=["intermediates"], rngs={"dropout": jax.random.key(0)}
    )
    last = "conv3" if "bottleneck" in kind else "conv2"
    y = seen["intermediates"][last]["__call__"][0]
    close(y, np.broadcast_to(variables["params"][last]["bias"], y.shape))


def test_equal_networks_are_equal_and_hashable():
    assert tiny() == tiny()
    assert hash(tiny(block=BasicBlock)) == hash(tiny())
