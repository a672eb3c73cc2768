"""Searches: what a study draws, prunes and goes on with; trials are stand-ins that take no time."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jaxcnn.config import TrainConfig
from jaxcnn.errors import InputError
from jaxcnn.tuning.axes import Axis, Range, with_value
from jaxcnn.tuning.study_search import Search, check_search
from jaxcnn.tuning.sweep import Stop, run_trials
from jaxcnn.tuning.sweep_folder import Sweep, SweepFolder, Trial
from jaxcnn.tuning.sweep_report import rows_of, write_report

EPOCHS = 5
BASE = with_value(with_value(TrainConfig(), "train.epochs", float(EPOCHS)), "schedule.warmup_epochs", 0.0)
AXES = (Axis("optim.peak_lr", range=Range(0.001, 1.0, True)), Axis("optim.name", ("sgd", "adamw")))


class Epochs:
    """A trial that does an epoch a poll, with the same top-1 after each, and then has a result."""

    def __init__(self, folder: SweepFolder, trial: Trial, top1: float | None):
        self.run, self.top1, self.epoch, self.is_stopped = folder.run(trial), top1, 0, False
        self.seconds = 1.0
        self.run.mkdir(exist_ok=True)
        (self.run / "config.json").write_text("{}")
        (self.run / "metrics.jsonl").write_text("")

    def poll(self) -> int | None:
        if self.is_stopped:
            return 75
        if self.top1 is None:
            return 1
        if self.epoch < EPOCHS:
            self.epoch += 1
            line = {"step": self.epoch, "epoch": float(self.epoch), "validation": {"top1": self.top1}}
            with open(self.run / "metrics.jsonl", "a") as file:
                file.write(json.dumps(line) + "\n")
            return None
        result = {"validation": {"top1": self.top1}, "final": {"validation": {"loss": 0.5}}, "seconds": 1.0}
        (self.run / "result.json").write_text(json.dumps(result))
        return 0

    def stop(self) -> None:
        self.is_stopped = True

    def kill(self) -> None:
        self.stop()

    def last_line(self) -> str:
        return "error: it failed"


def setting(trial: Trial) -> dict[str, Any]:
    return dict(trial.values)


def quality(trial: Trial) -> float:
    """Best at a learning rate of 0.1 with adamw."""
    import math

    return (
        0.9 - 0.2 * abs(math.log10(setting(trial)["optim.peak_lr"]) + 1) - 0.1 * (setting(trial)["optim.name"] == "sgd")
    )


def opened(path: Path, **changes: Any) -> tuple[SweepFolder, Sweep]:
    sweep = replace(Sweep(BASE, AXES, (0,), 6), **changes)
    folder = SweepFolder(path)
    folder.write_sweep(sweep)
    return folder, sweep


def statuses(folder: SweepFolder, search: Search) -> list[str | None]:
    return [getattr(folder.outcome(trial), "status", None) for trial in search.trials()]


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("optuna")
    monkeypatch.setattr("jaxcnn.tuning.sweep._POLL_SECONDS", 0.0)


def test_a_search_draws_as_many_settings_as_asked_from_its_intervals_and_lists(tmp_path: Path) -> None:
    folder, sweep = opened(tmp_path / "s")
    search = Search(folder, sweep)
    run_trials(search, folder, lambda trial, slot: Epochs(folder, trial, quality(trial)), 1, Stop())
    trials = search.trials()
    assert len(trials) == len({trial.name for trial in trials}) == 6
    assert all(0.001 <= setting(trial)["optim.peak_lr"] <= 1.0 for trial in trials)
    assert {setting(trial)["optim.name"] for trial in trials} == {"sgd", "adamw"}
    values = {one.number: one.value for one in search._study.get_trials() if one.value is not None}
    done = [trial for trial in trials if (end := folder.outcome(trial)) and end.status == "done"]
    assert {int(trial.name[:4]) for trial in done} == {n for n in values if statuses(folder, search)[n] == "done"}
    assert all(values[int(trial.name[:4])] == quality(trial) for trial in done)
    assert Search(folder, sweep).take() is None  # through
    assert Search(folder, replace(sweep, search=7)).take() is not None  # more are asked for
    assert Path(
        write_report(rows_of([(t, folder.outcome(t)) for t in trials], test=False), sweep, folder)["figure"]
    ).exists()


def test_a_setting_below_the_median_of_the_others_is_pruned(tmp_path: Path) -> None:
    """The sixth is: Optuna's median pruner lets five settings through before it judges."""
    folder, sweep = opened(tmp_path / "s", search=7)
    tops = iter((0.5, 0.6, 0.7, 0.8, 0.9, 0.1, 0.95))
    search = Search(folder, sweep)
    run_trials(search, folder, lambda trial, slot: Epochs(folder, trial, next(tops)), 1, Stop())
    assert statuses(folder, search) == ["done"] * 5 + ["pruned", "done"]
    assert len(folder.metrics(search.trials()[5])) < EPOCHS
    rows = rows_of([(trial, folder.outcome(trial)) for trial in search.trials()], test=False)
    assert (rows[5].stopped_top1, rows[5].top1) == ((0.1,), ())


