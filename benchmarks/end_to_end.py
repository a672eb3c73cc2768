"""`python -m benchmarks end-to-end`: whole epochs of a training run beside its bare steps on fixed data."""

import argparse
import dataclasses
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import report
from benchmarks.arguments import RESULTS, Parser, count
from benchmarks.ratios import pairwise
from jaxcnn.build import build_job
from jaxcnn.config import TrainConfig
from jaxcnn.config_reader import load_config
from jaxcnn.data.loader import Arrays
from jaxcnn.interruption import StopRequest
from jaxcnn.job import Job
from jaxcnn.loop import train
from jaxcnn.phases import make_phases
from jaxcnn.run_folder import RunFolder
from jaxcnn.runtime import compiler_options
from jaxcnn.training.step import make_chunk

_BARE_STEPS = 8  # of one dispatch


def main(argv: Sequence[str]) -> int:
    """Measures, prints and writes."""
    parser = Parser("python -m benchmarks end-to-end", description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the JSON and Markdown files")
    parser.add_argument("--config", default="configs/cifar10_resnet20.py", metavar="FILE", help="default: %(default)s")
    parser.add_argument("--data-dir", metavar="DIR", help="its data.data_dir")
    parser.add_argument("--examples", type=count, default=9000, metavar="N", help="of an epoch (default: %(default)s)")
    parser.add_argument("--loader", default="resident", choices=("resident", "cached", "streamed"))
    parser.add_argument("--rounds", type=count, default=5, metavar="N", help="epochs of each (default: %(default)s)")
    found = parser.parse_args(list(argv))
    report.check_folder(found.out)
    job = build_job(_config(found))
    bare = _bare_steps(job)
    bare()
    seconds: dict[str, list[float]] = {"bare steps": [], "epoch of a run": []}
    waited = []
    for _ in range(found.rounds):
        epoch, share = _epoch(job)
        seconds["epoch of a run"].append(epoch)
        seconds["bare steps"].append(bare())
        waited.append(share)
    rows = _rows(job, seconds, waited)
    report.write(found.out, "end-to-end", argv, rows, _table(rows))
    return 0


def _config(found: argparse.Namespace) -> TrainConfig:
    """The config of a run of one epoch over so many examples, measured on few."""
    config = load_config(found.config)
    data = dataclasses.replace(
        config.data,
        data_dir=found.data_dir,
        loader=found.loader,
        train_split=f"train[:{found.examples}]",
        validation_split="test[:500]",
        test_split="test[:500]",
    )
    loop = dataclasses.replace(config.train, epochs=1.0)
    return dataclasses.replace(config, data=data, train=loop)


def _epoch(job: Job) -> tuple[float, float]:
    """The seconds a step of an epoch, as a run counts them, and the share in which the device waited for data."""
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder.create(Path(folder) / "run", job.config, job.network.class_names, job.network.preprocessing)
        train(job, run, StopRequest())
        line = run.metrics()[0]
    return job.config.train.batch_size / line["images_per_second"], line["data_wait_share"]


def _bare_steps(job: Job) -> Callable[[], float]:
    """Returns a function that does the steps of an epoch on one batch, only normalised; its result: seconds a step."""
    augment = dataclasses.replace(
        job.config.augment,
        **{
            field.name: dataclasses.replace(getattr(job.config.augment, field.name), prob=0.0)
            for field in dataclasses.fields(job.config.augment)
        },
    )
    (phase,) = make_phases(dataclasses.replace(job.config, augment=augment), job.network, job.schedule)
    size = job.config.train.batch_size
    images = np.random.default_rng(0).integers(0, 256, (size, *job.network.preprocessing.image_shape), np.uint8)
    batch = Arrays(jnp.asarray(images), jnp.asarray(np.arange(size, dtype=np.int32) % len(job.network.class_names)))
    chunk = jax.jit(
        make_chunk(phase.step, lambda source, _: source),
        donate_argnums=(0, 1),
        compiler_options=compiler_options(training=True),
    )
    inputs = jnp.zeros((_BARE_STEPS, 1), jnp.int32)
    state, sums = job.initial_state(), job.zero_sums()
    compiled = chunk.lower(state, sums, batch, inputs, np.int32(0)).compile()
    held = [state, sums]

    def run() -> float:
        began, left = time.perf_counter(), job.total_steps
        while left > 0:
            steps = min(left, _BARE_STEPS)
            held[0], held[1], brief = compiled(held[0], held[1], batch, inputs, np.int32(steps))
            left -= steps
        jax.block_until_ready(brief)
        return (time.perf_counter() - began) / job.total_steps

    return run


def _rows(job: Job, seconds: dict[str, list[float]], waited: list[float]) -> list[dict[str, Any]]:
    size = job.config.train.batch_size
    rows: list[dict[str, Any]] = []
    for name, own in seconds.items():
        median = float(np.median(own))
        row = {"title": name, "seconds": own, "median_seconds": median, "images_per_second": size / median}
        rows.append({**row, "ratio": asdict(pairwise(own, seconds["bare steps"]))})
    rows[-1] |= {"data_wait_share": waited, "loader": job.config.data.loader, "steps": job.total_steps}
    return rows


def _table(rows: list[dict[str, Any]]) -> str:
    def line(row: dict[str, Any]) -> list[str]:
        ratio = row["ratio"]
        spread = f"{ratio['median']:.3f} ({ratio['low']:.3f} to {ratio['high']:.3f})"
        waited = f"{100 * np.median(row['data_wait_share']):.2f} %" if "data_wait_share" in row else ""
        return [row["title"], f"{1000 * row['median_seconds']:.1f}", f"{row['images_per_second']:.0f}", spread, waited]

    return report.markdown(
        ["", "ms a step", "images/s", "time / bare steps (spread)", "device waited for data"],
        [line(row) for row in rows],
    )
