"""A run folder: whole or not at all, never overwritten."""

import dataclasses
import json
import multiprocessing

import pytest

from jaxcnn.config import Preprocessing, TrainConfig
from jaxcnn.curves import plot_curves
from jaxcnn.errors import InputError
from jaxcnn.run_folder import RunFolder, check_free, is_run

INPUTS = Preprocessing((8, 8, 3), (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
NAMES = ("chat", "собака", "犬")


def make(path) -> RunFolder:
    return RunFolder.create(path, TrainConfig(seed=7), NAMES, INPUTS)


def test_what_was_written_is_read_back(tmp_path) -> None:
    make(tmp_path / "deep" / "run")
    folder = RunFolder(tmp_path / "deep" / "run")
    assert folder.config == TrainConfig(seed=7)
    assert folder.class_names == NAMES
    assert folder.preprocessing == INPUTS
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["run"]  # no temporary left


def test_an_existing_run_is_never_overwritten(tmp_path) -> None:
    make(tmp_path / "run")
    with pytest.raises(InputError, match=r"already holds a run: go on with it by --workdir .*run --resume"):
        check_free(tmp_path / "run")
    (tmp_path / "other").mkdir()
    check_free(tmp_path / "other")
    (tmp_path / "other" / "file").write_text("mine")
    with pytest.raises(InputError, match="is not an empty folder"):
        make(tmp_path / "other")
    assert (tmp_path / "other" / "file").read_text() == "mine"


def test_a_folder_that_is_no_run_is_told(tmp_path) -> None:
    with pytest.raises(InputError, match="no run folder"):
        RunFolder(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"is not a run folder: it has no config.json"):
        RunFolder(tmp_path)
    assert not is_run(tmp_path)


def test_metrics_are_cut_back_and_a_half_written_line_is_dropped(tmp_path) -> None:
    folder = make(tmp_path / "run")
    for step in (10, 20, 30):
        folder.append_metrics({"step": step})
    with open(folder.path / "metrics.jsonl", "a") as file:
        file.write('{"step": 4')
    folder.cut_metrics(20)
    assert folder.metrics() == [{"step": 10}, {"step": 20}]
    assert (folder.path / "metrics.jsonl").read_text() == '{"step": 10}\n{"step": 20}\n'


def hold(path, ready, done) -> None:
    with RunFolder(path).locked():
        ready.set()
        done.wait(20)


def test_two_processes_cannot_train_one_run(tmp_path) -> None:
    folder = make(tmp_path / "run")
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    other = context.Process(target=hold, args=(folder.path, ready, done))
    other.start()
    assert ready.wait(30)
    with pytest.raises(InputError, match="is being trained by another process"), folder.locked():
        pass
    done.set()
    other.join()
    with folder.locked():
        pass


def test_a_run_that_cannot_be_written_to_is_told_in_a_line(tmp_path) -> None:
    folder = make(tmp_path / "run")
    (folder.path / ".lock").mkdir()  # like a read-only file system: it cannot be opened for writing
    with pytest.raises(InputError, match="run cannot be written to: Is a directory"), folder.locked():
        pass


def test_a_damaged_config_names_file_and_field(tmp_path) -> None:
    folder = make(tmp_path / "run")
    values = json.loads((folder.path / "config.json").read_text())
    values["model"]["nam"] = values["model"].pop("name")
    folder.write_json("config.json", values)
    with pytest.raises(InputError, match=r"run/config.json: unknown field model.nam; did you mean 'name'"):
        _ = folder.config


def test_a_config_of_an_older_version_gets_the_defaults_of_new_fields(tmp_path) -> None:
    folder = make(tmp_path / "run")
    values = json.loads((folder.path / "config.json").read_text())
    del values["mesh"]
    folder.write_json("config.json", values)
    assert folder.config == dataclasses.replace(TrainConfig(seed=7))


def test_curves_are_drawn_from_the_lines(tmp_path) -> None:
    lines = [
        {"epoch": e, "learning_rate": 0.1 / e, "train": {"loss": 2 / e, "top1": 1 - 0.5 / e},
         "validation": {"loss": 2.2 / e, "top1": 1 - 0.6 / e}} for e in range(1, 6)
    ]  # fmt: skip
    for count in (1, 5):
        plot_curves(lines[:count], tmp_path / "curves.png", "a run")
        assert (tmp_path / "curves.png").read_bytes()[:4] == b"\x89PNG"
    assert [path.name for path in tmp_path.iterdir()] == ["curves.png"]
