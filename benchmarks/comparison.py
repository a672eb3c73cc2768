"""Candidates on one workload: built, checked against each other, warmed, then one turn each in rotation."""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import fairness
from benchmarks.candidates import CANDIDATES
from benchmarks.processes import Worker, WorkerError
from benchmarks.ratios import orders, pairwise
from benchmarks.workloads import Task


@dataclass(frozen=True)
class Comparison:
    """What is compared with what.

    Attributes:
      title: of the workload, for tables.
      tasks: one for each candidate.
      baseline: name of the candidate to which the ratios are.
    """

    title: str
    tasks: tuple[Task, ...]
    baseline: str


def measure(comparison: Comparison, rounds: int, warmup: int) -> list[dict[str, Any]]:
    """Returns a row of figures for each candidate; one that does not work here has its reason under `skipped`.

    Args:
      comparison: what to measure.
      rounds: turns of each candidate that count.
      warmup: turns before them, in which programs compile and caches fill.

    Raises:
      InputError, RunFailed: something is missing, a process has died, or the candidates are not the same network.
    """
    title = comparison.title
    skipped: dict[str, str] = {}
    workers: dict[str, Worker] = {}
    answers: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        weights = fairness.write_weights(comparison.tasks[0], Path(folder))
        images = fairness.write_images(comparison.tasks[0], Path(folder))
        for task in comparison.tasks:
            _tell(f"{title}: {CANDIDATES[task.candidate].title} is built")
            worker = stack.enter_context(Worker(replace(task, weights=str(weights))))
            with _left_out(task.candidate, skipped):
                answers[task.candidate] = worker.build(images)
                workers[task.candidate] = worker
        differences = fairness.check({CANDIDATES[name].title: answer for name, answer in answers.items()}, title)
        for name, worker in workers.items():
            _tell(f"{title}: {CANDIDATES[name].title} is warmed")
            with _left_out(name, skipped):
                for _ in range(warmup):
                    worker.turn()
        seconds = rotate(title, {name: worker for name, worker in workers.items() if name not in skipped}, rounds)
    _tell("")
    rows = []
    for task in comparison.tasks:
        row = _heading(comparison, task)
        if task.candidate in skipped:
            row["skipped"] = skipped[task.candidate]
        else:
            row["parameters"] = answers[task.candidate]["parameters"]
            row["logits_difference"] = differences[row["title"]]
            row |= _figures(task, seconds, comparison.baseline)
        rows.append(row)
    return rows


@contextmanager
def _left_out(name: str, skipped: dict[str, str]) -> Iterator[None]:
    """Notes why a candidate does not work here, where it may be left out, and goes on without it."""
    try:
        yield
    except WorkerError as error:
        skipped[name] = str(error)


def rotate(title: str, workers: dict[str, Worker], rounds: int) -> dict[str, list[float]]:
    """Returns the seconds a step of each worker, one entry a round."""
    seconds: dict[str, list[float]] = {name: [] for name in workers}
    for index, order in enumerate(orders(tuple(workers), rounds), 1):
        _tell(f"{title}: round {index} of {rounds}")
        for name in order:
            seconds[name].append(workers[name].turn())
    return seconds


def _heading(comparison: Comparison, task: Task) -> dict[str, Any]:
    return {
        "network": comparison.title,
        "candidate": task.candidate,
        "title": CANDIDATES[task.candidate].title,
        "task": {name: value for name, value in asdict(task).items() if name != "weights"},
    }


def _figures(task: Task, seconds: dict[str, list[float]], baseline: str) -> dict[str, Any]:
    own = seconds[task.candidate]
    median = float(np.median(own))
    figures = {"seconds": own, "median_seconds": median, "images_per_second": task.batch / median}
    if baseline in seconds:
        figures |= {"baseline": baseline, "ratio": asdict(pairwise(seconds[baseline], own))}
    return figures


def _tell(line: str) -> None:
    """Shows progress on standard error, in one line on a terminal."""
    if sys.stderr.isatty():
        print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)
