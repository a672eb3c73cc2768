"""A run that is asked to stop, at any moment: it saves, ends with exit code 75, and goes on as if nothing had been."""

import os
import random
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxcnn.build import build_job
from jaxcnn.cli import main
from jaxcnn.config import (
    DataConfig,
    EvaluationConfig,
    LoopConfig,
    ModelConfig,
    OptimConfig,
    ScheduleConfig,
    TrainConfig,
)
from jaxcnn.data.loader import Arrays
from jaxcnn.errors import InputError, Interrupted
from jaxcnn.feature_cache.files import FeatureFile
from jaxcnn.interruption import StopRequest
from jaxcnn.job import Job
from jaxcnn.loop import train
from jaxcnn.run_folder import RunFolder
from jaxcnn.whole import part, remove_parts
from tests.conftest import with_fields
from tests.runs import fingerprint, same, start, write_config


class Ended(BaseException):
    """What the end of the process is in these tests."""


@dataclass
class Listening:
    """A StopRequest that listens to real signals, and the exit code with which it ended the process, if it did."""

    stop: StopRequest
    codes: list[int] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    def end(self, code: int) -> None:
        self.codes.append(code)
        self.ended.set()

    def stuck(self, *signals: signal.Signals) -> None:
        """Sends signals to this process, then is as deaf as a compiler until the process is ended."""
        for number in signals:
            os.kill(os.getpid(), number)
        assert self.ended.wait(30)
        raise Ended


@pytest.fixture
def listening(monkeypatch) -> Iterator[Listening]:
    monkeypatch.setattr("jaxcnn.interruption._PATIENCE_SECONDS", 0.05)
    found = Listening(StopRequest())
    found.stop._end_process = found.end
    with found.stop:
        yield found


def folder_of(path: Path, job: Job) -> RunFolder:
    return RunFolder.create(path, job.config, job.network.class_names, job.network.preprocessing)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("preemption") / "whole"


@pytest.fixture(scope="module")
def whole(digits_dir, finished) -> tuple[Job, dict[str, Any]]:
    """A job, and what an uninterrupted run of it leaves."""
    data = DataConfig(
        data_dir=digits_dir, train_split="train[:100]", validation_split="validation[:70]", test_split="test[:50]"
    )
    config = TrainConfig(
        data=data,
        model=ModelConfig(name="resnet8", width=4),
        optim=OptimConfig(peak_lr=0.05, ema_decay=None),
        schedule=ScheduleConfig(warmup_epochs=1.0),
        train=LoopConfig(epochs=2.0, batch_size=32, max_steps_per_dispatch=4),
        evaluation=EvaluationConfig(batch_size=32, train_examples=0),
    )
    job = build_job(config)
    folder = folder_of(finished, job)
    train(job, folder, StopRequest())
    return job, fingerprint(folder.path)


@dataclass(frozen=True)
class Meanwhile:
    """A split on which something happens before its n-th batch."""

    split: Arrays
    turn: int
    happens: Callable[[], None]

    def __len__(self) -> int:
        return len(self.split)

    def batches(self, batch_size: int) -> Iterator[Any]:
        for index, batch in enumerate(self.split.batches(batch_size)):
            if index == self.turn:
                self.happens()
            yield batch


def with_split(job: Job, name: str, turn: int, happens: Callable[[], None]) -> Job:
    split: Any = job.splits[name]
    return replace(job, splits={**job.splits, name: Meanwhile(split, turn, happens)})


def steps_in(line: str) -> int:
    found = re.search(r"saved at step (\d+)", line)
    assert found, line
    return int(found[1])


def test_a_stop_between_the_batches_of_an_evaluation_saves_the_state_before_it(whole, tmp_path) -> None:
    job, expected = whole
    run, stop = folder_of(tmp_path / "run", job), StopRequest()
    asked = with_split(job, "validation", 1, lambda: setattr(stop, "requested", True))
    with pytest.raises(Interrupted) as first:
        train(asked, run, stop)
    assert steps_in(str(first.value)) == job.step_of(1.0)
    assert run.metrics() == []  # the evaluation has not been
    train(job, RunFolder(run.path), StopRequest())
    same(expected, fingerprint(run.path))
    rates = [line["images_per_second"] for line in run.metrics()]
    assert all(rate > 0 for rate in rates)  # also of the steps before the evaluation that was broken off


