"""The report of a run: what it measures, what it says, and that it is one page that needs nothing else."""

import io
import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jaxcnn.build import build_job
from jaxcnn.checkpoint import Checkpoints
from jaxcnn.cli import main
from jaxcnn.cli.train import _options, parse_config
from jaxcnn.config import DataConfig, EvaluationConfig, LoopConfig, ModelConfig, OptimConfig, TrainConfig
from jaxcnn.config_reader import load_config
from jaxcnn.page import page
from jaxcnn.predict import load_run
from jaxcnn.report.figures import confusion_section, worst_section
from jaxcnn.report.health import health_section
from jaxcnn.report.measuring import WorstImage, measure_validation
from jaxcnn.report.settings import command_of, config_section, trained_from
from jaxcnn.run_folder import RunFolder
from jaxcnn.training.state import to_trees
from tests.conftest import with_fields
from tests.pages import Outline
from tests.runs import ROOT

NAMES = ["<b>cat</b> & co", "dog", "$x_{"]
RNG = np.random.default_rng(0)


def line(epoch: float) -> dict[str, Any]:
    figures = {"loss": 1.0, "top1": 0.4, "top5": 1.0, "balanced_accuracy": 0.4, "examples": 20}
    return {"step": int(epoch), "epoch": epoch, "train": figures, "validation": figures, "learning_rate": 0.1}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a tiny network on noise in three classes, with its first state as its checkpoint and no average."""
    place = tmp_path_factory.mktemp("report")
    arrays = {}
    for split, count in (("train", 30), ("val", 23), ("test", 10)):
        arrays[f"x_{split}"] = RNG.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
        arrays[f"y_{split}"] = np.arange(count) % 3
    np.savez(place / "noise.npz", class_names=np.array(NAMES), **arrays)
    config = TrainConfig(
        name="noise",
        data=DataConfig(source="npz", data_dir=str(place / "noise.npz")),
        model=ModelConfig(width=4),
        optim=OptimConfig(ema_decay=None),
        train=LoopConfig(epochs=2.0, batch_size=10),
        evaluation=EvaluationConfig(batch_size=8),  # the last batch is padded
    )
    job = build_job(config)
    folder = RunFolder.create(place / "run", config, tuple(NAMES), job.network.preprocessing)
    checkpoints = Checkpoints(folder.checkpoints)
    notes = {"phase": 0}
    checkpoints.save(6, to_trees(job.initial_state(), job.zero_sums()), notes, {"top1": 0.4})
    checkpoints.close()
    for epoch in (1.0, 2.0):
        folder.append_metrics(line(epoch))
    folder.write_json("environment.json", {"device": "cpu", "versions": {"jax": "1 & 2"}})
    return folder.path


@pytest.fixture(scope="module")
def validation(run: Path) -> tuple[np.ndarray, np.ndarray]:
    with np.load(run.parent / "noise.npz") as arrays:
        return arrays["x_val"], arrays["y_val"]


def report(run: Path, *arguments: object) -> Outline:
    assert main(["report", str(run), *map(str, arguments)]) == 0
    return Outline((run / "report.html").read_text())


@pytest.fixture(scope="module")
def whole(run: Path) -> Outline:
    return report(run)


def test_the_worst_images_are_those_of_the_run_s_own_predictions(run: Path, validation: tuple) -> None:
    images, labels = validation
    folder = RunFolder(run)
    found = measure_validation(folder, folder.config, count=5)
    probabilities = load_run(run).predict(images)
    losses = -np.log(probabilities[np.arange(len(labels)), labels])
    expected = np.argsort(-losses)[:5]
    assert [one.place for one in found.worst] == expected.tolist()
    for one, place in zip(found.worst, expected, strict=True):
        np.testing.assert_array_equal(one.image, images[place])
        assert (one.label, one.predicted) == (labels[place], probabilities[place].argmax())
        assert one.loss == pytest.approx(losses[place], rel=1e-4)
        assert one.probability == pytest.approx(probabilities[place].max(), rel=1e-4)
        assert one.label_probability == pytest.approx(np.exp(-losses[place]), rel=1e-4)
    counts = np.zeros((3, 3), int)
    for label, taken in zip(labels, probabilities.argmax(1), strict=True):
        counts[label, taken] += 1
    np.testing.assert_array_equal(found.confusion, counts)
    assert found.step == 6


def test_views_are_averaged_as_in_evaluation(run: Path, validation: tuple) -> None:
    images, labels = validation
    folder = RunFolder(run)
    config = with_fields(folder.config, evaluation__flip=True)
    found = measure_validation(folder, config, count=1).worst[0]
    predict = load_run(run).predict
    mean = (predict(images) + predict(images[:, :, ::-1])) / 2
    losses = -np.log(mean[np.arange(len(labels)), labels])
    assert (found.place, found.loss) == (losses.argmax(), pytest.approx(losses.max(), rel=1e-4))


def test_the_page_needs_nothing_else_and_has_every_section(whole: Outline) -> None:
    assert whole.needs_nothing_else
    for heading in ("Curves", "Train and validation", "Confusion matrix", "Worst validation images", "Config",
                    "Parameters", "Environment and command"):  # fmt: skip
        assert heading in whole.text
    assert [tag for tag, _ in whole.elements].count("svg") == 2
    assert "Health" not in whole.text  # there is no health.jsonl


def test_the_images_of_the_page_are_the_pixels_of_the_data(run: Path, whole: Outline, validation: tuple) -> None:
    folder = RunFolder(run)
    worst = measure_validation(folder, folder.config).worst
    assert len(whole.images) == len(worst) == 23
    for png, one in zip(whole.images, worst, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png))), one.image)


def test_class_names_are_text_wherever_they_stand(run: Path, whole: Outline) -> None:
    assert "<b>cat" not in (run / "report.html").read_text()
    assert whole.text.count("<b>cat</b> & co") >= 3
    assert {attributes.get("alt") for tag, attributes in whole.elements if tag == "img"} == set(NAMES)


def test_parameters_are_counted_by_part_and_leaf(run: Path, whole: Outline) -> None:
    network = load_run(run).network
    assert f"{network.num_parameters:,}" in whole.text
    assert "backbone/stage2" in whole.text
    assert "head/kernel" in whole.text


def test_large_images_are_reduced_and_small_ones_kept() -> None:
    def one(image: np.ndarray) -> WorstImage:
        return WorstImage(0, image, 0, 0, 0.4, 0.4, 0.9)

    images = [np.full((600, 300, 3), 7, np.uint8), np.full((20, 30, 1), 9, np.uint8)]
    section = Outline(worst_section([one(image) for image in images], ["dog"]))
    sizes = [Image.open(io.BytesIO(png)).size for png in section.images]
    assert sizes == [(96, 192), (30, 20)]
    assert "right, with 40.0\N{NO-BREAK SPACE}%" in section.text


def test_many_classes_are_a_map_and_their_worst_pairs() -> None:
    matrix = np.diag(np.full(30, 90))
    matrix[3, 17] = 10
    section = Outline(confusion_section(matrix, [f"class {place}" for place in range(30)], "validation"))
    assert "svg" in [tag for tag, _ in section.elements]
    assert re.search(r"class 3class 171010\.0 %", section.text)
    few = Outline(confusion_section(np.diag([5, 0]), ["a", "b"], "validation"))
    assert "No example was taken for another class." in few.text


def test_a_run_without_its_data_has_a_report_without_images(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    moved = shutil.copytree(run, tmp_path / "moved")
    text = (moved / "config.json").read_text().replace("noise.npz", "gone.npz")
    (moved / "config.json").write_text(text)
    outline = report(moved)
    assert "No images: " in outline.text
    assert outline.images == []
    assert main(["report", str(moved), "--data.data-dir", str(tmp_path / "none.npz")]) == 2
    assert main(["report", str(moved), "--data.data-dir", str(run.parent / "noise.npz")]) == 0
    assert len(Outline((moved / "report.html").read_text()).images) == 23


def test_without_images_the_matrix_is_the_one_the_run_left(run: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(copied / "checkpoints")
    (copied / "confusion").mkdir()
    held = {"step": 5, "class_names": NAMES, "matrix": [[123, 0, 0], [0, 7, 0], [0, 0, 7]]}
    (copied / "confusion" / "validation.json").write_text(json.dumps(held))
    outline = report(copied, "--no-images")
    assert "by the weights of step 5" in outline.text
    assert "123" in outline.text
    assert outline.images == []


def test_mistakes_are_told_in_a_line(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for arguments, message in (
        ([tmp_path / "none"], "no run folder"),
        ([run, "--out", tmp_path / "x.pdf"], "ends in .html"),
        ([run, "--out", tmp_path / "none" / "x.html"], "no folder"),
        ([run, "--data.image-size", "16"], "data.image_size=16"),
    ):
        assert main(["report", *map(str, arguments)]) == 2
        told = [text for text in capsys.readouterr().err.splitlines() if text.startswith("error: ")]
        assert len(told) == 1
        assert message in told[0]


CONFIGS = sorted((ROOT / "configs").glob("*.py"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_command_of_a_report_gives_the_same_config(path: Path) -> None:
    config = load_config(path)
    words = shlex.split(command_of(config))
    assert words[:2] == ["jaxcnn", "train"]
    assert parse_config(TrainConfig(), words[2:], _options()) == config


def test_the_command_holds_switches_tuples_and_none() -> None:
    thawed = ((2.0, "backbone/stage2/**"), (3.0, "**"))
    config = with_fields(
        TrainConfig(), model__scan_blocks=True, model__squeeze_excite=True, optim__nesterov=False,
        optim__ema_decay=None, freeze=("backbone/**", "!backbone/stage3/**"), unfreeze=thawed, name="two words",
    )  # fmt: skip
    words = shlex.split(command_of(config))
    assert parse_config(TrainConfig(), words[2:], _options()) == config


def test_the_choice_none_is_not_what_is_not_set() -> None:
    section = Outline(config_section(with_fields(TrainConfig(), model__norm="none", optim__ema_decay=None)))
    assert "model.normnonenot set" in section.text
    assert "optim.ema_decaynot set0.996" in section.text


def test_leaves_say_from_when_on_they_train() -> None:
    config = with_fields(TrainConfig(), freeze=("backbone/**",), unfreeze=((2.0, "backbone/stage3/**"),))
    found = trained_from(["backbone/stage1/k", "backbone/stage3/k", "head/kernel"], config)
    assert list(found.values()) == ["frozen", "from epoch 2", "trains"]


def test_health_is_drawn_by_layer_and_spikes_are_told_worst_first() -> None:
    assert health_section([]) is None
    looks = [
        {"step": step, "seconds": 0.1, "layers": {"a": {"mean": 0.0, "std": 1.0, "dead": 0.0, "saturated": None}},
         "leaves": {"a/kernel": {"grad_norm": 0.1 * step, "weight_norm": 1.0, "update_ratio": 1e-3}}}
        for step in range(3)
    ]  # fmt: skip
    spikes = [
        {"event": "loss_spike", "step": step, "loss": loss, "expected": 0.4, "examples": list(range(64))}
        for step, loss in ((5, 2.0), (9, 8.0))
    ]
    what = "the training loss is nan in step 11, first in <head>"
    stop = {
        "event": "nonfinite",
        "what": what,
        "step": 11,
        "objective": "nan",
        "grad_norm": "inf",
        "first": "in <head>",
    }
    section = health_section([*looks, *spikes, stop])
    assert section is not None
    outline = Outline(section)
    assert [tag for tag, _ in outline.elements].count("svg") == 3  # nothing is dead, nothing saturated
    assert outline.text.index("98") < outline.text.index("52")  # step 9, loss 8 before step 5, loss 2
    assert "and 52 more" in outline.text
    assert "the training loss is nan in step 11, first in <head>" in outline.text


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="no browser")
def test_a_browser_shows_the_page_without_a_word_of_complaint(whole: Outline, run: Path, tmp_path: Path) -> None:
    shot = tmp_path / "shot.png"
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--window-size=400,3000")
    command = ["chromium", *flags, f"--screenshot={shot}", f"file://{run / 'report.html'}"]
    told = subprocess.run(command, capture_output=True, text=True, timeout=120, env=dict(os.environ)).stderr
    assert "CONSOLE" not in told
    pixels = np.asarray(Image.open(shot).convert("L"))
    assert pixels.shape == (3000, 400)
    assert (pixels < 128).mean() > 0.01  # something is written


def test_a_page_is_whole() -> None:
    assert page("a", "b").startswith("<!doctype html>\n<html lang=")
