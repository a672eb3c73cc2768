"""Trials of studies: the same training as a run's, several seeds by one program, kept and read again."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from jaxcnn.build import build_job
from jaxcnn.config import DataConfig, ModelConfig
from jaxcnn.errors import InputError
from jaxcnn.interruption import StopRequest
from jaxcnn.loop import train
from jaxcnn.run_folder import RunFolder
from jaxcnn.studies import trials as module
from jaxcnn.studies.setting import DATA, HE_2015, Setting, rate
from jaxcnn.studies.spread import Spread, beyond_spread
from jaxcnn.studies.trials import Trials

SHAPES = DataConfig(
    source="synthetic", image_size=8, classes=("circle", "square"),
    train_split="train[:192]", validation_split="validation[:120]",
)  # fmt: skip


@pytest.fixture(scope="module")
def setting(tmp_path_factory) -> Setting:
    return Setting("quick", SHAPES, (0, 1), Trials(tmp_path_factory.mktemp("study") / "trials"))


@pytest.fixture(scope="module")
def config(setting):
    return setting.config(
        "tiny", ModelConfig(name="resnet8", width=4), epochs=2, batch_size=16, augment=HE_2015, clean=16
    )


def num_measured(job, state) -> dict:
    return {"leaves": len(state.params), "step": int(state.step), "list": [1.0, 2.0]}


@pytest.fixture(scope="module")
def trials(setting, config):
    return setting.trials.run("tiny", config, setting.seeds, num_measured)


def test_a_trial_has_the_figures_of_a_run_of_its_config(trials, config, tmp_path) -> None:
    config = replace(config, seed=1)
    job = build_job(config)
    folder = RunFolder.create(tmp_path / "run", config, job.network.class_names, job.network.preprocessing)
    with StopRequest() as stop, folder.locked():
        train(job, folder, stop)
    lines, trial = folder.metrics(), trials[1]
    assert trial.seed == 1
    assert trial.epochs == tuple(line["epoch"] for line in lines)
    for part in ("train", "clean", "validation"):
        for ours, theirs in zip(getattr(trial, part), [line[part] for line in lines], strict=True):
            assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-3)
            assert ours["top1"] == pytest.approx(theirs["top1"], abs=0.03)  # of some 50 images one may tip over


def test_a_trial_has_a_figure_for_each_step_and_what_was_asked(trials) -> None:
    for trial in trials:
        assert len(trial.objectives) == len(trial.grad_norms) == trial.measured["step"] > 4
        assert trial.finite
        assert trial.measured == {"leaves": 2, "step": trial.measured["step"], "list": [1.0, 2.0]}
        assert trial.top1 == trial.validation[-1]["top1"]
        assert trial.gap == pytest.approx(trial.clean[-1]["top1"] - trial.top1)
    assert trials[0].objectives != trials[1].objectives


def test_what_was_trained_is_read_and_only_what_is_missing_is_trained(setting, config, trials, monkeypatch) -> None:
    again = Trials(setting.trials.folder)
    monkeypatch.setattr(again, "job", lambda *given: pytest.fail("trains again"))
    assert again.run("tiny", config, (1, 0), num_measured) == [trials[1], trials[0]]
    assert "2 trials kept before" in again.told(1.0)
    with pytest.raises(pytest.fail.Exception, match="trains again"):
        again.run("tiny", config, (2,), num_measured)
    with pytest.raises(pytest.fail.Exception, match="trains again"):  # another measure, another trial
        again.run("tiny", config, (0,))


def test_a_damaged_trial_is_trained_again_to_the_same_numbers(setting, config, trials, tmp_path) -> None:
    place = Trials(tmp_path)
    file = place._place("tiny", replace(config, seed=0), num_measured)
    file.write_text('{"label": "tiny"')
    (again,) = place.run("tiny", config, (0,), num_measured)
    assert replace(again, seconds=0.0) == replace(trials[0], seconds=0.0)
    held = json.loads(file.read_text())
    assert held == json.loads(json.dumps(asdict(again)))


def test_data_of_a_folder_or_file_are_other_data_in_another_place_and_those_of_tfds_are_not(config) -> None:
    def place(source: str, data_dir: str):
        data = replace(config.data, source=source, data_dir=data_dir, cache_dir=data_dir)
        return Trials(Path("trials"))._place("tiny", replace(config, data=data), None, None)

    assert place("tfds", "a") == place("tfds", "b")
    assert place("folder", "a") != place("folder", "b")
    assert place("npz", "a.npz") != place("npz", "b.npz")


def test_a_measure_without_a_name_of_its_own_is_refused(setting, config) -> None:
    with pytest.raises(ValueError, match="a measure is a function of a module"):
        setting.trials.run("tiny", config, (0,), lambda job, state: {})


def test_a_training_that_is_not_finite_ends_and_says_so(setting) -> None:
    config = setting.config("wild", ModelConfig(name="resnet8", width=4, norm="none"), epochs=3, batch_size=16,
                            optim=rate(1e6), warmup_epochs=0.0)  # fmt: skip
    (trial,) = setting.trials.run("wild", config, (0,))
    assert not trial.finite
    assert len(trial.epochs) < 3
    assert np.isfinite(trial.objectives[0])


def test_fewer_images_a_class_than_the_data_have_and_never_more(setting) -> None:
    few = replace(setting, data=replace(SHAPES, per_class=5))
    model = ModelConfig(name="resnet8")
    assert setting.config("a", model, epochs=1, per_class=7).data.per_class == 7
    assert few.config("a", model, epochs=1, per_class=7).data.per_class == 5
    assert few.config("a", model, epochs=1).data.per_class == 5
    assert setting.config("a", model, epochs=1).data == SHAPES
    assert setting.pick(quick=1, cpu=2, paper=3) == 1
    assert set(DATA) == {"quick", "cpu", "paper"}


def test_a_config_that_does_not_fit_its_data_is_the_users_mistake(setting) -> None:
    with pytest.raises(InputError, match="batch_size"):
        setting.trials.run("large", setting.config("large", ModelConfig(), epochs=1, batch_size=100), (0,))


def test_spread_is_that_of_a_sample() -> None:
    spread = Spread.of([0.5, 0.6, 0.7])
    assert (spread.mean, spread.std, spread.low, spread.high) == pytest.approx((0.6, 0.1, 0.5, 0.7))
    assert spread.percent() == "60.0 ± 10.0 %"
    assert Spread.of([3]).text() == "3"
    with pytest.raises(ValueError, match="no values"):
        Spread.of([])


@pytest.mark.parametrize(
    ("higher", "lower", "expected"),
    [
        ((3, 4, 5), (1, 2, 2.9), True),
        ((3, 4, 5), (1, 2, 3), False),  # the lowest is no higher than the highest
        ((1, 2), (3, 4), False),
        ((3,), (1, 2), None),
        ((3, float("nan")), (1, 2), False),
    ],
)
def test_groups_lie_apart_where_every_value_of_one_is_above_the_other(higher, lower, expected) -> None:
    assert beyond_spread(Spread.of(higher), Spread.of(lower)) is expected


def test_a_given_preprocessing_is_trained_with_and_is_another_trial(setting, config, trials, monkeypatch) -> None:
    own = setting.trials.job(config).network.preprocessing
    given = replace(own, mean=(0.9,) * 3)
    assert setting.trials.job(config, given).network.preprocessing == given
    place = setting.trials._place
    names = {place("tiny", config, num_measured, one) for one in (None, own, given)}
    assert len(names) == 3
    assert place("tiny", config, num_measured) == place("tiny", config, num_measured, None)
    monkeypatch.setattr(setting.trials, "job", lambda *given: pytest.fail("trains again"))
    with pytest.raises(pytest.fail.Exception, match="trains again"):
        setting.trials.run("tiny", config, (0,), num_measured, given)


def test_configs_of_other_draws_share_a_program(setting, config, trials, monkeypatch) -> None:
    compiled, seen = [], []

    def trained(label, job, program, state):
        seen.append((program, np.asarray(job.feed.source.images)))
        return replace(trials[0], label=label, seed=job.config.seed), state

    monkeypatch.setattr(module, "_compiled", lambda job, state: compiled.append(job) or "program")
    monkeypatch.setattr(module, "_train", trained)
    each = [
        replace(config, seed=seed, data=replace(SHAPES, per_class=12, per_class_draw=seed)) for seed in setting.seeds
    ]
    assert [trial.seed for trial in setting.trials.run_each("draws", each)] == [0, 1]
    assert len(compiled) == 1
    (first, images), (second, others) = seen
    assert first == second == "program"
    assert images.shape == others.shape
    assert not np.array_equal(images, others)
