"""The main job, whole, in this process: train, evaluate, predict, load."""

import csv
import json
import logging
import math
import os
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import jax
import numpy as np
import pytest

import jaxcnn
from jaxcnn.build import build_job
from jaxcnn.cli import main
from jaxcnn.config import LoopConfig
from jaxcnn.errors import RunFailed
from jaxcnn.interruption import StopRequest
from jaxcnn.loop import train
from jaxcnn.run_folder import RunFolder
from tests.conftest import with_fields
from tests.runs import fingerprint, same, write_config


@pytest.fixture(scope="module")
def run(digits_dir: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the command line, small but better than chance: 600 digits, 8 epochs."""
    path = tmp_path_factory.mktemp("runs") / "run"
    arguments = (
        f"--workdir {path} --data.data-dir {digits_dir} --data.train-split train[:600] --train.epochs 8 "
        "--train.batch-size 30 --model.width 8 --optim.peak-lr 0.05 --schedule.warmup-epochs 1 --augment.affine.prob 0"
    )
    assert main(["train", *arguments.split()]) == 0
    return path


def test_the_run_folder_holds_what_the_docs_say(run: Path) -> None:
    names = {path.name for path in run.iterdir()}
    assert names >= {
        "config.json", "class_names.json", "preprocessing.json", "environment.json", "metrics.jsonl", "result.json",
        "curves.png", "tensorboard", "checkpoints",
    }  # fmt: skip
    result = json.loads((run / "result.json").read_text())
    assert result["test"]["examples"] == 500
    assert result["validation"]["examples"] == 500
    assert 0.5 < result["test"]["top1"] <= result["test"]["top5"] <= 1
    assert len(result["test"]["class_top1"]) == 10
    assert result["test"]["top1"] == pytest.approx(np.mean(result["test"]["class_top1"]))  # 50 of each class
    assert 0 < result["compile_seconds"] < result["seconds_to_first_step"] < result["seconds"]
    assert result["versions"]["jax"] == jax.__version__


def test_metrics_have_one_line_an_epoch(run: Path) -> None:
    lines = RunFolder(run).metrics()
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [line["step"] for line in lines] == [20 * epoch for epoch in range(1, 9)]
    assert all(line["train"]["examples"] == 600 for line in lines)
    assert all(line["validation"]["examples"] == 500 for line in lines)
    assert lines[-1]["train"]["loss"] < lines[0]["train"]["loss"]
    assert all(0 <= line["data_wait_share"] <= 1 and line["images_per_second"] > 0 for line in lines)
    assert lines[0]["learning_rate"] == pytest.approx(0.05)  # the end of warm-up
    assert list((run / "tensorboard").glob("events.*"))


def test_evaluate_finds_the_figures_of_the_result(run: Path, capsys) -> None:
    result = json.loads((run / "result.json").read_text())
    for split in ("validation", "test"):
        assert main(["evaluate", str(run), "--split", split, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        for name in ("loss", "top1", "top5", "examples", "class_top1"):
            assert found[name] == result[split][name]
    assert main(["evaluate", str(run), "--checkpoint", "latest", "--evaluation.batch-size", "77"]) == 0
    assert "500 examples, checkpoint 160: top-1" in capsys.readouterr().out


def test_the_loaded_run_predicts_what_evaluate_counts(run: Path, digits_dir: str) -> None:
    from jaxcnn.config import DataConfig
    from jaxcnn.data.sources import open_splits

    loaded = jaxcnn.load_run(run)
    assert loaded.class_names == tuple("0123456789")
    images, labels = open_splits(DataConfig(data_dir=digits_dir)).test.read(range(500))
    probabilities = loaded.predict(images, batch_size=64)
    assert probabilities.shape == (500, 10)
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    accuracy = float(np.mean(probabilities.argmax(1) == labels))
    assert accuracy == pytest.approx(json.loads((run / "result.json").read_text())["test"]["top1"])
    with pytest.raises(ValueError, match=r"image 0: expected uint8 \[H, W, C\]"):
        loaded.predict(np.zeros((1, 28, 28, 1), np.float32))
    assert loaded.predict([]).shape == (0, 10)


def test_predict_names_unreadable_images_and_predicts_the_others(run: Path, digits_dir: str, tmp_path, capsys) -> None:
    from jaxcnn.config import DataConfig
    from jaxcnn.data.sources import open_splits

    images, _ = open_splits(DataConfig(data_dir=digits_dir)).test.read(range(2))
    cv2.imwrite(str(tmp_path / "a.png"), images[0])
    cv2.imwrite(str(tmp_path / "b.png"), cv2.resize(images[1], (84, 84)))
    (tmp_path / "bad.png").write_text("no image")
    expected = jaxcnn.load_run(run).predict(images[:1])[0]
    (tmp_path / os.fsdecode(b"bytes-\xff.png")).write_bytes((tmp_path / "a.png").read_bytes())
    assert main(["predict", str(run), str(tmp_path / os.fsdecode(b"bytes-\xff.png"))]) == 0
    assert "bytes-\ufffd.png: " in capsys.readouterr().out
    (tmp_path / os.fsdecode(b"bytes-\xff.png")).unlink()
    assert main(["predict", str(run), str(tmp_path), "--csv", str(tmp_path / "out.csv"), "--json", "--top", "2"]) == 2
    captured = capsys.readouterr()
    assert "bad.png: not a readable image" in captured.err
    report = json.loads(captured.out)
    assert [Path(image["image"]).name for image in report["images"]] == ["a.png", "b.png"]
    assert report["images"][0]["top"][0]["class"] == str(expected.argmax())
    assert report["images"][0]["top"][0]["probability"] == pytest.approx(float(expected.max()), rel=1e-5)
    rows = list(csv.reader((tmp_path / "out.csv").read_text().splitlines()))
    assert rows[0] == ["image", "prediction", *"0123456789"]
    assert len(rows) == 3


def test_a_finished_run_can_be_resumed_without_effect(run: Path, capsys) -> None:
    before = (run / "metrics.jsonl").read_text()
    best = json.loads((run / "result.json").read_text())["best_step"]
    assert main(["train", "--workdir", str(run), "--resume", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["best_step"] == best
    assert (run / "metrics.jsonl").read_text() == before


def test_init_from_takes_the_weights_and_replaces_a_head_of_another_size(run: Path, tiny_config, caplog) -> None:
    from jaxcnn.errors import InputError
    from jaxcnn.network import build_network
    from jaxcnn.paths import flatten
    from jaxcnn.start import initial_variables

    config = replace(with_fields(tiny_config, model__width=8), init_from=str(run))
    inputs = RunFolder(run).preprocessing
    theirs = flatten(jaxcnn.load_run(run).variables)
    logging.getLogger("jaxcnn").propagate = True
    same_head = flatten(initial_variables(config, build_network(config, inputs, tuple("0123456789"))))
    assert all(np.array_equal(same_head[path], theirs[path]) for path in theirs)
    other = flatten(initial_variables(config, build_network(config, inputs, ("a", "b", "c"))))
    assert other["params/head/kernel"].shape == (32, 3)
    assert all(np.array_equal(other[path], theirs[path]) for path in theirs if "head" not in path)
    narrow = with_fields(config, model__width=4)
    network = build_network(narrow, inputs, tuple("0123456789"))
    with pytest.raises(InputError, match=r"init_from=.* holds another network than model.name"):
        initial_variables(narrow, network)


def run_of(config, path: Path) -> tuple[RunFolder, dict]:
    """Trains a config in this process."""
    job = build_job(config)
    folder = RunFolder.create(path, config, job.network.class_names, job.network.preprocessing)
    return folder, train(job, folder, StopRequest())


def test_training_is_a_function_of_the_seed_and_not_of_the_dispatches(tiny_config, tmp_path) -> None:
    prints = {}
    for name, seed, dispatch in (("a", 0, 4), ("b", 0, 1), ("c", 1, 4)):
        config = with_fields(tiny_config, seed=seed, train__max_steps_per_dispatch=dispatch)
        prints[name] = fingerprint(run_of(config, tmp_path / name)[0].path)
    same(prints["a"], prints["b"])
    assert prints["a"]["metrics"] != prints["c"]["metrics"]


def test_a_length_may_be_part_of_an_epoch(tiny_config) -> None:
    assert build_job(with_fields(tiny_config, train__epochs=2.5)).total_steps == 16  # 2.5 x 6.25 rounded up


def test_early_stopping_keeps_the_best(tiny_config, tmp_path) -> None:
    loop = LoopConfig(epochs=30.0, batch_size=32, patience_epochs=2)
    folder, result = run_of(with_fields(tiny_config, train=loop, optim__peak_lr=1e-8), tmp_path / "run")
    assert result["stopped_early"]
    lines = folder.metrics()
    assert len(lines) < 30
    highest = max(line["validation"]["top1"] for line in lines)
    at = [line["step"] for line in lines if line["validation"]["top1"] == highest]
    assert result["best_step"] == at[-1]  # of equal ones the latest
    assert lines[-3]["step"] == at[0]  # two epochs without a higher one


def test_a_loss_that_is_not_finite_ends_the_run_with_a_line(tiny_config, tmp_path) -> None:
    config = with_fields(tiny_config, optim__peak_lr=1e30)
    job = build_job(config)
    folder = RunFolder.create(tmp_path / "run", config, job.network.class_names, job.network.preprocessing)
    with pytest.raises(RunFailed, match=r"in step \d+, first .*: lower optim.peak_lr \(1e\+30\)"):
        train(job, folder, StopRequest())


def test_a_validation_loss_that_is_not_finite_is_not_recorded(tiny_config, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("jaxcnn.figures.evaluate", lambda *_: {"loss": math.inf, "confusion": None})
    job = build_job(tiny_config)
    folder = RunFolder.create(tmp_path / "run", tiny_config, job.network.class_names, job.network.preprocessing)
    with pytest.raises(RunFailed, match="the validation loss is inf at step 7"):
        train(job, folder, StopRequest())
    assert folder.metrics() == []


def test_nothing_compiles_after_the_first_epoch(tiny_config, tmp_path, monkeypatch) -> None:
    config = with_fields(tiny_config, train__epochs=4.0)
    job = build_job(config)
    folder = RunFolder.create(tmp_path / "run", config, job.network.class_names, job.network.preprocessing)
    counts: list[int] = []
    compiled = [0]
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, *_, **__: compiled.__setitem__(0, compiled[0] + ("backend_compile" in name))
    )
    original = RunFolder.append_metrics
    monkeypatch.setattr(RunFolder, "append_metrics", lambda s, line: (counts.append(compiled[0]), original(s, line)))
    train(job, folder, StopRequest())
    assert len(counts) == 4
    assert counts[1] == counts[2] == counts[3], counts


def test_a_trace_of_chosen_steps_is_written(tiny_config, tmp_path) -> None:
    file = write_config(with_fields(tiny_config, train__epochs=1.0), tmp_path / "c.py")
    assert main(["train", "--config", str(file), "--workdir", str(tmp_path / "run"), "--profile", "2:3"]) == 0
    assert list((tmp_path / "run" / "profile").rglob("*.xplane.pb"))
    shutil.rmtree(tmp_path / "run")
