"""A network is exported only where the other library's network of that name gives the same logits."""

import dataclasses
from pathlib import Path

import pytest
from safetensors.numpy import save_file

from jaxcnn.cli import main
from jaxcnn.config import ModelConfig
from jaxcnn.errors import InputError
from jaxcnn.models.registry import build_model
from jaxcnn.weights.counterparts import owner_of
from tests.golden.rebuild import state_dict


def owner(config: ModelConfig, form: str, side: int = 224) -> str:
    return owner_of(config, build_model(config, (side, side, 3), 10), form)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("resnet50", "bottleneck_stride", "1x1"),
        ("resnet18", "activation", "gelu"),
        ("vgg11", "activation", "silu"),
        ("resnet18", "weight_standardisation", True),
        ("resnet18", "block", "plain"),
        ("resnet18", "norm", "group"),
        ("vgg11", "norm", "layer"),
        ("resnet18", "stem", "small"),
        ("resnet18", "stem", "deep"),
        ("resnet18", "shortcut", "pad"),
        ("resnet18", "squeeze_excite", True),
        ("resnet18", "width", 32),
        ("resnet20", "shortcut", "projection"),
        ("resnet20", "stem", "imagenet"),
    ],
)
def test_an_option_that_the_library_does_not_have_is_refused_by_name(name: str, option: str, value: object) -> None:
    with pytest.raises(InputError, match=rf"model\.{option} is \S+ here and \S+ in .*'s {name}") as caught:
        owner(ModelConfig(name, **{option: value}), "torchvision")
    assert "\n" not in str(caught.value)


def test_the_small_stem_that_followed_from_the_images_is_refused() -> None:
    with pytest.raises(InputError, match=r"model\.stem is small here and imagenet"):
        owner(ModelConfig("resnet18"), "torchvision", side=32)


@pytest.mark.parametrize(
    ("name", "form", "message"),
    [
        ("seresnet18", "torchvision", "--format timm has it"),
        ("resnet50_gn", "torchvision", "--format timm has it"),
        ("resnetv2_18", "torchvision", "--format timm has it"),
        ("wrn_16_4", "timm", "has no such network"),
    ],
)
def test_a_network_that_the_library_does_not_have_is_refused(name: str, form: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        owner(ModelConfig(name), form)


@pytest.mark.parametrize(
    ("config", "form", "wanted"),
    [
        (ModelConfig("resnet50", norm="group"), "timm", "timm"),
        (ModelConfig("resnet50_gn"), "timm", "timm"),
        (ModelConfig("resnet18d"), "timm", "timm"),
        (ModelConfig("resnext50_32x4d"), "torchvision", "torchvision"),
        (ModelConfig("vgg16", norm="batch", dropout=0.1), "torchvision", "torchvision"),
        (ModelConfig("resnet20"), "torchvision", "akamaster"),
    ],
)
def test_what_acts_in_training_alone_is_no_obstacle(config: ModelConfig, form: str, wanted: str) -> None:
    if not config.name.startswith("vgg"):
        config = dataclasses.replace(config, dropout=0.3, stochastic_depth=0.2, init="orthogonal", dtype="bfloat16")
    assert owner(config, form) == wanted


def test_a_refused_export_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    source, run, target = tmp_path / "there.safetensors", tmp_path / "run", tmp_path / "back.safetensors"
    save_file(state_dict("resnet8", "akamaster"), source)
    gelu = ["--model.activation", "gelu"]
    assert main(["weights", "import", str(source), "--arch", "resnet8", "--out", str(run), *gelu]) == 0
    capsys.readouterr()
    assert main(["weights", "export", str(run), str(target)]) == 2
    error = capsys.readouterr().err
    assert "model.activation is gelu here and relu in akamaster's resnet8" in error
    assert len(error.strip().splitlines()) == 1
    assert not target.exists()
