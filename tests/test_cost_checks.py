"""What a run will cost: figures beside what is known of a job, and verdicts on planted ones."""

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest

from jaxcnn.build import build_job
from jaxcnn.config import TrainConfig
from jaxcnn.job import Job
from jaxcnn.tuning import cost_checks
from jaxcnn.tuning.cost_checks import StepCost, loader_keeps_up, memory_and_time, step_cost, told_seconds

COST = StepCost(step_seconds=0.1, feed_seconds=0.01, temp_bytes=10**6, argument_bytes=10**6, batch_size=32)


@pytest.fixture
def job(tiny_config: TrainConfig) -> Job:
    return build_job(tiny_config)


def with_cost(job: Job, **fields: Any) -> Job:
    """The job, as if this had been measured."""
    job = dataclasses.replace(job)
    vars(job)["_step_cost"] = dataclasses.replace(COST, **fields)
    return job


def test_the_cost_of_a_step_is_measured_once_and_the_job_is_not_changed(job) -> None:
    following = np.asarray(job.feed.inputs(0, 2)).tobytes()
    cost = step_cost(job)
    assert step_cost(job) is cost
    assert np.asarray(job.feed.inputs(0, 2)).tobytes() == following
    assert min(cost.step_seconds, cost.feed_seconds, cost.temp_bytes) > 0
    state = sum(leaf.nbytes for leaf in jax.tree.leaves(job.initial_state()))
    images = 200 * 28 * 28
    assert state + images < cost.argument_bytes < state + 1.2 * images  # with labels, places and sums


def test_a_loader_slower_than_the_step_is_warned_of(job) -> None:
    fast, slow = with_cost(job), with_cost(job, feed_seconds=0.2)
    assert loader_keeps_up(fast).verdict == "pass"
    found = loader_keeps_up(slow)
    assert found.verdict == "warn"
    assert "160 images/s, a step takes 320" in found.figure
    assert "data.workers" in found.advice


def test_the_time_of_a_run_is_its_steps_and_evaluations(job) -> None:
    found = memory_and_time(with_cost(job))
    # 3 epochs of 6.25 steps are 19; validation has 70 examples, three times, each a third of one in training.
    assert found.numbers["run_seconds"] == pytest.approx(19 * 0.1 + 3 * 70 * 0.1 / 32 / 3)
    assert "about 2 s" in found.figure
    slow = memory_and_time(with_cost(job, feed_seconds=10.0))
    assert slow.numbers["run_seconds"] > 190, "the slower of loader and step counts"


@pytest.mark.parametrize(("share", "verdict"), [(0.5, "pass"), (0.8, "warn"), (1.2, "fail")])
def test_memory_is_held_against_that_of_the_device(job, monkeypatch, share, verdict) -> None:
    monkeypatch.setattr(cost_checks, "_memory", lambda: (2 * 10**6 / share, "of the device"))
    found = memory_and_time(with_cost(job))
    assert found.verdict == verdict
    assert ("optim.accumulation" in found.advice) == (verdict != "pass")


def test_memory_that_nobody_knows_is_no_fault(job, monkeypatch) -> None:
    monkeypatch.setattr(cost_checks, "_memory", lambda: (None, ""))
    assert memory_and_time(with_cost(job, temp_bytes=10**15)).verdict == "pass"


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0.2, "1 s"), (59, "59 s"), (150, "2 min 30 s"), (3 * 3600 + 65, "3 h 1 min"), (2e5, "2 d 7 h")],
)
def test_times_are_told_in_two_units(seconds: float, told: str) -> None:
    assert told_seconds(seconds) == told
