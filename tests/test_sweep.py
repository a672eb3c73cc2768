"""Sweeps: which trials, what becomes of each, what is reported; trials are stand-ins that take no time."""

import csv
import dataclasses
import fcntl
import json
import math
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxcnn.config import TrainConfig
from jaxcnn.config_reader import check, load_config
from jaxcnn.errors import InputError
from jaxcnn.tuning.axes import Axis, Range, fields_of, read_flags, tokens_of, with_value
from jaxcnn.tuning.sweep import Grid, Stop, check_trials, merged, run_trials, trials_of
from jaxcnn.tuning.sweep_figure import is_log
from jaxcnn.tuning.sweep_folder import Outcome, Sweep, SweepFolder, Trial, trial_of
from jaxcnn.tuning.sweep_report import as_json, as_markdown, best_of, command_of, near_best, rows_of, write_report
from jaxcnn.tuning.trial_process import cores_of, environment

BASE = TrainConfig()


class Fake:
    """A trial that ends at its `left`-th poll as it is told to: with a result, or an exit code and a last line."""

    def __init__(
        self, folder: SweepFolder, trial: Trial, top1: float | None, code: int = 0, line: str = "", left: int = 1
    ):
        self.run, self.trial, self.top1, self.code, self.line, self.left = (
            folder.run(trial),
            trial,
            top1,
            code,
            line,
            left,
        )
        self.seconds = 2.0
        self.is_stopped = False

    def poll(self) -> int | None:
        self.left -= 1
        if self.is_stopped:
            return 75
        if self.left > 0:
            return None
        if self.top1 is not None:
            result = {
                "validation": {"top1": self.top1},
                "final": {"validation": {"loss": 1 - self.top1}},
                "seconds": 2.0,
            }
            self.run.mkdir(exist_ok=True)
            (self.run / "config.json").write_text("{}")
            (self.run / "result.json").write_text(json.dumps({**result, "test": {"top1": self.top1 / 2}}))
        return self.code

    def stop(self) -> None:
        self.is_stopped = True

    def kill(self) -> None:
        self.is_stopped, self.code = True, -9

    def last_line(self) -> str:
        return self.line


def grid(*values: Any, seeds: tuple[int, ...] = (0,)) -> Sweep:
    return Sweep(BASE, (Axis("optim.peak_lr", values),), seeds)


def opened(path: Path, sweep: Sweep) -> SweepFolder:
    folder = SweepFolder(path)
    folder.write_sweep(sweep)
    return folder


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jaxcnn.tuning.sweep._POLL_SECONDS", 0.0)


# What a command line means.


@pytest.mark.parametrize(
    ("arguments", "field", "expected"),
    [
        (["--optim.peak-lr", "0.01,0.1"], "optim.peak_lr", (0.01, 0.1)),
        (["--optim.peak_lr=1,2"], "optim.peak_lr", (1.0, 2.0)),
        (["--train.batch-size", "8,16"], "train.batch_size", (8, 16)),
        (["--optim.name", "sgd,adamw"], "optim.name", ("sgd", "adamw")),
        (["--optim.nesterov", "true,false"], "optim.nesterov", (True, False)),
        (["--optim.clip-norm", "none,1"], "optim.clip_norm", (None, 1.0)),
        (["--model.norm", "none,None,batch"], "model.norm", ("none", None, "batch")),
        (["--data.name", "a,b"], "data.name", ("a", "b")),
        (["--data.train-split", r"a\,b,c"], "data.train_split", ("a,b", "c")),
        (["--freeze", "a/**;b/** c/*"], "freeze", (("a/**",), ("b/**", "c/*"))),
        (["--freeze", ";a"], "freeze", ((), ("a",))),
        (["--augment.resized-crop.area", "0.1 1;0.3", "1"], "augment.resized_crop.area", ((0.1, 1.0), (0.3, 1.0))),
        (["--unfreeze", "2 a 3 b;1 c"], "unfreeze", (((2.0, "a"), (3.0, "b")), ((1.0, "c"),))),
        (["--data.classes", "'New York' x;none"], "data.classes", (("New York", "x"), None)),
        (["--optim.peak-lr", "0.1,0.10,0.2"], "optim.peak_lr", (0.1, 0.2)),
    ],
)
def test_a_list_is_told_from_a_value_by_the_type_of_its_field(
    arguments: list[str], field: str, expected: tuple
) -> None:
    overrides, axes = read_flags(arguments, search=False)
    assert (overrides, axes) == ({}, [Axis(field, expected)])


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--optim.peak-lr", "0.1"], {"optim.peak_lr": 0.1}),
        (["--optim.no-nesterov"], {"optim.nesterov": False}),
        (["--model.plain", "--seed", "3"], {"model.plain": True, "seed": 3}),
        (["--freeze", "a,b", "c"], {"freeze": ("a,b", "c")}),
        (["--data.train-split", "train[:90%]"], {"data.train_split": "train[:90%]"}),
        (["--data.data-dir", r"a\,b"], {"data.data_dir": "a,b"}),
        (["--optim.lr-multipliers", "a/**", "0.1", "b", "2"], {"optim.lr_multipliers": (("a/**", 0.1), ("b", 2.0))}),
    ],
)
def test_a_single_value_is_the_same_for_all_trials(arguments: list[str], expected: dict[str, Any]) -> None:
    assert read_flags(arguments, search=False) == (expected, [])


