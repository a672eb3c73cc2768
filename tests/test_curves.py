"""The figures of runs, and `jaxcnn curves`."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from jaxcnn.cli import main
from jaxcnn.comparison import differences, dotted, read_runs, shown
from jaxcnn.config import Preprocessing, TrainConfig
from jaxcnn.curves import PARTS, as_svg, best_line, draw_accuracy, draw_loss, plot_curves, plot_several
from jaxcnn.drawings import Drawings
from jaxcnn.run_folder import RunFolder
from tests.conftest import with_fields


def line(epoch: float, top1: float, clean: bool = True) -> dict[str, Any]:
    figures = {"loss": 1 - top1 + 0.1, "top1": top1}
    more = {"clean": {"loss": 0.05, "top1": min(1.0, top1 + 0.1)}} if clean else {}
    return {"step": int(epoch * 10), "epoch": epoch, "learning_rate": 0.1, "train": figures, **more,
            "validation": {"loss": 1.2 - top1, "top1": top1 - 0.05}}  # fmt: skip


LINES = [line(1, 0.3), line(2, 0.8), line(3, 0.9), line(4, 0.9)]


def make_run(path: Path, lines: list[dict[str, Any]], result: dict[str, Any] | None = None, **fields: Any) -> Path:
    names, images = tuple("0123456789"), Preprocessing((28, 28, 1), (0.1,), (0.3,), "grey")
    folder = RunFolder.create(path, with_fields(TrainConfig(), **fields), names, images)
    for one in lines:
        folder.append_metrics(one)
    if result is not None:
        folder.write_json("result.json", result)
    return path


def mistake(capsys: pytest.CaptureFixture, *arguments: object) -> str:
    """Runs `jaxcnn curves ...`, which must end with code 2 and one line, and returns the line."""
    assert main(["curves", *map(str, arguments)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (told,) = captured.err.splitlines()
    return told


def test_the_curves_are_the_figures_of_the_lines() -> None:
    loss, accuracy = Figure().subplots(1, 2)
    draw_loss(loss, LINES)
    draw_accuracy(accuracy, LINES)
    for axes, figure, scale in ((loss, "loss", 1), (accuracy, "top1", 100)):
        for drawn, part in zip(axes.lines, PARTS, strict=False):
            np.testing.assert_allclose(drawn.get_xdata(), [1, 2, 3, 4])
            np.testing.assert_allclose(drawn.get_ydata(), [scale * one[part][figure] for one in LINES])
    assert len(accuracy.collections) == 2  # between clean and train, and between clean and validation


def test_lines_without_clean_figures_have_no_clean_curve_and_no_shading() -> None:
    axes = Figure().subplots()
    draw_accuracy(axes, [line(1, 0.3, clean=False), line(2, 0.5, clean=False)])
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["train", "validation"]
    assert not any(len(path.vertices) for shape in axes.collections for path in shape.get_paths())


def test_the_best_line_is_the_latest_of_equal_ones_and_is_marked() -> None:
    assert best_line(LINES)["epoch"] == 4
    axes = Figure().subplots()
    draw_accuracy(axes, LINES)
    star = next(drawn for drawn in axes.lines if drawn.get_marker() == "*")
    assert (star.get_xdata()[0], star.get_ydata()[0]) == pytest.approx((4, 85))
    assert "best validation 85.00 % at epoch 4" in axes.get_title()


@pytest.mark.parametrize("lines", [[], LINES[:1], [{**line(1, 0.5), "train": {"loss": math.nan, "top1": 0.1}}]])
def test_a_figure_is_drawn_of_whatever_there_is(lines: list[dict[str, Any]], tmp_path: Path) -> None:
    plot_curves(lines, tmp_path / "curves.png", "cost $x_{ of y$", "a note with $x^2 " * 20)
    assert Image.open(tmp_path / "curves.png").size[0] > 1000
    assert [path.name for path in tmp_path.iterdir()] == ["curves.png"]


def test_runs_over_each_other_cut_off_what_diverged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    far = [{**one, "train": {"loss": 1e20, "top1": 0.1}} for one in LINES]
    seen = []
    monkeypatch.setattr("jaxcnn.curves.save", lambda figure, path: seen.append(figure))
    plot_several({"one": LINES, "$two$": far}, tmp_path / "several.png")
    loss = seen[0].axes[0]
    low, high = loss.get_ylim()
    assert low < min(one["validation"]["loss"] for one in LINES)
    assert max(one["train"]["loss"] for one in LINES) < high < 100


def test_a_plot_in_a_page_has_text_as_text_and_no_date() -> None:
    svg = as_svg(lambda axes: axes.set_title("a & b", parse_math=False))
    assert svg.startswith("<svg")
    assert "a &amp; b</text>" in svg
    assert "<dc:date>" not in svg


def test_a_run_that_trains_is_drawn_with_what_its_curves_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes = []
    monkeypatch.setattr("jaxcnn.drawings.plot_curves", lambda lines, path, title, note: notes.append(note))
    folder = RunFolder(make_run(tmp_path / "run", LINES, train__epochs=9.0))
    Drawings(folder, folder.class_names).draw({}, 40)
    Drawings(folder, folder.class_names).draw({}, 40, failed=True)
    assert notes[0].startswith("healthy so far")  # 4 of 9 epochs
    assert notes[1].startswith("diverged")


@pytest.mark.parametrize("epochs", [4.0, 9.0])
def test_the_last_drawing_says_what_the_result_says(
    epochs: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = []
    monkeypatch.setattr("jaxcnn.drawings.plot_curves", lambda lines, path, title, note: notes.append(note))
    result = {"seconds": 3.0, "stopped_early": epochs > 4, "final": {"step": 40}}
    lines = [line(epoch, 0.9, clean=False) for epoch in range(1, 5)]
    run = make_run(tmp_path / "run", lines, result, train__epochs=epochs)
    folder = RunFolder(run)
    Drawings(folder, folder.class_names).draw({}, 40)
    assert notes == [read_runs([run])[0].diagnosis.sentence]
    assert "so far" not in notes[0]
    assert ("stopped early at epoch 4 of 9" in notes[0]) == (epochs > 4)
    assert ("more train.epochs" in notes[0]) == (epochs == 4)
    folder.append_metrics(line(5, 0.9))  # it is gone on with: what it said at its end is past
    Drawings(folder, folder.class_names).draw({}, 50)
    assert ("healthy so far" in notes[1]) == (epochs > 5)


def test_a_setting_that_is_not_set_is_not_the_choice_none() -> None:
    settings = [dotted(TrainConfig()), dotted(with_fields(TrainConfig(), model__norm="none"))]
    (values,) = differences(settings).values()
    assert values == [None, "none"]
    assert [shown(value) for value in values] == ["not set", "none"]


def test_only_what_differs_is_in_the_table() -> None:
    first, second = TrainConfig(), with_fields(TrainConfig(), optim__peak_lr=0.1, freeze=("head/**",))
    found = differences([dotted(first), dotted(second), dotted(first)])
    assert found == {"optim.peak_lr": [0.3, 0.1, 0.3], "freeze": [(), ("head/**",), ()]}


def test_one_run_is_drawn_again_and_told(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    gap = {name: {"loss": 0.1, "top1": top1} for name, top1 in
           (("training", 0.9), ("augmented", 0.92), ("clean", 0.99), ("validation", 0.85))}  # fmt: skip
    run = make_run(tmp_path / "run", LINES, {"seconds": 3.0, "gap": {"examples": 50, **gap}})
    assert main(["curves", str(run)]) == 0
    diagnosis, told, figure = capsys.readouterr().out.splitlines()
    assert diagnosis.startswith("overfit: clean train top-1 100.0 %, validation 85.0 %, 15.0 points apart")
    assert "augmentation -7, dropout and norm mode -2, generalisation +14 (best weights, 50 training examples" in told
    assert figure == f"figure: {run / 'curves.png'}"
    assert Image.open(run / "curves.png").size[0] > 1000


def test_several_runs_are_a_table_of_differences_and_figures(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    result = {"seconds": 12.3, "test": {"top1": 0.825, "loss": 0.5}}
    runs = [make_run(tmp_path / "a", LINES, result), make_run(tmp_path / "b", LINES[:2], optim__peak_lr=0.05)]
    out = tmp_path / "both.png"
    assert main(["curves", *map(str, runs), "--out", str(out)]) == 0
    text = capsys.readouterr().out
    rows = {row.split("  ")[0].strip(): row.split()[-2:] for row in text.splitlines() if row.strip()}
    assert rows["optim.peak_lr"] == ["0.3", "0.05"]
    assert "train.epochs" not in text.replace("more train.epochs", "")
    assert "82.50 %" in text
    assert "unfinished" in text
    assert out.is_file()
    assert main(["curves", *map(str, runs), "--out", str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["differences"] == {"optim.peak_lr": [0.3, 0.05]}
    assert [one["best_validation_top1"] for one in found["runs"]] == pytest.approx([0.85, 0.75])
    assert [one["test_top1"] for one in found["runs"]] == [0.825, None]
    assert [one["finished"] for one in found["runs"]] == [True, False]


def test_runs_of_one_name_go_by_their_paths(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / name / "run", LINES) for name in ("a", "b")]
    other = make_run(tmp_path / "c", LINES)
    assert [run.name for run in read_runs([*runs, other])] == [*map(str, runs), "c"]


def test_mistakes_are_told_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run, empty = make_run(tmp_path / "run", LINES), make_run(tmp_path / "empty", [])
    (tmp_path / "folder").mkdir()
    assert "no run folder" in mistake(capsys, tmp_path / "none")
    assert "is not a run folder: it has no config.json" in mistake(capsys, run, tmp_path / "folder")
    assert "has no curves yet" in mistake(capsys, empty)
    assert "is named twice" in mistake(capsys, run, run)
    assert "ends in .png" in mistake(capsys, run, "--out", tmp_path / "x.pdf")
    assert "No such file" in mistake(capsys, run, "--out", tmp_path / "none" / "x.png")
