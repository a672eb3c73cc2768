"""`python -m benchmarks input`: the same work for all, a missing peer left out by name. No timings."""

import dataclasses
import json
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from benchmarks import input_tasks, inputs
from benchmarks.__main__ import main
from benchmarks.candidates import CANDIDATES
from benchmarks.input_tasks import InputTask, Reader, write_photos


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    write_photos(folder, 6)
    return folder


def test_photos_are_a_function_of_the_seed(photos: Path, tmp_path: Path) -> None:
    write_photos(tmp_path, 2)
    for name in ("00000.jpg", "00001.jpg"):
        assert (tmp_path / name).read_bytes() == (photos / name).read_bytes()


@pytest.mark.parametrize("model", ["train", "evaluation"])
@pytest.mark.parametrize("candidate", ["threads", "dataloader", "tf.data"])
def test_every_pipeline_makes_the_same_batches(photos: Path, candidate: str, model: str) -> None:
    pytest.importorskip({"dataloader": "torch", "tf.data": "tensorflow"}.get(candidate, "numpy"))
    task = InputTask(candidate, model, str(photos), size=32, batch=4, cores=1)
    batches = import_module(CANDIDATES[candidate].module).batches(task)
    reader = Reader(batches, task)
    assert reader.shape == [4, 32, 32, 3]
    images, labels = next(batches)
    assert np.asarray(images).std() > 10
    assert set(map(int, labels)) <= set(range(6))
    if hasattr(batches, "close"):
        batches.close()


def test_the_evaluation_crops_of_all_show_the_same_picture(photos: Path) -> None:
    pytest.importorskip("torch")
    made = {}
    for candidate in ("threads", "dataloader"):
        task = InputTask(candidate, "evaluation", str(photos), size=32, batch=6, cores=1)
        images, labels = next(import_module(CANDIDATES[candidate].module).batches(task))
        made[candidate] = np.asarray(images)[np.argsort(np.asarray(labels))].astype(int)
    assert np.abs(made["threads"] - made["dataloader"]).mean() < 4


def test_what_was_ready_is_not_timed_and_a_missing_peer_is_a_row(photos: Path, tmp_path: Path, monkeypatch) -> None:
    taken = []
    monkeypatch.setattr(input_tasks, "SETTLE_SECONDS", 0)
    task = InputTask("threads", "train", str(photos), size=8, batch=2, steps=3, lead=4)
    batch = (np.zeros((2, 8, 8, 3), np.uint8), np.zeros(2))
    reader = Reader((taken.append(1) or batch for _ in range(100)), task)
    reader.turn()
    assert len(taken) == 1 + 4 + 3

    class Missing:
        def __init__(self, task: InputTask) -> None:
            self.name = task.candidate

        def __enter__(self):
            return self

        def __exit__(self, *error: object) -> None:
            pass

        def turn(self) -> float:
            return 0.5

        def open(self) -> None:
            if self.name != "threads":
                raise inputs.InputError(f"{self.name} is not installed")

    monkeypatch.setattr(inputs, "InputWorker", Missing)
    options = ["--photos", str(photos), "--batch", "4", "--rounds", "2", "--out", str(tmp_path)]
    assert main(["input", "--crops", "train", "--candidates", "threads,tf.data", *options]) == 0
    ours, peer = json.loads((tmp_path / "input.json").read_text())["rows"]
    assert ours["images_per_second"] == 8
    assert peer["skipped"] == "tf.data is not installed"
    assert "skipped: tf.data is not installed" in (tmp_path / "input.md").read_text()


def test_too_few_photos_are_told(tmp_path: Path, capsys) -> None:
    assert main(["input", "--photos", str(tmp_path), "--out", str(tmp_path)]) == 2
    assert "0 JPEGs in it, at least 64 are needed" in capsys.readouterr().err


def test_batches_of_another_shape_are_refused() -> None:
    task = InputTask("threads", "train", "", size=8, batch=2)
    with pytest.raises(ValueError, match="not uint8"):
        Reader(iter([(np.zeros((2, 8, 8, 3)), np.zeros(2))]), dataclasses.replace(task))