def test_intervals_are_of_numbers_and_need_a_search() -> None:
    arguments = ["--optim.peak-lr", "0.001:1.0:log", "--train.batch-size", "8:64", "--data.train-split", "train[:9]"]
    overrides, axes = read_flags(arguments, search=True)
    assert axes == [
        Axis("optim.peak_lr", range=Range(0.001, 1.0, True)),
        Axis("train.batch_size", range=Range(8, 64, False)),
    ]
    assert overrides == {"data.train_split": "train[:9]"}
    with pytest.raises(InputError, match=r"^--optim\.peak-lr 0\.001:1\.0:log is an interval: it needs --search N"):
        read_flags(arguments, search=False)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--optim.peek-lr", "1,2"], r"^no flag --optim\.peek-lr; did you mean '--optim\.peak-lr'"),
        (["--optim.peak-lr", "0.1,x"], r"^--optim\.peak-lr x: expected a number$"),
        (["--train.batch-size", "8,1.5"], r"^--train\.batch-size 1\.5: expected a whole number$"),
        (
            ["--optim.name", "sgd,adam"],
            r"^--optim\.name adam: expected one of sgd, adamw, lars, lamb; did you mean 'adamw'",
        ),
        (["--optim.peak-lr", "0.1,"], r"^--optim\.peak-lr 0\.1,: a value of the list is empty"),
        (["--optim.peak-lr", "0.1,", "0.2"], r"^--optim\.peak-lr: one value or a list without spaces"),
        (["--optim.peak-lr"], r"^--optim\.peak-lr: a value is missing$"),
        (["--optim.peak-lr", "1", "--optim.peak-lr", "2"], r"^--optim\.peak-lr is given twice"),
        (["--optim.peak-lr", "1:0.1"], r"^--optim\.peak-lr 1:0\.1: an interval is LOW:HIGH or LOW:HIGH:log"),
        (["--optim.peak-lr", "0:1:log"], r"a logarithmic interval begins above 0$"),
        (["--train.batch-size", "8.5:64"], r"^--train\.batch-size 8\.5:64: an interval is whole numbers"),
        (["--augment.resized-crop.area", "0.1;0.2 1"], r"^--augment\.resized-crop\.area 0\.1: expected 2 values"),
        (["0.1"], r"^'0\.1': expected a flag"),
        (["--data.classes", "'a;b"], r"^--data\.classes 'a;b: No closing quotation"),
    ],
)
def test_what_is_wrong_in_a_command_line_is_told_with_its_flag(arguments: list[str], told: str) -> None:
    with pytest.raises(InputError, match=told) as error:
        read_flags(arguments, search=True)
    assert "\n" not in str(error.value)


