"""A run folder: the one owner of its files.

    config.json         the TrainConfig, read back strictly
    class_names.json    names in the order of the labels
    preprocessing.json  input shape, mean, std, channel order
    environment.json    versions and device at the start
    metrics.jsonl       one line an evaluation
    health.jsonl        figures of each layer every n steps, and spikes of the loss
    nonfinite/          a step that was not finite: state, batch, and where it began
    result.json         final figures
    certificate.json    SHA-256 of what is frozen, before and after each phase
    receipt.json        what a step costs, and would cost with nothing frozen
    weights.json        where imported weights came from
    curves.png          train and validation curves
    confusion/          of the latest evaluation of each split, in the end of the best weights: SPLIT.json, SPLIT.png
    report.html         all of it as one page (jaxcnn report)
    tensorboard/        event files
    checkpoints/        by step
    damaged-STEP/       a checkpoint that could not be read, set aside
    replaced-STEP/      one that is being replaced, until the new one is on disk

All that comes after a run takes the folder and nothing else. Of several processes that train a run the first writes;
the methods that write do nothing in the others.
"""

import contextlib
import fcntl
import json
import os
import shlex
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxcnn import processes
from jaxcnn.config import Preprocessing, TrainConfig
from jaxcnn.config_reader import read_json, to_json
from jaxcnn.errors import InputError
from jaxcnn.whole import part as part_of
from jaxcnn.whole import write_whole


