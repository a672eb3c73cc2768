"""Where features are taken: the latest frozen point; and one line for what would make them differ in training."""

import dataclasses
from pathlib import Path

import pytest

from jaxcnn.config import (
    AugmentConfig,
    CutmixConfig,
    EvaluationConfig,
    FeaturesConfig,
    FlipConfig,
    MixupConfig,
    ModelConfig,
    PadCropConfig,
    Preprocessing,
    TrainConfig,
)
from jaxcnn.errors import InputError
from jaxcnn.feature_cache.points import frozen_point, leaves_before, parts_before, point_of, random_operations
from jaxcnn.network import Network, build_network
from jaxcnn.paths import GlobRule, flatten
from jaxcnn.training.partition import partition
from tests.feature_runs import MOVING, STILL, config_of

ALL_BUT = {  # what trains, and the latest point before it
    "pooled": ("backbone/**",),
    "stage2": ("backbone/**", "!backbone/stage3/**"),
    "stage1": ("backbone/**", "!backbone/stage2/block1/norm1/bias"),
    "stem": ("backbone/stem/**",),
    None: ("backbone/**", "!backbone/stem/norm/**"),
}


def network_of(config: TrainConfig, side: int = 32) -> Network:
    return build_network(config, Preprocessing((side, side, 3), (0.5,) * 3, (0.2,) * 3), ("a", "b", "c"))


def trainable_of(config: TrainConfig, network: Network) -> list[str]:
    return list(flatten(partition(network.shapes["params"], GlobRule(config.freeze))[0]))


def found(tmp_path: Path, cache: str, **fields: object) -> str | None:
    config = config_of(tmp_path, features=FeaturesConfig(cache=cache), **fields)
    network = network_of(config)
    return point_of(config, network, trainable_of(config, network))


@pytest.mark.parametrize(("point", "freeze"), ALL_BUT.items(), ids=str)
def test_the_latest_frozen_point_is_before_the_first_leaf_that_trains(tmp_path, point, freeze) -> None:
    config = config_of(tmp_path, freeze=freeze)
    network = network_of(config)
    assert frozen_point(network.model, trainable_of(config, network)) == point


@pytest.mark.parametrize(
    ("point", "freeze"), [("pooled", ("backbone/**", "neck/**")), ("stage5", ("backbone/**", "neck/fc1/kernel"))]
)
def test_a_neck_that_trains_is_after_the_last_stage(tmp_path, point, freeze) -> None:
    config = config_of(tmp_path, model=ModelConfig(name="vgg11", width=4, neck="dense"), freeze=freeze)
    network = network_of(config)
    assert frozen_point(network.model, trainable_of(config, network)) == point


def test_every_leaf_is_before_the_head_or_in_it(tmp_path) -> None:
    network = network_of(config_of(tmp_path, model=ModelConfig(name="vgg11", width=4, neck="dense")))
    paths = list(flatten(network.shapes["params"]))
    before = leaves_before(network.model, "pooled", paths)
    assert sorted(set(paths) - set(before)) == ["head/bias", "head/kernel"]
    assert parts_before(network.model, "stage2") == ("backbone/stage1", "backbone/stage2")


def test_stages_are_not_taken_for_those_whose_names_they_begin(tmp_path) -> None:
    network = network_of(config_of(tmp_path))
    assert frozen_point(network.model, ["backbone/stage20/kernel", "head/kernel"]) == "pooled"


def test_auto_a_named_point_and_off(tmp_path) -> None:
    assert found(tmp_path, "auto") == "pooled"
    assert found(tmp_path, "stage1") == "stage1"
    assert found(tmp_path, "off") is None
    assert found(tmp_path, "off", freeze=(), augment=AugmentConfig()) is None


