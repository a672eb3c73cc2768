"""Every network by its published parameter count; what options do, and which are refused."""

import math

import jax
import jax.numpy as jnp
import pytest

from jaxcnn.config import ModelConfig
from jaxcnn.config_reader import check
from jaxcnn.errors import InputError
from jaxcnn.models import NETWORKS, BatchNorm, GroupNorm, NoNorm, build_model, describe
from jaxcnn.paths import GlobRule

SMALL = (32, 32, 3)
LARGE = (224, 224, 3)


def shapes(config, image=SMALL, num_classes=10):
    model = build_model(config, image, num_classes)
    return jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, *image), jnp.float32))


def count(config, image=SMALL, num_classes=10):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes(config, image, num_classes)["params"]))


@pytest.mark.parametrize("name", NETWORKS)
def test_network_has_its_published_parameter_count(name):
    network = NETWORKS[name]
    image = (network.image_px, network.image_px, 3)
    assert count(ModelConfig(name=name), image, network.num_classes) == network.parameters
    assert network.paper


# Millions, as the papers print them: He et al. 2015, table 6; Zagoruyko & Komodakis 2016, tables 1 and 5.
PRINTED = {
    "resnet20": 0.27,
    "resnet32": 0.46,
    "resnet44": 0.66,
    "resnet56": 0.85,
    "resnet110": 1.7,
    "resnetv2_164": 1.7,
    "wrn_16_4": 2.7,
    "wrn_28_10": 36.5,
}


@pytest.mark.parametrize("name", PRINTED)
def test_counts_of_cifar_networks_round_to_those_the_papers_print(name):
    assert NETWORKS[name].parameters / 1e6 == pytest.approx(PRINTED[name], abs=0.05 if PRINTED[name] > 1 else 0.0051)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("vgg11", 132_868_840), ("vgg13", 133_053_736), ("vgg16", 138_365_992), ("vgg19", 143_678_248)],
)
def test_vgg_with_batch_norm_has_torchvisions_count(name, parameters):
    assert count(ModelConfig(name=name, norm="batch"), LARGE, 1000) == parameters


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet20"])
def test_the_plain_twin_has_the_parameters_of_the_network_without_projections(name):
    plain = count(ModelConfig(name=name, block="plain"))
    assert plain == count(ModelConfig(name=name, shortcut="pad"))


@pytest.mark.parametrize(
    ("name", "sizes", "other"),
    [("resnet20", (9, 9, 9), "resnet56"), ("resnet18", (3, 4, 6, 3), "resnet34"), ("vgg11", (2, 2, 3, 3, 3), "vgg16")],
)
def test_with_the_stages_of_another_depth_a_network_is_that_one(name, sizes, other):
    assert count(ModelConfig(name=name, stage_sizes=sizes)) == count(ModelConfig(name=other))


def test_a_network_without_stages_is_refused():
    with pytest.raises(InputError, match="stage_sizes"):
        check(ModelConfig(stage_sizes=()), "here")


def test_v1_has_the_parameters_of_v15():
    assert count(ModelConfig(name="resnet50", bottleneck_stride="1x1"), LARGE, 1000) == 25_557_032
    assert build_model(ModelConfig(name="resnet50", bottleneck_stride="1x1"), LARGE, 10).backbone.stride_first
    assert not build_model(ModelConfig(name="resnet50"), LARGE, 10).backbone.stride_first


@pytest.mark.parametrize("norm", ["batch", "layer", "instance", "group", "none"])
@pytest.mark.parametrize("name", ["vgg11", "resnet18", "resnetv2_18", "seresnet18", "wrn_16_4"])
def test_every_family_takes_every_norm_in_bfloat16(name, norm):
    config = ModelConfig(
        name=name,
        norm=norm,
        num_groups=4,
        width=8,
        dtype="bfloat16",
        weight_standardisation=True,
        block_dropout=0.1,
        block_dropout_kind="channel",
    )
    model = build_model(config, SMALL, 10)

    def train(key):
        images = jnp.zeros((2, *SMALL))
        variables = model.init(key, images)
        return model.apply(variables, images, train=True, mutable=["batch_stats"], rngs={"dropout": key})[0]

    logits = jax.eval_shape(train, jax.random.key(0))
    assert (logits.shape, logits.dtype) == ((2, 10), jnp.float32)