def test_a_signal_while_an_evaluation_hangs_in_the_device_saves_too(whole, tmp_path, listening, capsys) -> None:
    job, expected = whole
    run = folder_of(tmp_path / "run", job)
    with pytest.raises(Ended):
        train(with_split(job, "validation", 1, lambda: listening.stuck(signal.SIGUSR1)), run, listening.stop)
    assert listening.codes == [75]
    assert steps_in(capsys.readouterr().err) == job.step_of(1.0)
    train(job, RunFolder(run.path), StopRequest())
    same(expected, fingerprint(run.path))


def stuck_in_compilation(monkeypatch, listening: Listening, turn: int) -> None:
    """Makes the n-th compilation of steps one that a signal comes into."""
    compile_chunk, turns = Job.compile_chunk, iter(range(1, 99))

    def compiling(job: Job, *arguments: Any) -> Any:
        if next(turns) == turn:
            listening.stuck(signal.SIGTERM)
        return compile_chunk(job, *arguments)

    monkeypatch.setattr(Job, "compile_chunk", compiling)


def test_a_signal_in_the_compiler_does_not_wait_for_it(whole, tmp_path, listening, capsys, monkeypatch) -> None:
    job, expected = whole
    run = folder_of(tmp_path / "run", job)
    with monkeypatch.context() as patch:
        stuck_in_compilation(patch, listening, 1)
        with pytest.raises(Ended):
            train(job, run, listening.stop)
    assert listening.codes == [75]
    assert "there is nothing to save; go on with: python train.py --workdir" in capsys.readouterr().err
    train(job, RunFolder(run.path), StopRequest())
    same(expected, fingerprint(run.path))


@pytest.mark.slow
def test_a_signal_in_the_compiler_between_two_phases_saves_an_epoch_that_was_not(
    tiny_config, tmp_path, listening, capsys, monkeypatch
) -> None:
    config = with_fields(
        tiny_config, train__epochs=2.0, train__save_every_epochs=9, freeze=("backbone/stem/**",),
        unfreeze=((1.0, "backbone/**"),),
    )  # fmt: skip
    job = build_job(config)
    whole, run = folder_of(tmp_path / "whole", job), folder_of(tmp_path / "run", job)
    train(job, whole, StopRequest())
    with monkeypatch.context() as patch:
        stuck_in_compilation(patch, listening, 2)
        with pytest.raises(Ended):
            train(job, run, listening.stop)
    assert listening.codes == [75]
    assert steps_in(capsys.readouterr().err) == job.step_of(1.0)
    train(job, RunFolder(run.path), StopRequest())
    same(fingerprint(whole.path), fingerprint(run.path))


def test_a_signal_while_the_result_is_measured_loses_nothing(whole, tmp_path, listening, capsys) -> None:
    job, expected = whole
    run = folder_of(tmp_path / "run", job)
    with pytest.raises(Ended):
        train(with_split(job, "test", 0, lambda: listening.stuck(signal.SIGTERM)), run, listening.stop)
    assert listening.codes == [75]
    assert "before the result was measured" in capsys.readouterr().err
    assert run.result() is None
    train(job, RunFolder(run.path), StopRequest())
    same(expected, fingerprint(run.path))


def test_a_signal_while_workers_are_slow_saves_the_steps_before(
    whole, tmp_path, listening, capsys, monkeypatch
) -> None:
    job, expected = whole
    run = folder_of(tmp_path / "run", job)
    inputs = type(job.feed).inputs

    def slow(self: Any, first_step: int, num_steps: int) -> Any:
        if first_step == 3:  # the steps before are under way
            listening.stuck(signal.SIGTERM)
        return inputs(self, first_step, num_steps)

    with monkeypatch.context() as patch:
        patch.setattr("jaxcnn.pace.Pace.steps", property(lambda self: 1, lambda self, steps: None), raising=False)
        patch.setattr(type(job.feed), "inputs", slow)
        with pytest.raises(Ended):
            train(job, run, listening.stop)
    assert listening.codes == [75]
    assert steps_in(capsys.readouterr().err) == 3
    train(job, RunFolder(run.path), StopRequest())
    same(expected, fingerprint(run.path))


