"""`jaxcnn preflight`, and `train --preflight` and `--find-lr`: exit codes, files, and what reaches the run."""

import json
from pathlib import Path

import pytest

from jaxcnn.cli import main
from jaxcnn.run_folder import RunFolder
from jaxcnn.tuning import data_checks, network_checks, preflight
from jaxcnn.tuning.findings import Finding
from tests.conftest import with_fields
from tests.runs import write_config


@pytest.fixture
def config(tiny_config, tmp_path: Path) -> Path:
    return write_config(with_fields(tiny_config, train__epochs=1.0), tmp_path / "config.py")


@pytest.fixture
def few_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    checks = (data_checks.labels_in_range, network_checks.initial_loss)
    monkeypatch.setattr(preflight, "CHECKS", checks)
    monkeypatch.setattr(preflight, "JOB_CHECKS", ())


@pytest.fixture
def a_failing_check(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Finding("moon phase", "fail", "waning", "waxing", "wait two weeks")
    monkeypatch.setattr(preflight, "CHECKS", (lambda subject: found,))
    monkeypatch.setattr(preflight, "JOB_CHECKS", ())


def test_a_healthy_config_passes_and_leaves_a_report(few_checks, config: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "report"
    assert main(["preflight", "--config", str(config), "--out", str(out), "--html"]) == 0
    text = capsys.readouterr().out
    assert "pass  initial loss" in text
    assert "3 pass" in text  # the whole splits too
    assert {path.name for path in out.iterdir()} == {
        "preflight.png", "preflight.json", "preflight.html", "sheet.png"
    }  # fmt: skip
    report = json.loads((out / "preflight.json").read_text())
    assert report["verdict"] == "pass"
    assert all(one["seconds"] >= 0 for one in report["findings"])


def test_a_planted_fault_ends_with_code_1_and_advice(few_checks, config: Path, tmp_path: Path, capsys) -> None:
    arguments = ["preflight", "--config", str(config), "--out", str(tmp_path / "report"), "--plant", "averaged-twice"]
    assert main(arguments) == 1
    text = capsys.readouterr().out
    assert "fail  initial loss" in text
    assert "->" in text


def test_json_is_one_object_on_standard_output(few_checks, config: Path, tmp_path: Path, capsys) -> None:
    assert main(["preflight", "--config", str(config), "--out", str(tmp_path / "report"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [one["check"] for one in report["findings"]] == ["whole splits", "labels in range", "initial loss"]
    assert Path(report["files"]["figure"]).is_file()


def test_mistakes_are_told_before_anything_is_checked(config: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "file").write_text("")
    for arguments, message in (
        (["--out", str(tmp_path / "file")], "--out"),
        (["--plant", "overlapp", "--out", str(tmp_path / "a")], "did you mean 'overlap'"),
        (["--model.name", "resnet21", "--out", str(tmp_path / "a")], "no such network"),
    ):
        assert main(["preflight", "--config", str(config), *arguments]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert not list(tmp_path.glob("a*"))


def test_a_failed_check_stops_training_unless_told_otherwise(
    a_failing_check, config: Path, tmp_path: Path, capsys
) -> None:
    arguments = ["train", "--config", str(config), "--workdir", str(tmp_path / "run")]
    assert main([*arguments, "--preflight"]) == 2
    error = capsys.readouterr().err
    assert "fail  moon phase" in error
    assert "preflight: moon phase failed, so nothing was trained" in error
    assert not (tmp_path / "run").exists()
    assert (tmp_path / "run-preflight" / "preflight.png").is_file()
    assert main([*arguments, "--preflight", "tell"]) == 0
    assert RunFolder(tmp_path / "run").result() is not None


def test_the_found_rate_is_in_the_config_of_the_run(config: Path, tmp_path: Path, capsys) -> None:
    arguments = ["train", "--config", str(config), "--workdir", str(tmp_path / "run")]
    assert main([*arguments, "--find-lr"]) == 0
    folder = RunFolder(tmp_path / "run")
    found = json.loads((folder.path / "lr_finder.json").read_text())
    assert folder.config.optim.peak_lr == float(f"{found['suggestion']:.1e}") != 0.05
    assert (folder.path / "lr_finder.png").is_file()
    assert f"optim.peak_lr={folder.config.optim.peak_lr:g}, not 0.05" in capsys.readouterr().err
    assert main([*arguments, "--find-lr", "--resume", "auto"]) == 0  # as a scheduler starts the same line again
    assert "suggested" not in capsys.readouterr().err


def test_a_stop_that_a_library_swallows_ends_the_command_all_the_same() -> None:
    import contextlib
    import os
    import signal

    from jaxcnn.errors import Interrupted
    from jaxcnn.interruption import StopRequest

    def command(stop: StopRequest) -> None:
        with stop.anywhere(lambda: "nothing is lost", at_once=True):
            with contextlib.suppress(BaseException):
                os.kill(os.getpid(), signal.SIGINT)
            stop.check()

    with StopRequest() as stop, pytest.raises(Interrupted, match="nothing is lost"):
        command(stop)