class RunFolder:
    """An existing run folder."""

    def __init__(self, path: str | Path):
        """Opens a run; raises InputError if the folder is not one."""
        self.path = Path(path)
        if not self.path.is_dir():
            raise InputError(f"no run folder {self.path}")
        if not (self.path / "config.json").is_file():
            raise InputError(f"{self.path} is not a run folder: it has no config.json")

    @classmethod
    def create(
        cls, path: str | Path, config: TrainConfig, class_names: tuple[str, ...], preprocessing: Preprocessing
    ) -> "RunFolder":
        """Returns a new run folder with everything but figures in it; it appears whole or not at all.

        Raises:
          InputError: the folder exists and is not empty, or cannot be made.
        """
        path = Path(path)
        processes.first_does(lambda: cls._make(path, config, class_names, preprocessing), "make the run folder")
        if not is_run(path):
            raise InputError(f"--workdir {path}: this process does not see what the first has made: share the folder")
        return cls(path)

    @staticmethod
    def _make(path: Path, config: TrainConfig, class_names: tuple[str, ...], preprocessing: Preprocessing) -> None:
        check_free(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with part_of(Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))) as part:
                (part / "config.json").write_text(to_json(config))
                (part / "class_names.json").write_text(json.dumps(class_names, ensure_ascii=False) + "\n")
                (part / "preprocessing.json").write_text(to_json(preprocessing))
                part.chmod(0o777 & ~_umask())
                part.rename(path)
        except OSError as error:
            raise InputError(f"--workdir {path}: {error.strerror}") from None

    @property
    def config(self) -> TrainConfig:
        return read_json(TrainConfig, self.path / "config.json")

    @property
    def preprocessing(self) -> Preprocessing:
        return read_json(Preprocessing, self.path / "preprocessing.json")

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(read_json(list[str], self.path / "class_names.json"))

    @property
    def is_imported(self) -> bool:
        """Whether the run holds weights from elsewhere: there is no training to go on with."""
        return (self.path / "weights.json").is_file()

    @property
    def has_data(self) -> bool:
        """Whether the data set of the config is the run's own; weights from elsewhere may have come without one."""
        return not self.is_imported or read_json(dict[str, Any], self.path / "weights.json").get("data") is not None

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def curves(self) -> Path:
        return self.path / "curves.png"

    def confusion(self, split: str) -> Path:
        """Returns the file of a split's confusion matrix."""
        return self.path / "confusion" / f"{split}.json"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    @contextlib.contextmanager
    def locked(self, wait_seconds: float = 0.0) -> Iterator[None]:
        """Holds the run for this process; raises InputError if another has it and keeps it so long, or it is read-only.

        Of several processes that train it together the first holds it for all.
        """
        if not processes.is_first():
            yield
            return
        until = time.monotonic() + wait_seconds
        with contextlib.ExitStack() as opened:
            try:
                file = opened.enter_context(open(self.path / ".lock", "w"))
            except OSError as error:
                raise InputError(f"{self.path} cannot be written to: {error.strerror}") from None
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > until:
                        raise InputError(f"{self.path} is being trained by another process") from None
                    time.sleep(0.5)
                except OSError:
                    break  # a file system without locks
            yield

    def append_metrics(self, line: dict[str, Any]) -> None:
        """Adds a line to metrics.jsonl, on disk when this returns: a checkpoint of the same step comes after it."""
        if not processes.is_first():
            return
        with open(self.path / "metrics.jsonl", "a") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def metrics(self) -> list[dict[str, Any]]:
        """Returns the lines of metrics.jsonl; a half-written last one is left out."""
        return self._lines("metrics.jsonl")

    def append_health(self, line: dict[str, Any]) -> None:
        """Adds a line to health.jsonl."""
        if not processes.is_first():
            return
        with open(self.path / "health.jsonl", "a") as file:
            file.write(json.dumps(line) + "\n")

    def health(self) -> list[dict[str, Any]]:
        """Returns the lines of health.jsonl: looks at the layers, and events, which have a key `event`."""
        return self._lines("health.jsonl")

    def _lines(self, name: str) -> list[dict[str, Any]]:
        file = self.path / name
        lines = []
        for text in file.read_text().splitlines() if file.is_file() else []:
            try:
                lines.append(json.loads(text))
            except json.JSONDecodeError:
                break
        return lines

    def result(self) -> dict[str, Any] | None:
        """Returns result.json, or none if the run has not ended."""
        file = self.path / "result.json"
        return json.loads(file.read_text()) if file.is_file() else None

    def cut_metrics(self, last_step: int, *, evaluated: bool = True) -> None:
        """Drops the lines after `last_step`: they come again when a run goes on from there.

        Args:
          last_step: steps done.
          evaluated: whether the evaluation at that step is done; else its line comes again too.
        """
        kept = [line for line in self.metrics() if line["step"] < last_step + evaluated]
        self.write("metrics.jsonl", "".join(json.dumps(line) + "\n" for line in kept))
        if (self.path / "health.jsonl").is_file():  # its steps are those that come next
            health = self.health()
            self.write("health.jsonl", "".join(json.dumps(line) + "\n" for line in health if line["step"] < last_step))

    def write_json(self, name: str, value: Any) -> None:
        """Writes a JSON file whole or not at all."""
        self.write(name, json.dumps(value, indent=2, ensure_ascii=False) + "\n")

    def write(self, name: str, text: str) -> None:
        """Writes a text file whole or not at all."""
        if not processes.is_first():
            return
        write_whole(self.path / name, text)


def is_run(path: str | Path) -> bool:
    """Returns whether a folder holds a run."""
    return (Path(path) / "config.json").is_file()


def going_on(folder: RunFolder) -> str:
    """Returns the command that goes on with a run."""
    return f"python train.py --workdir {shlex.quote(str(folder.path))} --resume"


def check_free(path: str | Path, flag: str = "--workdir") -> None:
    """Raises InputError unless a new run can be made at `path`, given by `flag`: a run is never overwritten."""
    path = Path(path)
    if is_run(path):
        resume = f"go on with it by --workdir {path} --resume, or " if flag == "--workdir" else ""
        raise InputError(f"{flag} {path} already holds a run: {resume}choose another")
    if path.is_file() or (path.is_dir() and any(path.iterdir())):
        raise InputError(f"{flag} {path} exists and is not an empty folder: choose another")
    place = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
    if not (place.is_dir() and os.access(place, os.W_OK)):
        raise InputError(f"{flag} {path}: {place} cannot be written to")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