def test_stem_and_neck_follow_from_the_image_size_unless_said():
    def backbone(name, image, **options):
        return build_model(ModelConfig(name=name, **options), image, 10).backbone

    assert backbone("resnet50", SMALL).stem == "small"
    assert backbone("resnet50", LARGE).stem == "imagenet"
    assert backbone("resnet50d", SMALL).stem == "small"
    assert backbone("resnet50d", LARGE).stem == "deep"
    assert backbone("resnet20", LARGE).stem == "small"
    assert backbone("resnet50", SMALL, stem="deep").stem == "deep"
    assert build_model(ModelConfig(name="vgg16"), SMALL, 10).neck is None
    assert build_model(ModelConfig(name="vgg16"), LARGE, 10).neck is not None
    assert build_model(ModelConfig(name="vgg16", neck="pooled"), LARGE, 10).neck is None


def test_a_networks_own_norm_gives_way_to_the_configs():
    assert isinstance(build_model(ModelConfig(name="resnet50_gn"), LARGE, 10).backbone.norm, GroupNorm)
    assert isinstance(build_model(ModelConfig(name="resnet50_gn", norm="batch"), LARGE, 10).backbone.norm, BatchNorm)
    assert isinstance(build_model(ModelConfig(name="vgg11"), LARGE, 10).backbone.norm, NoNorm)


def test_batch_norm_is_given_the_freeze_rule_and_the_virtual_batch_size():
    rule = GlobRule(("backbone/**",))
    norm = build_model(ModelConfig(name="resnet18", virtual_batch_size=16), SMALL, 10, rule).backbone.norm
    assert norm == BatchNorm(frozen=rule, virtual_batch_size=16)


def test_squeeze_excite_can_be_added_and_taken_away():
    plain, excited = count(ModelConfig(name="resnet18")), count(ModelConfig(name="seresnet18"))
    assert count(ModelConfig(name="resnet18", squeeze_excite=True)) == excited > plain
    assert count(ModelConfig(name="seresnet18", squeeze_excite=False)) == plain


REFUSED = {
    "model.name='resnet19': no such network": ModelConfig(name="resnet19"),
    "model.stem='small': vgg16 has no stem": ModelConfig(name="vgg16", stem="small"),
    "model.zero_last_scale=True: vgg16": ModelConfig(name="vgg16", zero_last_scale=True),
    "model.stochastic_depth=0.1: vgg16": ModelConfig(name="vgg16", stochastic_depth=0.1),
    "model.neck='dense': resnet18 has no neck": ModelConfig(name="resnet18", neck="dense"),
    "model.block='basic': resnext50_32x4d is made of bottlenecks": ModelConfig(name="resnext50_32x4d", block="basic"),
    "model.bottleneck_stride='1x1': resnet18 has no bottlenecks": ModelConfig(name="resnet18", bottleneck_stride="1x1"),
    "model.stochastic_depth=0.1: a plain network": ModelConfig(name="resnet18", block="plain", stochastic_depth=0.1),
    "model.shortcut='pool': a plain network": ModelConfig(name="resnet18", block="plain", shortcut="pool"),
    "model.zero_last_scale=True: a plain network": ModelConfig(name="resnet18", block="plain", zero_last_scale=True),
    "model.zero_last_scale=True: the blocks of wrn_16_4": ModelConfig(name="wrn_16_4", zero_last_scale=True),
    "model.zero_last_scale=True: the blocks of resnet18": ModelConfig(
        name="resnet18", norm="none", zero_last_scale=True
    ),
    "model.virtual_batch_size=8: of norm=batch only, not group": ModelConfig(name="resnet50_gn", virtual_batch_size=8),
    "model.virtual_batch_size=8: of norm=batch only, not none": ModelConfig(name="vgg16", virtual_batch_size=8),
}


@pytest.mark.parametrize("message", REFUSED)
def test_options_that_do_not_fit_are_refused_in_one_line(message):
    with pytest.raises(InputError) as refusal:
        build_model(REFUSED[message], LARGE, 10)
    assert str(refusal.value).startswith(message)
    assert "\n" not in str(refusal.value)


def test_every_combination_of_options_is_read_strictly():
    config = ModelConfig(name="wrn_16_4", init="normal", init_std=0.02, block_dropout_kind="channel")
    assert check(config, "test") == config
    with pytest.raises(InputError, match="block_dropout_kind"):
        check(ModelConfig(block_dropout_kind="pixel"), "test")


def test_description_tells_what_followed_from_the_data():
    assert describe(build_model(ModelConfig(name="resnet50d"), LARGE, 10)) == (
        "deep stem, pool shortcuts, BatchNorm, 10 classes"
    )
    assert describe(build_model(ModelConfig(name="vgg11"), SMALL, 10)) == "pooled head, NoNorm, 10 classes"
