"""A resumed run is the run that was never stopped, wherever and however it was stopped."""

import random
import re
import shutil
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from jaxcnn.build import build_job
from jaxcnn.checkpoint import Checkpoints
from jaxcnn.config import TrainConfig
from jaxcnn.errors import InputError, Interrupted
from jaxcnn.interruption import StopRequest
from jaxcnn.loop import train
from jaxcnn.run_folder import RunFolder
from tests.conftest import with_fields
from tests.runs import StopAt, fingerprint, same, start, write_config


def everything(config: TrainConfig) -> TrainConfig:
    """The config with dropout, moving averages, accumulation, clipping, a frozen stem and all augmentation on."""
    return with_fields(
        config, model__dropout=0.2, optim__ema_decay=0.9, optim__accumulation=2, optim__clip_norm=1.0,
        augment__cutout=type(config.augment.cutout)(0.5, 6), freeze=("backbone/stem/**",), train__patience_epochs=9,
    )  # fmt: skip


@pytest.fixture
def folder_of(tmp_path: Path):
    def make(name: str, job) -> RunFolder:
        return RunFolder.create(tmp_path / name, job.config, job.network.class_names, job.network.preprocessing)

    return make


PLAIN = pytest.param(lambda config: config, marks=pytest.mark.slow)


@pytest.mark.parametrize("change", [PLAIN, everything], ids=["plain", "everything"])
def test_a_run_interrupted_between_any_dispatches_equals_the_uninterrupted_one(tiny_config, folder_of, change) -> None:
    job = build_job(with_fields(change(tiny_config), train__max_steps_per_dispatch=2))
    whole = folder_of("whole", job)
    train(job, whole, StopRequest())
    parts = folder_of("parts", job)
    said = []
    for dispatches in (1, 3, 2, 5, 2, 4, 1, 3, 1000):
        try:
            train(job, RunFolder(parts.path), StopAt(dispatches))
            break
        except Interrupted as interruption:
            said.append(str(interruption))
    assert len(said) >= 3
    assert all(f"--workdir {parts.path} --resume" in line for line in said)
    same(fingerprint(whole.path), fingerprint(parts.path))


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)], ids=["SIGTERM", "SIGINT"]
)
def test_a_signal_saves_and_exits_with_75_and_says_how_to_go_on(tiny_config, tmp_path, number) -> None:
    config = with_fields(tiny_config, train__epochs=400.0, evaluation__every_epochs=50)
    file = write_config(config, tmp_path / "c.py")
    process = start("--config", file, "--workdir", tmp_path / "run")
    for line in process.stderr:
        if line.startswith("epoch"):
            break
    time.sleep(0.2)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 75, errors
    assert f"go on with: python train.py --workdir {tmp_path / 'run'} --resume" in errors
    assert list((tmp_path / "run" / "checkpoints").iterdir())


def killed(config: TrainConfig, path: Path, kills: int, rng: random.Random) -> int:
    """Trains in a process of its own that is killed at random moments; returns how often it was, then ends the run."""
    file = write_config(config, path.parent / f"{path.name}.py")
    done = 0
    while True:
        process = start("--config", file, "--workdir", path, "--resume", "auto")
        try:
            # From the first second of starting up to well into the epochs.
            _, errors = process.communicate(timeout=rng.uniform(1.0, 12.0) if done < kills else 600)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            done += 1
            continue
        assert process.returncode == 0, errors
        return done


def slowed(config: TrainConfig) -> TrainConfig:
    """Long enough to be killed in."""
    return with_fields(config, train__epochs=500.0, train__save_every_epochs=4, evaluation__every_epochs=4)


@pytest.mark.slow
@pytest.mark.parametrize("change", [lambda config: config, everything], ids=["plain", "everything"])
def test_a_run_killed_at_random_moments_equals_the_uninterrupted_one(tiny_config, tmp_path, change) -> None:
    config = with_fields(slowed(change(tiny_config)), train__patience_epochs=None)
    file = write_config(config, tmp_path / "whole.py")
    process = start("--config", file, "--workdir", tmp_path / "whole")
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    kills = killed(config, tmp_path / "parts", 10, random.Random(4))
    assert kills >= 10
    same(fingerprint(tmp_path / "whole"), fingerprint(tmp_path / "parts"))


