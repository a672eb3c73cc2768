"""Checks of what a run will cost, on a job: whether the data come fast enough, memory, time.

The program of the steps is that of the run itself, so it is compiled once: the run finds it in the compilation cache.
"""

import math
import os
import statistics
import time
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn.job import Job
from jaxcnn.tuning.findings import Finding, Verdict
from jaxcnn.tuning.lr_finder import own_feed

_TURNS = 3
"""Dispatches that are timed; the median counts."""
_STEPS_A_TURN = 4
TIGHT, FULL = 0.7, 0.95
"""Shares of the memory above which it is worth a look, or too much."""


@dataclass(frozen=True)
class StepCost:
    """What one step of a run takes on this machine.

    Attributes:
      step_seconds: on the device, its batch being there.
      feed_seconds: the host's, to make a batch and send it.
      temp_bytes: memory besides arguments; argument_bytes: state, source and batches, once: the state is donated.
      batch_size: examples a step.
    """

    step_seconds: float
    feed_seconds: float
    temp_bytes: int
    argument_bytes: int
    batch_size: int


def loader_keeps_up(job: Job) -> Finding:
    """Checks that the host makes batches faster than the device uses them."""
    began, cost = time.perf_counter(), step_cost(job)
    loads, trains = (cost.batch_size / seconds for seconds in (cost.feed_seconds, cost.step_seconds))
    good = loads >= trains
    return Finding(
        check="loader keeps up",
        verdict="pass" if good else "warn",
        figure=f"the loader gives {loads:,.0f} images/s, a step takes {trains:,.0f}",
        expected="at least as many as a step takes",
        advice="" if good else _LOADER_ADVICE,
        numbers={"loader_images_per_second": loads, "step_images_per_second": trains},
        seconds=time.perf_counter() - began,
    )


_LOADER_ADVICE = (
    "The device will wait: choose data.loader=cached, or resident where it fits, or more data.workers; in your own "
    "code decode once and keep the arrays."
)


def memory_and_time(job: Job) -> Finding:
    """Checks that a step fits the memory, and says how long the whole run will take on this machine.

    The time is that of all steps, the first phase's, and of the evaluations, an example of which is taken to cost a
    third of one in training, which goes forward and back.
    """
    began, cost = time.perf_counter(), step_cost(job)
    needed = cost.temp_bytes + cost.argument_bytes
    limit, where = _memory()
    share = needed / limit if limit else 0.0
    config = job.config
    steps = job.total_steps * max(cost.step_seconds, cost.feed_seconds)
    evaluations = math.ceil(config.train.epochs / config.evaluation.every_epochs)
    measured = evaluations * len(job.splits["validation"])
    seconds = steps + measured * cost.step_seconds / cost.batch_size / 3
    verdict: Verdict = "pass" if share < TIGHT else "warn" if share < FULL else "fail"
    of_limit = f" of {_bytes(limit)} {where} ({100 * share:.2g} %)" if limit else ""
    return Finding(
        check="memory and time",
        verdict=verdict,
        figure=f"{_bytes(needed)}{of_limit}; {job.total_steps:,} steps of {1e3 * cost.step_seconds:.3g} ms, about "
        f"{told_seconds(seconds)}",
        expected=f"below {100 * TIGHT:.0f} % of the memory",
        advice="" if verdict == "pass" else _MEMORY_ADVICE,
        numbers={
            "temp_bytes": cost.temp_bytes,
            "argument_bytes": cost.argument_bytes,
            "memory_bytes": limit,
            "step_seconds": cost.step_seconds,
            "run_seconds": seconds,
            "steps": job.total_steps,
        },
        seconds=time.perf_counter() - began,
    )


_MEMORY_ADVICE = (
    "Set optim.accumulation above 1, model.remat=all, a smaller train.batch_size, model.dtype=bfloat16, or "
    "data.loader=streamed, which keeps no images on the device."
)


def step_cost(job: Job) -> StepCost:
    """Returns the measured cost of a step of a job's first phase; measured once for a job."""
    held: Any = vars(job)  # where functools.cached_property would put it too
    if "_step_cost" not in held:
        held["_step_cost"] = _measure(job)
    return held["_step_cost"]


def _measure(job: Job) -> StepCost:
    state, sums = jax.tree.map(jnp.copy, job.initial_state()), job.zero_sums()
    compiled: Any = job.compile_chunk(state, sums)
    turns = _TURNS + 1  # the first warms up
    count = max(1, min(_STEPS_A_TURN, job.feed.rows, job.total_steps // turns))
    feed = own_feed(job.feed, turns * count)
    loading, training = list[float](), list[float]()
    try:
        for turn in range(turns):
            begin = time.perf_counter()
            inputs = jax.block_until_ready(feed.inputs(turn * count, count))
            loading.append((time.perf_counter() - begin) / count)
            begin = time.perf_counter()
            state, sums, brief = compiled(state, sums, feed.source, inputs, np.int32(count))
            jax.block_until_ready(brief)
            training.append((time.perf_counter() - begin) / count)
    finally:
        feed.close()
    memory = compiled.memory_analysis()
    return StepCost(
        step_seconds=statistics.median(training[1:]),
        feed_seconds=statistics.median(loading[1:]),
        temp_bytes=int(memory.temp_size_in_bytes),
        argument_bytes=int(memory.argument_size_in_bytes),
        batch_size=job.config.train.batch_size,
    )


def _memory() -> tuple[int | None, str]:
    """(bytes, of what) of the device, or on CPU of the machine; none where neither is known."""
    stats = jax.devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return int(stats["bytes_limit"]), "of the device"
    if jax.default_backend() == "cpu" and hasattr(os, "sysconf"):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), "of this machine"
    return None, ""


def told_seconds(seconds: float) -> str:
    """Returns a time in its two largest units: "2 min 30 s"."""
    whole = max(1, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    minutes = round(whole / 60)
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes // (24 * 60)} d {minutes % (24 * 60) // 60} h"


def _bytes(count: float) -> str:
    """In decimal units, as disks and papers have them."""
    for unit in ("B", "kB", "MB"):
        if float(f"{count:.3g}") < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"
