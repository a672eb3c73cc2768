"""What is watched of a run changes nothing of it; a step that is not finite can be done again."""

import json
import math
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from jaxcnn.build import build_job
from jaxcnn.cli import main
from jaxcnn.config import DataConfig, HealthConfig, ResizedCropConfig, TrainConfig
from jaxcnn.errors import Interrupted, RunFailed
from jaxcnn.evaluation import evaluate
from jaxcnn.gap_measurement import measure_gap
from jaxcnn.interruption import StopRequest
from jaxcnn.job import Job
from jaxcnn.loop import train
from jaxcnn.monitor import looks_every
from jaxcnn.network import load_variables
from jaxcnn.nonfinite import load_notes
from jaxcnn.replay import replay
from jaxcnn.run_folder import RunFolder
from tests.conftest import with_fields
from tests.runs import StopAt, fingerprint, same


def started(config: TrainConfig, path: Path) -> tuple[Job, RunFolder]:
    job = build_job(config)
    return job, RunFolder.create(path, config, job.network.class_names, job.network.preprocessing)


def finished(config: TrainConfig, path: Path) -> tuple[dict[str, Any], RunFolder]:
    job, folder = started(config, path)
    return train(job, folder, StopRequest()), folder


@pytest.fixture(scope="module")
def tiny(digits_dir: str) -> TrainConfig:
    from tests.conftest import tiny_config

    return tiny_config.__wrapped__(digits_dir)


@pytest.fixture(scope="module")
def watched(tiny: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], RunFolder]:
    """A run of 19 steps, looked at every 5, with 64 training examples measured beside validation."""
    config = replace(tiny, health=HealthConfig(every_steps=5))
    config = with_fields(config, evaluation__train_examples=64, model__dropout=0.3)
    return finished(config, tmp_path_factory.mktemp("watched") / "run")


def test_looks_come_every_n_steps_with_figures_of_each_layer(watched: tuple[dict, RunFolder]) -> None:
    result, folder = watched
    lines = folder.health()
    assert [line["step"] for line in lines] == [0, 5, 10, 15]
    assert next(iter(lines[0]["layers"])) == "backbone/stem/conv"
    assert len(lines[0]["layers"]) == 8
    assert all(0 < line["leaves"]["head/kernel"]["update_ratio"] < 1 for line in lines)
    assert (result["health"]["looks"], result["health"]["every_steps"]) == (4, 5)
    assert 0 < result["health"]["seconds"] < result["seconds"]


def test_a_run_is_the_same_whether_it_is_watched_or_not(
    watched: tuple[dict, RunFolder], tiny: TrainConfig, tmp_path: Path
) -> None:
    unwatched = with_fields(replace(tiny, health=HealthConfig(every_steps=0)), model__dropout=0.3)
    assert finished(unwatched, tmp_path / "run")[0]["health"] is None
    one, other = fingerprint(watched[1].path), fingerprint(tmp_path / "run")
    for line in one["metrics"]:
        assert line.pop("clean")["examples"] == 64
    same(one, other)


@pytest.mark.slow
def test_an_interrupted_run_has_the_looks_of_one_that_was_not(watched: tuple[dict, RunFolder], tmp_path: Path) -> None:
    config = watched[1].config
    job, folder = started(config, tmp_path / "run")
    with pytest.raises(Interrupted):
        train(job, folder, StopAt(4))
    train(build_job(config, folder), folder, StopRequest())
    assert folder.health() == watched[1].health()


def test_clean_figures_are_those_of_the_measured_training_examples(watched: tuple[dict, RunFolder]) -> None:
    folder = watched[1]
    job = build_job(folder.config)
    assert job.clean is not None
    variables, step = load_variables(folder, "latest")
    found = evaluate(job.network, variables, job.clean, 32, job.mesh)
    line = folder.metrics()[-1]
    assert (line["step"], line["clean"]["examples"]) == (step, 64)
    assert line["clean"]["loss"] == pytest.approx(found["loss"], rel=1e-6)
    np.testing.assert_array_equal(np.asarray(job.clean.labels), job.inputs.labels[job.inputs.part])


def test_the_gap_goes_from_training_mode_to_other_images_in_steps(watched: tuple[dict, RunFolder]) -> None:
    gap = watched[0]["gap"]
    assert gap["examples"] == 64
    assert gap["training"]["loss"] > gap["augmented"]["loss"]  # dropout, and the statistics of a batch
    assert gap["augmented"]["loss"] != gap["clean"]["loss"]
    assert gap["validation"]["top1"] == watched[0]["validation"]["top1"]


def test_short_runs_are_not_looked_at_by_default(tiny: TrainConfig) -> None:
    job = build_job(tiny)
    assert looks_every(job) == 0
    assert looks_every(replace(job, total_steps=1000)) == math.ceil(2 / 0.03)