def test_features_that_were_not_all_computed_leave_no_file(tmp_path: Path) -> None:
    def parts() -> Iterator[np.ndarray]:
        yield np.ones((2, 3), np.float32)
        raise Interrupted

    with pytest.raises(Interrupted):
        FeatureFile(tmp_path / "key.npy", (4, 3), np.dtype(np.float32)).write(parts(), {})
    assert list(tmp_path.iterdir()) == []


def test_more_signals_during_the_save_change_nothing(whole, tmp_path, listening, monkeypatch) -> None:
    from jaxcnn.saves import Saves

    job, expected = whole
    run = folder_of(tmp_path / "run", job)
    save = Saves.save

    def slowly(self: Saves, *arguments: Any) -> None:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.1)  # longer than the patience
        save(self, *arguments)

    def asked(brief: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return ending(brief)

    import jaxcnn.loop

    ending = jaxcnn.loop.Ending
    with monkeypatch.context() as patch:
        patch.setattr(Saves, "save", slowly)
        patch.setattr(jaxcnn.loop, "Ending", asked)
        with pytest.raises(Interrupted):
            train(job, run, listening.stop)
    assert listening.codes == []  # the main thread has saved, in peace
    train(job, RunFolder(run.path), StopRequest())
    same(expected, fingerprint(run.path))


def test_the_line_of_a_scheduler_tells_the_result_of_a_finished_run_without_its_data(whole, finished, capsys) -> None:
    line = ["train", "--workdir", str(finished), "--resume", "auto", "--find-lr", "--preflight"]
    assert main([*line, "--data.data-dir", "/nowhere"]) == 0
    assert f"figures: {finished / 'result.json'}" in capsys.readouterr().out


def test_the_line_of_a_scheduler_with_another_config_is_a_mistake_that_it_must_not_try_again(whole, finished, capsys):
    assert main(["train", "--workdir", str(finished), "--resume", "auto", "--train.epochs", "5"]) == 2
    assert "was started with train.epochs=2.0, not 5.0: resume it as it is" in capsys.readouterr().err


def test_a_start_waits_for_the_one_before_it_which_is_still_saving(whole, finished) -> None:
    run = RunFolder(finished)
    with ExitStack() as before:
        before.enter_context(run.locked())
        with pytest.raises(InputError, match="another process"), run.locked():
            pass
        threading.Timer(0.3, before.close).start()
        with run.locked(wait_seconds=10):
            pass


def test_only_a_second_ctrl_c_ends_at_once_and_also_in_the_compiler(listening) -> None:
    with pytest.raises((Ended, KeyboardInterrupt)):
        listening.stuck(signal.SIGTERM, signal.SIGINT, signal.SIGINT)
    assert listening.ended.wait(5)
    assert listening.codes == [130]


def test_a_place_left_at_once_throws_the_main_thread_out_of_it_once(listening) -> None:
    cleaned = []

    def work() -> None:
        with listening.stop.anywhere(lambda: "start it again", at_once=True):
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(5)
            finally:
                os.kill(os.getpid(), signal.SIGTERM)  # does not throw it out of its cleaning up
                cleaned.append(True)

    with pytest.raises(Interrupted, match="start it again"):
        work()
    assert cleaned == [True]
    assert listening.codes == []


def test_what_fails_after_a_signal_is_an_interruption_and_a_mistake_of_the_user_is_none(listening) -> None:
    """The signal of a scheduler reaches all processes of a job, also those that a compiler has started."""

    def fail(error: Exception) -> None:
        with listening.stop.anywhere(lambda: "saved"):
            raise error

    with pytest.raises(RuntimeError, match="assembler"):
        fail(RuntimeError("the assembler was killed"))
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(InputError, match="mistake"):
        fail(InputError("a mistake"))
    with pytest.raises(Interrupted, match="saved"):
        fail(RuntimeError("the assembler was killed"))


def test_in_between_nobody_ends_the_run_but_itself(listening) -> None:
    with listening.stop.anywhere(lambda: "gone", at_once=True):
        with listening.stop.nowhere():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.2)
        assert listening.stop.requested
        assert listening.codes == []
        listening.stop.answered()
        time.sleep(0.2)
    assert listening.codes == []


def test_what_is_half_written_is_gone_when_the_process_is_ended(tmp_path: Path) -> None:
    with part(tmp_path / "file") as file, part(tmp_path / "folder") as folder, part(tmp_path / "done") as done:
        file.write_text("half")
        folder.mkdir()
        (folder / "one").write_text("half")
        done.write_text("whole")
        done.rename(tmp_path / "in_place")
        remove_parts()
        assert [path.name for path in tmp_path.iterdir()] == ["in_place"]


