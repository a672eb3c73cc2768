"""The folder of a sweep: what is swept, its trials and how each ended.

sweep.json          what is swept: the config that all trials share, the fields that differ, the seeds
config.py           get_config() of what all share, as it was when the sweep began
NAME/               the run folder of a trial, named by its values: peak-lr=0.03,seed=1
logs/NAME.log       what its process printed
outcomes/NAME.json  how it ended, where its run folder does not say
results.csv .md .json .png    tables and figure
study.db            the Optuna study of a search
"""

import contextlib
import fcntl
import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from jaxcnn.config import TrainConfig
from jaxcnn.config_reader import parse_json
from jaxcnn.errors import InputError
from jaxcnn.run_folder import RunFolder, is_run
from jaxcnn.tuning.axes import Axis, Range, tokens_of, with_value

Status = Literal["done", "failed", "pruned", "interrupted"]

_FIRST = ("config.py", "logs", "outcomes")  # there before sweep.json, if the sweep is killed in that moment
_CONFIG = '''"""What all trials of this sweep share, as it was when the sweep began. Written by `jaxcnn sweep`."""

import json
from pathlib import Path

from jaxcnn.config import TrainConfig
from jaxcnn.config_reader import parse_json


def get_config() -> TrainConfig:
    file = Path(__file__).with_name("sweep.json")
    return parse_json(TrainConfig, json.dumps(json.loads(file.read_text())["base"]), str(file))
'''


@dataclass(frozen=True)
class Sweep:
    """What is swept.

    Attributes:
      base: what all trials share.
      axes: the fields that differ.
      seeds: of the trials of a setting.
      search: how many settings are drawn; none: all of the grid.
    """

    base: TrainConfig
    axes: tuple[Axis, ...]
    seeds: tuple[int, ...]
    search: int | None = None


@dataclass(frozen=True)
class Trial:
    """One process: a setting and a seed.

    Attributes:
      name: of its run folder.
      values: (field, value) of what differs from the base.
      seed: of the run.
    """

    name: str
    values: tuple[tuple[str, Any], ...]
    seed: int

    def config(self, base: TrainConfig) -> TrainConfig:
        """Returns what is trained."""
        for field, value in (*self.values, ("seed", self.seed)):
            base = with_value(base, field, value)
        return base

    def flags(self) -> list[str]:
        """Returns what `jaxcnn train` is told beside the config that all share."""
        return [token for field, value in (*self.values, ("seed", self.seed)) for token in tokens_of(field, value)]


@dataclass(frozen=True)
class Outcome:
    """How a trial ended.

    Attributes:
      status: "done"; "failed": by its own fault, which is not tried again; "pruned": stopped because others were better
        by then; "interrupted": saved, to go on.
      seconds: that it ran.
      line: the last one it printed, of a failed one.
      top1: best validation top-1, 0..1; of a pruned one, until it was stopped.
      loss: validation loss of the last weights, in nats.
      test_top1: top-1 of the best weights on test, if there is such a split.
    """

    status: Status
    seconds: float
    line: str = ""
    top1: float | None = None
    loss: float | None = None
    test_top1: float | None = None


def trial_of(axes: tuple[Axis, ...], values: tuple[Any, ...], seed: int, number: int | None = None) -> Trial:
    """Returns the trial of a value a field and a seed; `number`, of a search, keeps names of near values apart."""
    pairs = [(axis.label, value) for axis, value in zip(axes, values, strict=True)]
    parts = [f"{number:04d}"] if number is not None else []
    parts += [f"{label}={_in_name(value, short=number is not None)}" for label, value in (*pairs, ("seed", seed))]
    return Trial(",".join(parts), tuple((axis.field, value) for axis, value in zip(axes, values, strict=True)), seed)


def text_of(value: Any) -> str:
    """Returns a value as a table shows it."""
    if isinstance(value, tuple):
        return " ".join(text_of(one) for one in value) or "()"
    return {None: "none", True: "true", False: "false"}[value] if value is None or value is True or value is False \
        else str(value)  # fmt: skip


def _in_name(value: Any, *, short: bool) -> str:
    """A value in a folder's name; what cannot be in one is replaced, and told apart by a hash."""
    text = f"{value:.4g}" if short and isinstance(value, float) else text_of(value)
    safe = re.sub(r"[^\w.+-]", "_", text, flags=re.ASCII)[:40]
    return safe if safe == text else f"{safe}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


