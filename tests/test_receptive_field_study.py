"""The study `receptive-field`: what it measures of small networks, and that its claims can fail."""

from dataclasses import replace

import numpy as np
import pytest

from jaxcnn.config import DataConfig, ModelConfig
from jaxcnn.inspection.effective_field import pixels_with
from jaxcnn.studies import receptive_field
from jaxcnn.studies.rendering import write_findings
from jaxcnn.studies.seen_pixels import Seen, Stack, Trained, measure_field, seen_at_initialisation, trained_fields
from jaxcnn.studies.setting import Setting
from jaxcnn.studies.trials import Trials

SHAPES = DataConfig(
    source="synthetic", image_size=16, classes=("circle", "square"),
    train_split="train[:64]", validation_split="validation[:40]",
)  # fmt: skip


@pytest.fixture(scope="module")
def stacks() -> list[Stack]:
    return [Stack.of(sides, channels=4, side_px=16) for sides in ((7,), (3, 3, 3))]


@pytest.fixture(scope="module")
def growth() -> dict[int, Seen]:
    options = {"block": "plain", "norm": "none", "stem": "small", "width": 4}
    return {
        2 * n + 1: seen_at_initialisation(
            ModelConfig(name="resnet20", stage_sizes=(n,), **options), ("stage1",), (0, 1), draws=8, images=2
        )[0]
        for n in (1, 3)
    }


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> list[Trained]:
    setting = Setting("quick", SHAPES, (0, 1), Trials(tmp_path_factory.mktemp("study") / "trials"))
    config = setting.config("tiny", ModelConfig(name="resnet8", stage_sizes=(1,), width=4), epochs=1, batch_size=16)
    first = trained_fields(setting.trials.run("tiny", config, setting.seeds, measure_field))
    again = trained_fields(setting.trials.run("tiny", config, setting.seeds, measure_field))  # from disk
    assert [of.pixels for of in first] == [of.pixels for of in again]
    return again


def test_stacks_have_the_weights_and_flops_of_their_closed_forms(stacks) -> None:
    one, three = stacks
    assert (one.parameters, three.parameters) == (49 * 16, 27 * 16)
    assert (one.theory.size, one.measured, three.theory.size, three.measured) == (7, 7, 7, 7)
    pairs = (3 * 16 - 2) ** 2 * 16  # of outputs and existing pixels in their windows, and of channels
    relu = 16 * 16 * 4
    assert three.flops == pytest.approx(3 * (2 * pairs + relu), rel=1e-3)


def test_a_stack_is_seen_whole_and_most_of_it_does_not_count(growth) -> None:
    for depth, seen in growth.items():
        assert seen.theory.size == 2 * depth + 1
        assert seen.is_exact
        assert all(0 < share < 1 for share in seen.shares)
    assert max(growth[7].shares) < min(growth[3].shares)


def test_a_field_that_gradients_leave_is_not_exact(growth) -> None:
    seen = growth[3]
    assert not replace(seen, expected=(seen.expected[0] - 1, seen.expected[1])).is_exact
    assert not replace(seen, measured=(seen.measured[0], (0, 3))).is_exact


def test_training_is_measured_from_the_same_start(trained) -> None:
    for of in trained:
        assert list(of.pixels) == ["stem", "stage1"]
        assert of.size == 256
        assert of.pixels["stage1"] == (pixels_with(of.before), pixels_with(of.after))
        assert of.pixels["stem"][0] <= 9  # a 3x3 convolution sees no more
        assert not np.array_equal(of.before, of.after)
    assert not np.array_equal(trained[0].before, trained[1].before)


def test_claims_are_held_against_the_numbers(stacks, growth, trained) -> None:
    study = receptive_field
    assert study._stack_claim([*stacks]).supported
    assert not study._stack_claim([stacks[0], replace(stacks[1], measured=6)]).supported
    theory = replace(growth[3].theory, first=-21, last=21)
    seen = replace(growth[3], theory=theory, measured=((0, 42), (0, 42)), expected=(0, 42))
    assert study._size_claim({"resnet18": [seen]}).supported
    seen = replace(seen, measured=growth[3].measured)
    assert not study._size_claim({"resnet18": [seen]}).supported  # 43, but gradients reach 7
    assert not study._size_claim({"resnet18": [growth[3]]}).supported  # exact, but 7, not 43
    narrow = replace(growth[7], heats=growth[3].heats)
    assert not study._growth_claim({3: growth[3], 7: narrow}).supported
    wider = [replace(of, pixels={"stage3": (100 + seed, 150 + seed)}) for seed, of in enumerate(trained)]
    assert study._trained_claim(wider).supported
    assert not study._trained_claim([replace(of, pixels={"stage3": (150, 100)}) for of in trained]).supported
    assert study._trained_claim(wider[:1]).supported is None


def test_the_study_writes_its_tables_and_figure(monkeypatch, tmp_path, stacks, growth, trained) -> None:
    by_name = {"vgg16": [growth[3]], "resnet18": [growth[3]], "resnet50": [growth[7]]}
    monkeypatch.setattr(receptive_field.Stack, "of", lambda sides, channels: stacks[len(sides) > 1])
    monkeypatch.setattr(
        receptive_field, "seen_at_initialisation", lambda config, *_, **__: by_name.get(config.name, [growth[7]])
    )
    monkeypatch.setattr(receptive_field, "_trained", lambda setting: trained)
    findings = receptive_field.study(Setting("quick", SHAPES, (0, 1), Trials()))
    files = write_findings(findings, tmp_path)
    assert {"receptive-field.csv", "receptive-field_networks.csv", "receptive-field.png"} <= files.keys()
    assert len(findings.claims) == 4
    assert (tmp_path / "receptive-field.png").stat().st_size > 20_000
    assert len(findings.tables[0].rows) == 4