def test_flags_of_a_value_give_it_back_by_the_parser_of_train() -> None:
    import tyro

    values: dict[str, Any] = {
        "optim.peak_lr": 1e-5, "optim.nesterov": False, "model.plain": True, "optim.clip_norm": None, "seed": 7,
        "model.squeeze_excite": True, "model.norm": "none", "freeze": (), "data.classes": ("New York", "b"),
        "augment.resized_crop.area": (0.25, 1.0), "unfreeze": ((2.0, "a/**"), (5.0, "**")), "data.name": "-x",
        "optim.lr_multipliers": (("head/**", 10.0),), "evaluation.crops": 5,
    }  # fmt: skip
    flags = [token for field, value in values.items() for token in tokens_of(field, value)]
    parsed = tyro.cli(TrainConfig, default=replace(BASE, freeze=("x",)), args=flags)
    for field, value in values.items():
        found: Any = parsed
        for name in field.split("."):
            found = getattr(found, name)
        assert found == value, field


def test_every_field_of_a_config_is_known_and_its_default_can_be_given() -> None:
    """Compared with the leaves of the default config itself."""

    def leaves(config: Any, prefix: str = "") -> dict[str, Any]:
        found = {}
        for field in dataclasses.fields(config):
            value = getattr(config, field.name)
            name = prefix + field.name
            found |= leaves(value, name + ".") if dataclasses.is_dataclass(value) else {name: value}
        return found

    defaults = leaves(BASE)
    assert set(fields_of(TrainConfig)) == set(defaults)
    for name, value in defaults.items():
        overrides, axes = read_flags(tokens_of(name, value), search=False)
        assert (overrides, axes) == ({name: value}, []), name


def test_a_value_out_of_range_is_told_before_any_trial() -> None:
    with pytest.raises(InputError, match=r"^command line: optim\.peak_lr=-1\.0: input should be greater than 0"):
        check_trials(grid(0.1, -1.0))
    with pytest.raises(InputError, match=r"^command line: optim\.momentum=1\.5"):
        check_trials(Sweep(BASE, (Axis("optim.momentum", range=Range(0.5, 1.5, False)),), (0,), 3))
    with pytest.raises(InputError, match="nothing to sweep"):
        check_trials(Sweep(BASE, (), (0,)))
    check_trials(Sweep(BASE, (), (0, 1)))


# Trials and their folders.


def test_a_grid_is_the_product_of_its_lists_and_seeds() -> None:
    axes = (Axis("optim.peak_lr", (0.1, 0.2)), Axis("optim.name", ("sgd", "adamw")))
    trials = trials_of(Sweep(BASE, axes, (0, 5)))
    assert len(trials) == len({trial.name for trial in trials}) == 8
    assert trials[0].name == "peak-lr=0.1,optim.name=sgd,seed=0"  # `name` alone is that of several fields
    config = trials[-1].config(BASE)
    assert (config.optim.peak_lr, config.optim.name, config.seed) == (0.2, "adamw", 5)
    assert replace(config, seed=0, optim=BASE.optim) == BASE


def test_names_of_trials_are_file_names_and_differ_where_values_do() -> None:
    values = ("a/b", "a_b", "a:b", "x" * 200, "x" * 201, None, "ünï")
    names = [trial_of((Axis("data.name", values),), (value,), 0).name for value in values]
    assert len(set(names)) == len(values)
    assert all("/" not in name and len(name) < 80 and name.isascii() for name in names)


def test_a_sweep_reads_back_equal_and_its_config_file_gives_the_base(tmp_path: Path) -> None:
    base = with_value(with_value(BASE, "freeze", ("a/**",)), "data.classes", ("1", "2"))
    axes = (Axis("freeze", ((), ("a", "b"))), Axis("optim.peak_lr", range=Range(0.1, 1.0, True)))
    sweep = Sweep(base, axes, (0, 1), 3)
    folder = opened(tmp_path / "s", sweep)
    assert folder.sweep() == sweep
    assert load_config(folder.path / "config.py") == base


def test_a_folder_with_something_else_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    with pytest.raises(InputError, match="something else in it"):
        SweepFolder(tmp_path)


def test_two_sweeps_in_one_folder_are_told_in_a_line(tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path / "s")
    with folder.alone(), pytest.raises(InputError, match="another sweep works here"), SweepFolder(folder.path).alone():
        pass