@pytest.fixture(scope="module")
def failed(tiny: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, RunFolder]:
    """A run whose rate is far too high for a network without norms, and what it said."""
    config = with_fields(tiny, model__norm="none", optim__peak_lr=1e5, schedule__warmup_epochs=0.0)
    job, folder = started(config, tmp_path_factory.mktemp("failed") / "run")
    with pytest.raises(RunFailed) as error:
        train(job, folder, StopRequest())
    return str(error.value), folder


def test_a_run_that_is_not_finite_says_where_it_began_and_what_to_do(failed: tuple[str, RunFolder]) -> None:
    message, folder = failed
    notes = load_notes(folder)
    assert f"in step {notes['step']}, first {notes['first']}" in message
    assert f"jaxcnn replay {folder.path}" in message
    assert "lower optim.peak_lr (100000)" in message
    assert len(notes["examples"]) == 32
    assert folder.health()[-1]["event"] == "nonfinite"
    assert not list((folder.path / "nonfinite").glob(".*"))


def test_a_failed_step_gives_the_same_values_again(failed: tuple[str, RunFolder], capsys) -> None:
    notes = load_notes(failed[1])
    again = replay(failed[1])
    for name in ("objective", "grad_norm"):
        np.testing.assert_equal(float(again[name]), float(notes[name]))
    assert again["first"] == notes["first"]
    assert not math.isfinite(float(again["objective"]) + float(again["grad_norm"]))
    assert main(["replay", str(failed[1].path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["step"] == notes["step"]


def test_replay_of_a_run_that_did_not_fail_is_an_error(watched: tuple[dict, RunFolder], capsys) -> None:
    assert main(["replay", str(watched[1].path)]) == 2
    assert "has no step that was not finite" in capsys.readouterr().err


def test_replay_of_a_damaged_step_is_an_error(failed: tuple[str, RunFolder], capsys, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(failed[1].path, tmp_path / "run")
    file = tmp_path / "run" / "nonfinite" / "step.npz"
    file.write_bytes(file.read_bytes()[:1000])
    assert main(["replay", str(tmp_path / "run")]) == 2
    assert "step.npz is not whole" in capsys.readouterr().err


def test_clean_examples_are_the_right_ones_where_some_cannot_be_read(tmp_path: Path, tiny: TrainConfig) -> None:
    for label in ("dark", "bright"):
        (tmp_path / "photos" / "train" / label).mkdir(parents=True)
        (tmp_path / "photos" / "validation" / label).mkdir(parents=True)
        for number in range(12):
            image = np.full((12, 12, 3), 10 * number + 100 * (label == "bright"), np.uint8)
            place = tmp_path / "photos" / ("train" if number < 9 else "validation") / label / f"{number}.png"
            assert cv2.imwrite(str(place), image)
    (tmp_path / "photos" / "train" / "bright" / "0.png").write_bytes(b"no image")
    config = with_fields(
        tiny,
        data=DataConfig(
            "folder", data_dir=str(tmp_path / "photos"), image_size=8, crop_share=0.8, unreadable="skip",
            cache_dir=str(tmp_path / "cache"),
        ),
        augment__resized_crop=ResizedCropConfig(1.0, (0.9, 1.0)),
        train__batch_size=8, evaluation__batch_size=8, evaluation__train_examples=17,
    )  # fmt: skip
    job = build_job(config)
    assert job.clean is not None
    assert len(job.clean) == 17
    np.testing.assert_array_equal(np.asarray(job.clean.labels), job.inputs.labels[job.inputs.part])
    brightness = np.asarray(job.clean.images)[:, 4, 4, 0]
    np.testing.assert_array_equal(np.asarray(job.inputs.train.images)[job.inputs.part, 5, 5, 0], brightness)


def test_the_gap_of_thawed_weights_has_the_norms_of_their_phase(tiny: TrainConfig, tmp_path: Path) -> None:
    config = with_fields(
        tiny,
        freeze=("backbone/**",),
        unfreeze=((1.0, "backbone/**"),),
        evaluation__train_examples=64,
        train__epochs=2.0,
    )
    job = build_job(config)
    frozen = measure_gap(job, job.phases[0].begin(job.initial_state().current), 0, {"loss": 0.0, "top1": 0.0})
    thawed = measure_gap(job, job.initial_state(), 1, {"loss": 0.0, "top1": 0.0})
    assert frozen is not None
    assert thawed is not None
    assert frozen["training"]["loss"] == pytest.approx(frozen["augmented"]["loss"], rel=1e-5)
    assert abs(thawed["training"]["loss"] - thawed["augmented"]["loss"]) > 1e-3


def test_an_interrupted_run_waits_for_the_compiler(tiny: TrainConfig, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("jaxcnn.monitor.LOOK_STEPS", 0.1)  # looks every 4 steps, compiled beside the first ones
    job, folder = started(tiny, tmp_path / "run")
    with pytest.raises(Interrupted):
        train(job, folder, StopAt(1))
    assert not [thread for thread in threading.enumerate() if thread.name == "look"]
