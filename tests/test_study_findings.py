"""Findings of studies as files, and the command that makes them; the study is a made-up one."""

import csv
import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxcnn.cli import main
from jaxcnn.studies.catalogue import STUDIES, find_study
from jaxcnn.studies.findings import Claim, Findings, Table
from jaxcnn.studies.rendering import as_markdown, write_findings

CLAIMS = (
    Claim("Up is above down.", "2 against 1", True),
    Claim("Down is above up.", "1 against 2", False),
    Claim("It depends.", "one seed has no spread", None),
)


def draw(figure) -> None:
    figure.subplots().plot([1, 2], [3, 4])


def findings(claims=CLAIMS) -> Findings:
    main_table = Table(
        "main", "By seed.", ("seed", "top1", "note"), ((0, np.float32(0.5), "a|b"), (1, 0.123456789, None))
    )
    return Findings(
        study="made-up",
        question="What is up?",
        setup="Nothing was cut.",
        tables=(main_table, Table("more", "More.", ("x",), ((np.int64(3),),))),
        claims=claims,
        draw=draw,
        description="A line.",
        details={"extra": np.float64(2.5)},
    )


def test_files_hold_the_findings_in_four_forms(tmp_path) -> None:
    files = write_findings(findings(), tmp_path / "out", "made by hand")
    assert set(files) == {"made-up.csv", "made-up_more.csv", "made-up.json", "made-up.png", "made-up.md"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(files)
    rows = list(csv.reader((tmp_path / "out" / "made-up.csv").read_text().splitlines()))
    assert rows == [["seed", "top1", "note"], ["0", "0.5", "a|b"], ["1", "0.123456789", ""]]
    held = json.loads((tmp_path / "out" / "made-up.json").read_text())
    assert held["tables"]["more"] == [{"x": 3}]
    assert held["extra"] == 2.5
    assert [claim["verdict"] for claim in held["claims"]] == ["supported", "not supported", "undecided"]
    assert Image.open(files["made-up.png"]).size[0] > 500


def test_numbers_that_are_not_finite_are_null_in_json() -> None:
    table = Table("main", "By seed.", ("a", "b"), ((float("inf"), np.float32("nan")),))
    whole = Findings("made-up", "?", "", (table,), (), draw, details={"list": [1.0, float("-inf")]}).as_json()
    assert json.loads(json.dumps(whole, allow_nan=False))["tables"]["main"] == [{"a": None, "b": None}]
    assert whole["list"] == [1.0, None]


def test_markdown_has_verdicts_tables_figure_and_how_to_repeat_it() -> None:
    text = as_markdown(findings(), "made by hand")
    assert "**Up is above down.** Supported: 2 against 1" in text
    assert "**Down is above up.** Not supported: 1 against 2" in text
    assert "**It depends.** Undecided: one seed has no spread" in text
    assert "| seed | top1 | note |\n| --- | ---: | ---: |\n| 0 | 0.5 | a\\|b |\n| 1 | 0.1235 | - |" in text
    assert "![A line.](made-up.png)" in text
    assert text.endswith("made by hand\n")
    assert "made-up.png" not in as_markdown(findings(), with_figure=False)


def test_a_row_that_does_not_fit_its_head_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        Table("t", "", ("a", "b"), ((1,),))


@pytest.fixture
def made_up(monkeypatch):
    """The settings that the made-up study was run in."""
    seen = []

    def study(setting):
        seen.append(setting)
        return findings()

    module = types.ModuleType("jaxcnn.studies.made_up")
    module.study = study
    monkeypatch.setitem(sys.modules, "jaxcnn.studies.made_up", module)
    monkeypatch.setitem(STUDIES, "made-up", "nothing")
    return seen


def test_the_command_writes_the_findings_of_a_study_of_the_size_and_seeds_that_are_asked(
    made_up, tmp_path, capsys, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["study", "made-up"]) == 0
    text = capsys.readouterr().out
    assert "Supported: 2 against 1" in text
    assert (tmp_path / "runs/studies/made-up-quick/made-up.png").is_file()
    data = ["--data.data-dir", "elsewhere"]
    assert main(["study", "made-up", "--size", "cpu", "--seeds", "2", "--out", "x", "--json", *data]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["size"] == "cpu"
    assert report["files"]["made-up.csv"] == "x/made-up.csv"
    quick, cpu = made_up
    assert (quick.size, quick.seeds, quick.data.name) == ("quick", (0, 1, 2), "mnist5k")
    assert (cpu.size, cpu.seeds, cpu.data.name, cpu.data.data_dir) == ("cpu", (0, 1), "cifar10", "elsewhere")
    assert cpu.data.train_split == "train[:20000]"


def test_ctrl_c_between_trainings_exits_with_75_and_says_what_is_kept(made_up, tmp_path, capsys, monkeypatch) -> None:
    def study(setting):
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["jaxcnn.studies.made_up"], "study", study)
    assert main(["study", "made-up", "--out", str(tmp_path)]) == 75
    assert f"what was trained is kept in {tmp_path}/trials" in capsys.readouterr().err


def test_other_data_are_taken_as_they_are(made_up, tmp_path) -> None:
    out = ["--out", str(tmp_path / "out")]
    assert main(["study", "made-up", "--size", "cpu", *out, "--data.name", "fashion_mnist"]) == 0
    assert (made_up[0].data.name, made_up[0].data.train_split) == ("fashion_mnist", None)
    told = (tmp_path / "out" / "made-up.md").read_text()
    assert "Other data than those of the size" in told
    assert "name='fashion_mnist'" in told


@pytest.mark.parametrize("place", [["--data.data-dir", "/some/where"], ["--data.data_dir=/some/where"]])
def test_the_command_to_repeat_a_study_has_its_data_but_no_places_of_this_machine(made_up, place, tmp_path) -> None:
    data = ["--data.per-class", "7", *place, "--data.image-size=8"]
    assert main(["study", "made-up", "--seeds", "2", "--out", str(tmp_path), *data]) == 0
    told = (tmp_path / "made-up.md").read_text()
    assert "`jaxcnn study made-up --size quick --seeds 2 --data.per-class 7 --data.image-size=8`" in told
    assert "/some/where" not in told


def test_the_data_of_the_size_are_no_other_data_wherever_they_lie(made_up, tmp_path) -> None:
    assert main(["study", "made-up", "--out", str(tmp_path), "--data.data-dir", "/some/where"]) == 0
    assert "Other data" not in (tmp_path / "made-up.md").read_text()


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["norm-axis"], "did you mean 'norm-axes'"),
        (["made-up", "--seeds", "0"], "--seeds 0: at least 1"),
        (["made-up", "--out", "{file}/x"], "--out"),
        (["made-up", "--data.per-class", "0"], "per_class"),
    ],
)
def test_a_mistake_is_told_in_one_line(made_up, argv, told, tmp_path, capsys) -> None:
    (tmp_path / "file").write_text("")
    assert main(["study", *(part.format(file=tmp_path / "file") for part in argv)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert told in error
    assert not made_up


def test_every_study_of_the_catalogue_is_there_and_short() -> None:
    for name in STUDIES:
        study = find_study(name)
        lines = len(Path(study.__code__.co_filename).read_text().splitlines())
        assert lines < 150, f"{name} has {lines} lines: what does not fit is the library's"