def test_a_sweep_is_extended_but_never_changed() -> None:
    held = grid(0.1, 0.2, seeds=(0,))
    more = merged(held, grid(0.2, 0.3, seeds=(0, 1)))
    assert (more.axes[0].values, more.seeds) == ((0.1, 0.2, 0.3), (0, 1))
    with pytest.raises(InputError, match=r"started with train\.epochs=46\.0, not 2\.0"):
        merged(held, replace(held, base=with_value(BASE, "train.epochs", 2.0)))
    with pytest.raises(InputError, match=r"over --optim\.peak-lr, not --optim\.momentum"):
        merged(held, replace(held, axes=(Axis("optim.momentum", (0.1, 0.2)),)))
    with pytest.raises(InputError, match="holds a grid, not a search"):
        merged(held, replace(held, search=3))


# Running them.


def test_a_trial_that_fails_is_recorded_with_its_last_line_and_the_others_run(tmp_path: Path) -> None:
    sweep = grid(0.1, 0.2, 0.3)
    folder = opened(tmp_path / "s", sweep)
    top1 = dict(zip(trials_of(sweep), (0.5, None, 0.7), strict=True))

    def start(trial: Trial, slot: int) -> Fake:
        return Fake(folder, trial, top1[trial], *((1, "error: the loss is nan") if top1[trial] is None else ()))

    run_trials(Grid(folder, sweep), folder, start, 1, Stop())
    ends = [folder.outcome(trial) for trial in trials_of(sweep)]
    assert [end.status for end in ends if end] == ["done", "failed", "done"]
    assert ends[1] == Outcome("failed", 2.0, "error: the loss is nan")
    assert Grid(folder, sweep).take() is None  # nothing is run again
    assert Grid(folder, sweep, retry_failed=True).take() == trials_of(sweep)[1]


def test_a_stop_lets_trials_save_and_the_next_sweep_goes_on_with_them(tmp_path: Path) -> None:
    sweep = grid(0.1, 0.2, 0.3)
    folder = opened(tmp_path / "s", sweep)
    first, second, third = trials_of(sweep)
    stop = Stop()

    def start(trial: Trial, slot: int) -> Fake:
        stop.requested = trial == second
        return Fake(folder, trial, 0.5, left=1 if trial == first else 10)

    run_trials(Grid(folder, sweep), folder, start, 1, stop)
    assert [getattr(folder.outcome(trial), "status", None) for trial in (first, second, third)] == [
        "done", "interrupted", None,
    ]  # fmt: skip
    again = Grid(folder, sweep)
    assert [again.take(), again.take(), again.take()] == [second, third, None]


def test_a_killed_sweep_runs_no_finished_trial_again(tmp_path: Path) -> None:
    """Its trial wrote result.json, and nobody was there to record it."""
    sweep = grid(0.1, 0.2)
    folder = opened(tmp_path / "s", sweep)
    first, second = trials_of(sweep)
    Fake(folder, first, 0.5).poll()
    assert Grid(folder, sweep).take() == second


def test_a_trial_that_its_killed_sweep_left_behind_is_waited_for(tmp_path: Path) -> None:
    """It saves before it ends; a second process in its folder would fail."""
    sweep = grid(0.1, 0.2)
    folder = opened(tmp_path / "s", sweep)
    run = folder.run(trials_of(sweep)[0])
    run.mkdir()
    started: list[bool] = []
    with open(run / ".lock", "w") as left:
        fcntl.flock(left, fcntl.LOCK_EX)

        def start(trial: Trial, slot: int) -> Fake:
            started.append(left.closed)
            return Fake(folder, trial, 0.5)

        threading.Timer(0.5, left.close).start()
        run_trials(Grid(folder, sweep), folder, start, 1, Stop())
    assert started == [True, True]


def test_a_stop_while_waiting_starts_nothing_and_records_no_failure(tmp_path: Path) -> None:
    sweep = grid(0.1, 0.2)
    folder = opened(tmp_path / "s", sweep)
    run = folder.run(trials_of(sweep)[0])
    run.mkdir()
    stop = Stop()

    def start(trial: Trial, slot: int) -> Fake:
        raise AssertionError("started")

    with open(run / ".lock", "w") as left:
        fcntl.flock(left, fcntl.LOCK_EX)
        threading.Timer(0.3, lambda: setattr(stop, "requested", True)).start()
        run_trials(Grid(folder, sweep), folder, start, 1, stop)
    assert [folder.outcome(trial) for trial in trials_of(sweep)] == [None, None]