@dataclass
class Session:
    """One start of a run in a process of its own, and the signal that ended it."""

    process: Any
    began: float = field(default_factory=time.monotonic)
    lines: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.reader = threading.Thread(target=lambda: self.lines.extend(iter(self.process.stderr.readline, "")))
        self.reader.start()

    def wait_for(self, what: str, times: int) -> None:
        pattern = re.compile(what)
        while what and sum(map(bool, map(pattern.search, list(self.lines)))) < times and self.process.poll() is None:
            time.sleep(0.005)

    def phase(self) -> str:
        """What it was at, by the last line that it said."""
        last = self.lines[-1] if self.lines else ""
        found = re.search(r"epoch +\S+ +step +(\d+)", last)
        if found:
            return f"after the evaluation at step {found[1]}"
        kinds = {"run:": "start of training", "going on": "start of training, resumed", "phase": "compiling"}
        return next((told for word, told in kinds.items() if word in last), "imports and data" if last else "imports")

    def stop(self) -> tuple[float, str, float, int, str]:
        """Sends SIGTERM; returns (moment, phase, seconds to the exit, exit code, last line)."""
        moment, phase = time.monotonic() - self.began, self.phase()
        asked = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(60)
        seconds = time.monotonic() - asked
        self.reader.join()
        return moment, phase, seconds, code, (self.lines or [""])[-1].strip()


def moments(rng: random.Random) -> list[tuple[str, int, str, float]]:
    """Twenty (what to wait for, how often, with which compilation cache, seconds after it)."""
    spread = [("", 1, "warm", rng.uniform(0.3, 6.0)) for _ in range(5)]
    spread += [("^run:", 1, "cold", rng.uniform(0.0, 4.0)) for _ in range(3)]
    spread += [("^epoch ", rng.randint(1, 2), "warm", rng.uniform(0.0, 3.0)) for _ in range(8)]
    rng.shuffle(spread)
    return spread + [("step  *TOTAL |going on from step TOTAL", 1, "warm", rng.uniform(0.0, 2.5)) for _ in range(4)]


@pytest.mark.slow
def test_twenty_signals_at_random_moments_are_twenty_clean_exits_and_change_nothing(tiny_config, tmp_path, capsys):
    config = with_fields(
        replace(tiny_config, data=replace(tiny_config.data, train_split="train[:2000]", validation_split="validation")),
        train__epochs=24.0, evaluation__batch_size=2, evaluation__train_examples=128, train__save_every_epochs=3,
        train__max_steps_per_dispatch=64, model__dropout=0.2, optim__ema_decay=0.9,
    )  # fmt: skip
    expected, total = uninterrupted(config, tmp_path)
    rows, run = [], tmp_path / "parts"
    file = tmp_path / "whole.py"
    for number, (until, times, cache, seconds) in enumerate(moments(random.Random(9))):
        folder = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / f"xla{number}")} if cache == "cold" else {}
        session = Session(start("--config", file, "--workdir", run, "--resume", "auto", environment=folder))
        session.wait_for(until.replace("TOTAL", str(total)), times)
        time.sleep(seconds)
        rows.append(session.stop())
        assert not list(tmp_path.glob(".parts*")), "a half-made folder is left"
        assert not list(run.glob(".*.part")), "a half-written file is left"
    with capsys.disabled():
        print("\n| s after the start | last said | s to the exit | code | said at the end |")
        for moment, phase, seconds, code, line in rows:
            print(f"| {moment:.2f} | {phase} | {seconds:.2f} | {code} | {line.split('; go on')[0].replace('|', '/')} |")
    assert {code for *_, code, _ in rows} <= {0, 75}
    assert max(seconds for _, _, seconds, _, _ in rows) < 15
    process = start("--config", file, "--workdir", run, "--resume", "auto")
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    same(expected, fingerprint(run))


def uninterrupted(config: TrainConfig, folder: Path) -> tuple[dict[str, Any], int]:
    """What a run that is never stopped leaves, and its number of steps; its config is whole.py."""
    file = write_config(config, folder / "whole.py")
    process = start("--config", file, "--workdir", folder / "whole")
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    found = fingerprint(folder / "whole")
    return found, found["latest"]