def test_auto_takes_the_last_stage_before_a_frozen_neck_with_dropout(tmp_path) -> None:
    vgg = {"model": ModelConfig(name="vgg11", width=4, neck="dense"), "freeze": ("backbone/**", "neck/**")}
    assert found(tmp_path, "auto", **vgg) == "stage5"
    with pytest.raises(
        InputError, match=r"the neck before it drops units .* model.dropout=0, or features.cache=stage5"
    ):
        found(tmp_path, "pooled", **vgg)
    still = dataclasses.replace(vgg["model"], dropout=0.0)
    assert found(tmp_path, "pooled", model=still, freeze=vgg["freeze"]) == "pooled"


def test_dropout_before_the_head_is_after_the_features(tmp_path) -> None:
    assert found(tmp_path, "auto", model=ModelConfig(name="resnet8", width=4, dropout=0.5)) == "pooled"


@pytest.mark.parametrize(
    ("cache", "fields", "message"),
    [
        ("stage9", {}, "features.cache='stage9': resnet8 has no such point; did you mean 'stage"),
        ("atuo", {}, "did you mean 'auto'"),
        (
            "pooled",
            {"freeze": ("backbone/stem/**",)},
            r"backbone/stage1/\S+ \(and \d+ more\) before it .*'stem' is the",
        ),
        ("stem", {"freeze": ()}, "before it trains, which moves it; freeze what comes before"),
        ("auto", {"freeze": ()}, r"backbone/stem/\S+ trains, so not even backbone/stem is frozen; freeze what"),
        ("auto", {"augment": AugmentConfig()}, r"views=1: augment.pad_crop, augment.affine would .* 2 or more, or"),
        (
            "auto",
            {"augment": dataclasses.replace(STILL, mixup=MixupConfig(prob=0.5))},
            "augment.mixup.prob=0.5: it mix",
        ),
        ("auto", {"augment": dataclasses.replace(STILL, cutmix=CutmixConfig(prob=1))}, "augment.cutmix.prob=1: it mix"),
        ("auto", {"evaluation": EvaluationConfig(flip=True)}, "evaluation.flip=True: .* jaxcnn evaluate"),
        (
            "auto",
            {"model": ModelConfig(block_dropout=0.1)},
            "random in each step, though frozen; set model.block_dropo",
        ),
        ("auto", {"model": ModelConfig(stochastic_depth=0.1)}, "random in each step, though frozen"),
        ("stem", {"model": ModelConfig(name="vgg11", width=4)}, "'stem': vgg11 has no such point"),
        ("pooled", {"model": ModelConfig(name="wrn_16_4", width=4)}, "random in each step"),  # its own dropout
    ],
)
def test_refusals(tmp_path, cache, fields, message) -> None:
    with pytest.raises(InputError, match=message) as failure:
        found(tmp_path, cache, **fields)
    assert "\n" not in str(failure.value)


def test_crops_of_evaluation_are_refused(tmp_path) -> None:
    config = config_of(tmp_path)
    network = network_of(config)
    config = dataclasses.replace(config, evaluation=EvaluationConfig(crops=5))
    with pytest.raises(InputError, match=r"evaluation\.crops=5: features are kept of whole images"):
        point_of(config, network, trainable_of(config, network))


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (FeaturesConfig("auto", 3), "features.views=3: no random augmentation is on"),
        (FeaturesConfig("off", 3), "features.views=3 are of features that are kept: set features.cache"),
    ],
)
def test_views_that_would_be_equal_or_of_nothing_are_refused(tmp_path, features, message) -> None:
    config = config_of(tmp_path, features=features)
    network = network_of(config)
    with pytest.raises(InputError, match=message):
        point_of(config, network, trainable_of(config, network))


def test_views_of_random_augmentation_are_taken(tmp_path) -> None:
    config = config_of(tmp_path, features=FeaturesConfig("auto", 2), augment=MOVING)
    network = network_of(config)
    assert point_of(config, network, trainable_of(config, network)) == "pooled"


def test_which_operations_are_random() -> None:
    assert random_operations(AugmentConfig()) == ["pad_crop", "affine"]
    assert random_operations(STILL) == []
    flips = dataclasses.replace(STILL, pad_crop=PadCropConfig(pad_px=0), flip=FlipConfig(prob=0.5))
    assert random_operations(flips) == ["flip"]