class SweepFolder:
    """The folder of a sweep, which is made where it is not there."""

    def __init__(self, path: str | Path):
        """Opens or makes the folder; raises InputError if neither can be done, or something else is in it."""
        self.path = Path(path)
        try:
            others = [] if self.exists or not self.path.is_dir() else list(self.path.iterdir())
            if any(not (file.name.startswith(".") or file.name in _FIRST) for file in others):
                raise InputError(f"--out {path} is a folder with something else in it: choose another")
            for name in (".", "logs", "outcomes"):
                (self.path / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"--out {path}: {error.strerror}") from None

    @property
    def exists(self) -> bool:
        """Whether a sweep has begun here."""
        return (self.path / "sweep.json").is_file()

    def sweep(self) -> Sweep:
        """Returns what is swept; raises InputError where sweep.json is damaged."""
        file = self.path / "sweep.json"
        try:
            held = json.loads(file.read_text())
            base = parse_json(TrainConfig, json.dumps(held["base"]), str(file))
            return Sweep(base, tuple(_axis_of(one) for one in held["axes"]), tuple(held["seeds"]), held["search"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise error if isinstance(error, InputError) else InputError(f"{file} cannot be read: {error}") from None

    def write_sweep(self, sweep: Sweep) -> None:
        """Writes sweep.json, and the config that trials are started with."""
        self.write("config.py", _CONFIG)
        self.write("sweep.json", json.dumps(asdict(sweep), indent=2) + "\n")

    def run(self, trial: Trial) -> Path:
        """Returns the run folder of a trial."""
        return self.path / trial.name

    def log(self, trial: Trial) -> Path:
        """Returns the file of what a trial printed."""
        return self.path / "logs" / f"{trial.name}.log"

    def outcome(self, trial: Trial) -> Outcome | None:
        """Returns how a trial ended; none if it has not begun, or its sweep was killed."""
        run = self.run(trial)
        if is_run(run) and (result := RunFolder(run).result()) is not None:
            return _of_result(result)
        file = self.path / "outcomes" / f"{trial.name}.json"
        return Outcome(**json.loads(file.read_text())) if file.is_file() else None

    def record(self, trial: Trial, outcome: Outcome) -> None:
        """Keeps how a trial ended."""
        self.write(f"outcomes/{trial.name}.json", json.dumps(asdict(outcome)) + "\n")

    def forget(self, trial: Trial) -> None:
        """Drops how a trial ended: it begins again, or goes on."""
        (self.path / "outcomes" / f"{trial.name}.json").unlink(missing_ok=True)

    def metrics(self, trial: Trial) -> list[dict[str, Any]]:
        """Returns the evaluations that a trial has done so far."""
        run = self.run(trial)
        return RunFolder(run).metrics() if is_run(run) else []

    def write(self, name: str, text: str) -> None:
        """Writes a text file whole or not at all."""
        file = self.path / name
        part = file.with_name(f".{file.name}.{os.getpid()}.part")
        part.write_text(text)
        part.replace(file)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Holds the folder for this process; raises InputError if another sweep has it."""
        with try_lock(self.path / ".lock", unknown=True) as held:
            if not held:
                raise InputError(f"{self.path}: another sweep works here; wait for it, or choose another --out")
            yield

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Waits until no other process takes its turn: for what several workers must not do at once."""
        with open(self.path / ".turn", "w") as file:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX)
            yield


@contextlib.contextmanager
def try_lock(path: Path, *, unknown: bool) -> Iterator[bool]:
    """Yields whether this process has the lock of a file, `unknown` on a file system without locks."""
    with open(path, "w") as file:
        held = True
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            held = False
        except OSError:
            held = unknown
        yield held


def is_trained(run: Path) -> bool:
    """Returns whether another process trains in a run folder: one whose sweep was killed saves before it ends."""
    if not (run / ".lock").is_file():
        return False
    with try_lock(run / ".lock", unknown=True) as free:
        return not free


def _of_result(result: dict[str, Any]) -> Outcome:
    return Outcome(
        "done",
        result["seconds"],
        top1=result["validation"]["top1"],
        loss=result["final"]["validation"]["loss"],
        test_top1=result.get("test", {}).get("top1"),
    )


def _axis_of(held: dict[str, Any]) -> Axis:
    interval = Range(**held["range"]) if held["range"] is not None else None
    return Axis(held["field"], tuple(_tuples(value) for value in held["values"]), interval)


def _tuples(value: Any) -> Any:
    """JSON has lists where a config has tuples."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