def test_the_value_of_a_setting_is_the_mean_over_its_seeds(tmp_path: Path) -> None:
    folder, sweep = opened(tmp_path / "s", search=1, seeds=(0, 1, 2))
    search = Search(folder, sweep)
    run_trials(search, folder, lambda trial, slot: Epochs(folder, trial, 0.5 + 0.1 * trial.seed), 2, Stop())
    assert search._study.best_value == pytest.approx(0.6)


def test_a_setting_of_which_a_seed_fails_is_failed_and_its_other_seeds_are_not_run(tmp_path: Path) -> None:
    folder, sweep = opened(tmp_path / "s", search=2, seeds=(0, 1))
    search = Search(folder, sweep)
    run_trials(
        search, folder, lambda trial, slot: Epochs(folder, trial, None if trial.name[:4] == "0000" else 0.5), 1, Stop()
    )
    assert statuses(folder, search) == ["failed", None, "done", "done"]
    assert [one.state.name for one in search._study.get_trials()] == ["FAIL", "COMPLETE"]
    assert Search(folder, sweep).take() is None
    retried = Search(folder, sweep, retry_failed=True).take()
    assert retried is not None
    assert retried.name == search.trials()[0].name


def test_two_workers_share_a_study_and_draw_apart(tmp_path: Path) -> None:
    folder, sweep = opened(tmp_path / "s", search=4)
    first, second = Search(folder, sweep), Search(folder, sweep)
    taken = [first.take(), second.take(), first.take(), second.take()]
    assert len({trial.values for trial in taken if trial}) == 4
    assert (first.take(), second.take()) == (None, None)  # the number is that of all workers together


def test_an_interrupted_setting_goes_on_in_its_folder_and_counts_once(tmp_path: Path) -> None:
    folder, sweep = opened(tmp_path / "s", search=2)
    stop = Stop()

    def start(trial: Trial, slot: int) -> Epochs:
        stop.requested = True
        return Epochs(folder, trial, 0.5)

    search = Search(folder, sweep)
    run_trials(search, folder, start, 1, stop)
    assert statuses(folder, search) == ["interrupted"]
    interrupted = search.trials()
    again = Search(folder, sweep)
    run_trials(again, folder, lambda trial, slot: Epochs(folder, trial, 0.5), 1, Stop())
    assert again.trials()[:1] == interrupted
    assert statuses(folder, again) == ["done", "done"]


def test_the_setting_of_a_killed_worker_is_taken_over_and_that_of_a_living_one_is_not(tmp_path: Path) -> None:
    folder, sweep = opened(tmp_path / "s", search=2)
    killed, living = Search(folder, sweep), Search(folder, sweep)
    lost, kept = killed.take(), living.take()
    assert lost is not None
    killed._draws[lost.name].lock.close()  # what the system does when a process ends
    third = Search(folder, sweep)
    assert third.take() == lost
    assert third.take() is None
    assert third.trials() == [lost, kept]


def test_seeds_that_were_done_when_a_worker_was_killed_are_not_run_again(tmp_path: Path) -> None:
    folder, sweep = opened(tmp_path / "s", search=1, seeds=(0, 1))
    killed = Search(folder, sweep)
    first = killed.take()
    assert first is not None
    process = Epochs(folder, first, 0.5)
    while process.poll() is None:
        pass
    killed._draws[first.name].lock.close()
    again = Search(folder, sweep)
    run_trials(again, folder, lambda trial, slot: Epochs(folder, trial, 0.7 if trial != first else None), 1, Stop())
    assert again._study.best_value == pytest.approx(0.6)


def test_what_cannot_be_searched_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    lists = Sweep(BASE, AXES[1:], (0,), 2)
    with pytest.raises(InputError, match=r"^--search 2: the lists make 2 settings"):
        check_search(lists)
    with pytest.raises(InputError, match="nothing to search"):
        check_search(replace(lists, axes=()))
    check_search(replace(lists, search=1))
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(InputError, match=r'^--search needs Optuna: pip install "jaxcnn\[sweep\]"$'):
        check_search(Sweep(BASE, AXES, (0,), 2))
    check_search(replace(lists, search=None))
