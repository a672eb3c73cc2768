"""`python -m benchmarks input`: JPEGs decoded, cropped and batched by the streamed loader, a DataLoader and tf.data."""

import argparse
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import report
from benchmarks.arguments import RESULTS, Parser, chosen, count, names
from benchmarks.candidates import CANDIDATES
from benchmarks.comparison import rotate
from benchmarks.input_tasks import InputTask, write_photos
from benchmarks.processes import Worker, WorkerError
from benchmarks.ratios import pairwise
from jaxcnn.errors import InputError

OURS = ("threads", "processes")
PEERS = ("dataloader", "tf.data")
MODELS = {"train": "random resized crop", "evaluation": "resize, centre crop"}


class InputWorker(Worker):
    """A process with a pipeline."""

    def open(self) -> list[int]:
        """Returns the shape of a batch of images."""
        return self._ask(do="open", task=asdict(self.task))["shape"]

    def turn(self) -> float:
        """Returns the seconds a batch in one turn."""
        return self._ask(do="read")["seconds"]


def main(argv: Sequence[str]) -> int:
    """Measures, prints and writes."""
    found = _parse(argv)
    report.check_folder(found.out)
    with tempfile.TemporaryDirectory() as made:
        if found.photos is None:
            write_photos(Path(made), found.count)
        folder = str(found.photos or made)
        rows = []
        for model in chosen(found.crops, MODELS, tuple(MODELS), "--crops"):
            task = InputTask("", model, folder, found.size, found.batch, found.cores)  # type: ignore[arg-type]
            files = task.files()
            kib = sum(Path(file).stat().st_size for file in files) / len(files) / 1024
            measured = measure(task, found.candidates, found.rounds, found.warmup)
            rows += [{**row, "jpegs": len(files), "kib_a_jpeg": round(kib, 1)} for row in measured]
    report.write(found.out, "input", argv, rows, table(rows))
    return 0


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = Parser("python -m benchmarks input", description=__doc__)
    parser.add_argument("--photos", type=Path, help="folder of JPEGs; default: some are made, 500x375 pixels")
    parser.add_argument("--count", type=count, default=1024, help="how many are made")
    parser.add_argument("--crops", type=names, help=f"{', '.join(MODELS)}, with commas between; default: both")
    parser.add_argument("--candidates", type=names, help="names with commas between; default: all")
    parser.add_argument("--size", type=count, default=224, help="side of the result in pixels")
    parser.add_argument("--batch", type=count, default=64, help="images a batch")
    parser.add_argument("--cores", type=count, default=2, help="threads or processes that decode, of each candidate")
    parser.add_argument("--rounds", type=count, default=20, help="turns of each candidate")
    parser.add_argument("--warmup", type=count, default=3, help="turns before those that count")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the JSON and Markdown files")
    found = parser.parse_args(argv)
    found.candidates = chosen(found.candidates, (*OURS, *PEERS), (*OURS, *PEERS), "--candidates")
    return found


def measure(task: InputTask, candidates: Sequence[str], rounds: int, warmup: int) -> list[dict[str, Any]]:
    """Returns a row of figures for each candidate; a peer that is missing or fails has its reason under `skipped`.

    Args:
      task: what all are given.
      candidates: who takes part; the ratios are to each peer that does.
      rounds, warmup: turns of each candidate that count, and before them.
    """
    skipped: dict[str, str] = {}
    workers: dict[str, Worker] = {}
    with ExitStack() as stack:
        for name in candidates:
            worker = stack.enter_context(InputWorker(replace(task, candidate=name)))
            try:
                worker.open()
                for _ in range(warmup):
                    worker.turn()
                workers[name] = worker
            except (InputError, WorkerError) as error:
                if name in OURS:
                    raise
                skipped[name] = str(error)
        seconds = rotate(MODELS[task.model], workers, rounds)
    rows = []
    for name in candidates:
        row = {"crop": task.model, "candidate": name, "title": CANDIDATES[name].title, "task": asdict(task)}
        rows.append({**row, "skipped": skipped[name]} if name in skipped else {**row, **_figures(task, name, seconds)})
    return rows


def _figures(task: InputTask, name: str, seconds: dict[str, list[float]]) -> dict[str, Any]:
    own = seconds[name]
    median = float(np.median(own))
    ratios = {peer: asdict(pairwise(seconds[peer], own)) for peer in PEERS if peer in seconds}
    return {"seconds": own, "median_seconds": median, "images_per_second": task.batch / median, "ratios": ratios}


def table(rows: list[dict[str, Any]]) -> str:
    """Returns the Markdown table of measured rows."""
    titles = [CANDIDATES[peer].title for peer in PEERS]
    return report.markdown(
        ["crop", "pipeline", "images/s", *(f"ratio to {title}" for title in titles)], [_line(row) for row in rows]
    )


def _line(row: dict[str, Any]) -> list[str]:
    line = [MODELS[row["crop"]], row["title"]]
    if "skipped" in row:
        return [*line, f"skipped: {row['skipped']}", *[""] * len(PEERS)]
    ratios = [row["ratios"].get(peer) for peer in PEERS]
    texts = [f"{ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})" if ratio else "" for ratio in ratios]
    return [*line, f"{row['images_per_second']:,.4g}", *texts]