def test_a_run_killed_once_equals_the_uninterrupted_one(tiny_config, tmp_path) -> None:
    """The short form of the test above: killed after its second evaluation."""
    config = with_fields(tiny_config, train__epochs=12.0)
    file = write_config(config, tmp_path / "c.py")
    process = start("--config", file, "--workdir", tmp_path / "parts")
    seen = 0
    for line in process.stderr:
        seen += line.startswith("epoch")
        if seen == 2:
            process.kill()
            break
    process.communicate()
    job = build_job(config)
    parts = RunFolder(tmp_path / "parts")
    train(job, parts, StopRequest())
    whole = RunFolder.create(tmp_path / "whole", config, job.network.class_names, job.network.preprocessing)
    train(job, whole, StopRequest())
    same(fingerprint(whole.path), fingerprint(parts.path))


def test_a_damaged_newest_checkpoint_costs_an_epoch_and_no_more(tiny_config, folder_of, caplog) -> None:
    from tests.test_checkpoint import damage

    job = build_job(tiny_config)
    whole = folder_of("whole", job)
    train(job, whole, StopRequest())
    expected = fingerprint(whole.path)
    copy = whole.path.parent / "copy"
    shutil.copytree(whole.path, copy)
    damage(copy / "checkpoints" / str(expected["latest"]), "flip")
    train(job, RunFolder(copy), StopRequest())
    same(expected, fingerprint(copy))


def test_a_damaged_best_checkpoint_is_replaced_by_the_next_best(tiny_config, folder_of) -> None:
    from tests.test_checkpoint import damage

    job = build_job(with_fields(tiny_config, train__epochs=6.0))
    run = folder_of("run", job)
    result = train(job, run, StopRequest())
    steps = Checkpoints(run.checkpoints, read_only=True).steps()
    if result["best_step"] == steps[-1]:
        pytest.skip("the last epoch was the best")
    damage(run.checkpoints / str(result["best_step"]), "truncate")
    (run.path / "result.json").unlink()
    again = train(job, RunFolder(run.path), StopRequest())
    assert again["best_step"] in set(steps) - {result["best_step"]}


def test_a_finished_run_keeps_its_result(tiny_config, folder_of) -> None:
    job = build_job(tiny_config)
    run = folder_of("run", job)
    train(job, run, StopRequest())
    before = (run.path / "result.json").read_bytes()
    train(job, RunFolder(run.path), StopRequest())
    assert (run.path / "result.json").read_bytes() == before


def test_wall_time_adds_up_over_sessions(tiny_config, folder_of) -> None:
    job = build_job(tiny_config)
    run = folder_of("run", job)
    begun = time.perf_counter()
    with pytest.raises(Interrupted):
        train(job, run, StopAt(3))
    first = time.perf_counter() - begun
    assert train(job, RunFolder(run.path), StopRequest())["seconds"] > 0.8 * first


def test_a_run_whose_data_have_changed_is_not_resumed(tiny_config, folder_of) -> None:
    job = build_job(tiny_config)
    run = folder_of("run", job)
    assert build_job(tiny_config, run).network.preprocessing == run.preprocessing
    for name, value in (("preprocessing.json", '"mean": [\n    0.5'), ("class_names.json", '["zero"')):
        text = (run.path / name).read_text()
        (run.path / name).write_text(re.sub(r'"mean": \[\s*[0-9.]+|\["0"', value, text))
        with pytest.raises(InputError, match=r"changed since the run|other classes than mnist5k"):
            build_job(tiny_config, run)
        (run.path / name).write_text(text)


def test_a_run_goes_on_without_the_weights_it_started_from(tiny_config, folder_of, tmp_path) -> None:
    job = build_job(tiny_config)
    source = folder_of("source", job)
    train(job, source, StopRequest())
    config = replace(tiny_config, init_from=str(source.path))
    job = build_job(config)
    run = folder_of("run", job)
    with pytest.raises(Interrupted):
        train(job, run, StopAt(3))
    shutil.rmtree(source.path)
    assert train(build_job(config, run), RunFolder(run.path), StopRequest())["test"]["examples"] == 50