def test_no_more_trials_run_side_by_side_than_workers_and_each_in_its_slot(tmp_path: Path) -> None:
    sweep = grid(*[0.1 * n for n in range(1, 8)])
    folder = opened(tmp_path / "s", sweep)
    running: dict[int, Fake] = {}
    most = 0

    def start(trial: Trial, slot: int) -> Fake:
        nonlocal most
        assert slot not in running or running[slot].left <= 0
        running[slot] = Fake(folder, trial, 0.5, left=2 + slot)
        most = max(most, sum(fake.left > 0 for fake in running.values()))
        return running[slot]

    run_trials(Grid(folder, sweep), folder, start, 3, Stop())
    assert most == 3
    assert all(folder.outcome(trial) for trial in trials_of(sweep))


def test_trials_side_by_side_share_cores_and_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [cores_of(slot, 3, range(8)) for slot in range(3)] == [[0, 1], [2, 3], [4, 5]]
    assert cores_of(2, 3, [0, 1]) == [0, 1]
    assert cores_of(0, 1, range(4)) == [0, 1, 2, 3]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    monkeypatch.delenv("XLA_PYTHON_CLIENT_PREALLOCATE", raising=False)
    assert [environment(slot, 2)["CUDA_VISIBLE_DEVICES"] for slot in range(2)] == ["2", "5"]
    assert "XLA_PYTHON_CLIENT_PREALLOCATE" not in environment(0, 2)
    assert environment(0, 3)["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"
    assert environment(0, 1)["CUDA_VISIBLE_DEVICES"] == "2,5"


# What is reported.


def ends_of(sweep: Sweep, figures: dict[float, list[float | None]]) -> list[tuple[Trial, Outcome | None]]:
    """Outcomes by value and seed: top-1, or none of a trial that failed."""
    return [
        (trial, Outcome("failed", 1.0, "x") if top1 is None else Outcome("done", 2.0, "", top1, 1 - top1, top1 / 2))
        for trial in trials_of(sweep)
        for top1 in [figures[trial.values[0][1]][trial.seed]]
    ]


def test_mean_and_standard_deviation_are_those_of_numpy(tmp_path: Path) -> None:
    sweep = grid(0.01, 0.1, 1.0, seeds=(0, 1, 2))
    figures: dict[float, list[float | None]] = {0.01: [0.5, 0.6, 0.55], 0.1: [0.9, 0.91, 0.86], 1.0: [0.2, None, 0.3]}
    folder = opened(tmp_path / "s", sweep)
    rows = rows_of(ends_of(sweep, figures), test=False)
    files = write_report(rows, sweep, folder)
    with open(files["csv"], newline="") as file:
        table = {row["peak-lr"]: row for row in csv.DictReader(file)}
    assert list(table) == ["0.1", "0.01", "1.0"]  # the best first
    for value, seeds in figures.items():
        done = [100 * top1 for top1 in seeds if top1 is not None]
        row = table[str(value)]
        assert row["validation_top1_mean"] == f"{np.mean(done):.2f}"
        assert row["validation_top1_std"] == f"{np.std(done, ddof=1):.2f}"
        assert (int(row["seeds_done"]), int(row["seeds_failed"])) == (len(done), 3 - len(done))
        assert row["validation_loss_mean"] == f"{1 - np.mean(done) / 100:.4f}"
    assert table["1.0"]["seconds"] == "5"
    assert "test_top1_mean" not in table["0.1"]
    assert Path(files["figure"]).read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in folder.path.iterdir() if "part" in path.name} == set()


