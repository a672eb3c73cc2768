"""`jaxcnn sweep` with real processes: tables, failures, interruption, going on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jaxcnn.cli import main
from jaxcnn.config import TrainConfig
from jaxcnn.run_folder import RunFolder
from tests.conftest import with_fields
from tests.runs import write_config
from tests.test_sweep import Fake


@pytest.fixture
def config_file(tiny_config: TrainConfig, tmp_path: Path) -> str:
    config = with_fields(tiny_config, train__epochs=1.0, schedule__warmup_epochs=0.0, health__every_steps=0)
    return str(write_config(config, tmp_path / "c.py"))


def until(condition, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


def test_a_sweep_compares_what_trains_and_records_what_fails(config_file: str, tmp_path: Path, capsys) -> None:
    out = tmp_path / "sweep"
    code = main(["sweep", "--config", config_file, "--optim.peak-lr", "0.05,1e30", "--out", str(out), "--json"])
    printed, log = capsys.readouterr()
    assert code == 0, log
    found = json.loads(printed)
    good, bad = found["settings"]
    run = RunFolder(out / "peak-lr=0.05,seed=0")
    result = run.result()
    assert result is not None
    assert run.config.optim.peak_lr == good["values"]["optim.peak_lr"] == 0.05
    assert found["best"]["values"] == good["values"]
    assert (good["top1"], good["loss"]) == ([result["validation"]["top1"]], [result["final"]["validation"]["loss"]])
    assert (bad["top1"], bad["failed"]) == ([], 1)
    assert "peak-lr=1e+30,seed=0: failed" in log
    assert "not finite" in log or "nan" in log
    assert good["test_top1"] == []
    assert all(Path(file).is_file() for file in found["files"].values())

    began = time.monotonic()
    assert main(["sweep", "--out", str(out), "--resume", "--test"]) == 0  # nothing is left to run
    assert time.monotonic() - began < 5
    printed, log = capsys.readouterr()
    assert "started" not in log
    assert "test top1 mean" in printed
    assert f"train it: jaxcnn train --config {out}/config.py --optim.peak-lr 0.05 --seed 0" in printed
    assert "at the end of its list" in printed

    assert main(["sweep", "--out", str(out), "--optim.peak-lr", "0.1"]) == 2
    assert capsys.readouterr().err.startswith(f"error: --out {out} already holds a sweep: go on with it by adding")
    assert main(["sweep", "--out", str(out), "--resume", "--train.epochs", "2"]) == 2
    assert "was started with train.epochs=1.0, not 2.0" in capsys.readouterr().err


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="trials outlive a killed sweep elsewhere")
@pytest.mark.slow
def test_a_sweep_that_is_terminated_or_killed_leaves_no_process_and_goes_on(config_file: str, tmp_path: Path) -> None:
    out = tmp_path / "sweep"
    command = [sys.executable, "-m", "jaxcnn", "sweep", "--out", str(out)]
    given = ["--config", config_file, "--train.epochs", "300", "--seeds", "1", "--optim.peak-lr", "0.05,0.1"]
    run = out / "peak-lr=0.05,seed=0"
    first = subprocess.Popen([*command, *given], stderr=subprocess.PIPE, text=True)
    until(lambda: (run / "metrics.jsonl").is_file() and (run / "metrics.jsonl").read_text().count("\n") > 1)
    first.send_signal(signal.SIGTERM)
    _, log = first.communicate()
    assert first.returncode == 75, log
    assert log.splitlines()[-1].startswith("interrupted: 0 of 2 trials are done, those that ran are saved; go on with:")
    assert "interrupted and saved at step" in (out / "logs" / f"{run.name}.log").read_text()
    held = len(RunFolder(run).metrics())

    second = subprocess.Popen([*command, "--resume"], stderr=subprocess.PIPE, text=True)
    until(lambda: len(RunFolder(run).metrics()) > held + 1)
    child = int(Path(f"/proc/{second.pid}/task/{second.pid}/children").read_text().split()[0])
    second.kill()
    second.communicate()
    until(lambda: not is_alive(child))
    log = (out / "logs" / f"{run.name}.log").read_text()
    assert "going on from step" in log
    assert log.count("interrupted and saved at step") == 2


def test_a_sweep_without_a_trial_that_is_done_ends_with_the_first_reason(tmp_path, monkeypatch, capsys) -> None:
    def fails(folder, workers):
        return lambda trial, slot: Fake(folder, trial, None, 1, f"error: no memory for {trial.name}")

    monkeypatch.setattr("jaxcnn.tuning.sweep.start_process", fails)
    assert main(["sweep", "--seeds", "2", "--out", str(tmp_path / "s")]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: no trial was done; the first one ended with: error: no memory for seed=0; ")
    assert last.endswith(f"jaxcnn sweep --out {tmp_path / 's'} --resume --retry-failed")


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--optim.peek-lr", "0.1,0.2"], "error: no flag --optim.peek-lr; did you mean '--optim.peak-lr'"),
        (["--optim.peak-lr", "0.1,-1"], "error: command line: optim.peak_lr=-1.0: input should be greater than 0"),
        (["--seeds", "none"], "error: argument --seeds: 'none' is not a whole number from 1 on"),
        ([], "error: nothing to sweep"),
        (["--resume"], "error: --resume needs --out SWEEP"),
        (["--seed", "0,1", "--seeds", "2"], "error: --seed takes a list of seeds, or --seeds says how many"),
        (["--optim.peak-lr", "0.1,0.2", "--out", "OUT", "--resume"], "error: --out OUT --resume: there is no sweep"),
        (["--config", "none.py", "--seeds", "2"], "error: no config file none.py"),
    ],
)
def test_mistakes_are_told_in_a_line_and_make_no_folder(arguments, told, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["sweep", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith(told)
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