def test_test_figures_are_reported_where_asked_for_and_choose_nothing() -> None:
    sweep = grid(0.1, 0.2)
    ends = [
        (trial, Outcome("done", 1.0, "", top1, 0.0, test))
        for trial, top1, test in zip(trials_of(sweep), (0.8, 0.7), (0.1, 0.9), strict=True)
    ]
    rows = rows_of(ends, test=True)
    best = best_of(rows)
    assert best is not None
    assert (best.values, best.test_top1) == ((0.1,), (0.1,))


def test_a_setting_of_which_a_seed_failed_is_not_the_best_by_those_it_survived() -> None:
    sweep = grid(0.1, 1.0, seeds=(0, 1))
    best = best_of(rows_of(ends_of(sweep, {0.1: [0.8, 0.8], 1.0: [0.9, None]}), test=False))
    assert best is not None
    assert best.values == (0.1,)


def test_settings_within_two_standard_errors_of_the_best_are_named() -> None:
    sweep = grid(0.1, 0.2, 0.3, seeds=(0, 1))
    # Differences 0.005 and 0.05; both standard errors sqrt(0.01^2 / 2 + 0.01^2 / 2) = 0.01 with deviations of 0.01.
    half = 0.01 / math.sqrt(2)
    figures: dict[float, list[float | None]] = {
        value: [mean - half, mean + half] for value, mean in ((0.1, 0.9), (0.2, 0.895), (0.3, 0.85))
    }
    rows = rows_of(ends_of(sweep, figures), test=False)
    assert [row.values for row in near_best(rows)] == [(0.2,)]


def test_the_best_at_the_end_of_its_list_is_said_to_be(tmp_path: Path) -> None:
    sweep = grid(0.1, 0.2, 0.3)
    folder = opened(tmp_path / "s", sweep)
    for figures, told in (([0.5, 0.6, 0.7], "try larger"), ([0.7, 0.6, 0.5], "try smaller"), ([0.5, 0.7, 0.6], None)):
        rows = rows_of(ends_of(sweep, {v: [f] for v, f in zip((0.1, 0.2, 0.3), figures, strict=True)}), test=False)
        text = as_markdown(rows, sweep, folder)
        assert (told in text) if told else ("at the end of its list" not in text)


def test_the_command_of_the_best_setting_gives_its_config(tmp_path: Path) -> None:
    import shlex

    import tyro

    base = with_value(BASE, "train.epochs", 2.0)
    sweep = Sweep(base, (Axis("optim.peak_lr", (0.1, 0.2)), Axis("freeze", ((), ("backbone/**",)))), (3, 4))
    folder = opened(tmp_path / "a b", sweep)
    ends = [(trial, Outcome("done", 1.0, "", 0.1 * n, 0.0)) for n, trial in enumerate(trials_of(sweep))]
    best = best_of(rows_of(ends, test=False))
    assert best is not None
    *start, name, file = shlex.split(command_of(best, sweep, folder))[:4]
    assert [*start, name] == ["jaxcnn", "train", "--config"]
    parsed = tyro.cli(TrainConfig, default=load_config(file), args=shlex.split(command_of(best, sweep, folder))[4:])
    assert check(parsed, "here") == trials_of(sweep)[-2].config(base)  # the last setting with its first seed
    assert json.dumps(as_json(rows_of(ends, test=False), sweep, folder))


def test_figures_of_each_form_are_drawn(tmp_path: Path) -> None:
    lists = [
        Axis("optim.peak_lr", (0.01, 1.0)),
        Axis("optim.name", ("sgd", "adamw")),
        Axis("optim.clip_norm", (None, 1.0)),
    ]
    for count in range(4):
        sweep = Sweep(BASE, tuple(lists[:count]), (0, 1))
        ends = [(trial, Outcome("done", 1.0, "", 0.1 * (n + 1), 0.5)) for n, trial in enumerate(trials_of(sweep))]
        folder = opened(tmp_path / str(count), sweep)
        files = write_report(rows_of(ends, test=False), sweep, folder)
        assert Path(files["figure"]).stat().st_size > 5000


def test_an_axis_is_logarithmic_where_numbers_span_more_than_a_decade() -> None:
    assert is_log((0.01, 0.1, 1.0))
    assert not is_log((0.1, 1.0))
    assert not is_log((0.0, 1.0))
    assert not is_log((True, False))
    assert not is_log(("a", "b"))
