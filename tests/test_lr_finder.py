"""The learning-rate finder: right curves, and nothing of the run has changed after it."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from jaxcnn.build import build_job
from jaxcnn.config import FeaturesConfig, TrainConfig
from jaxcnn.errors import InputError
from jaxcnn.job import Job
from jaxcnn.training.state import TrainState
from jaxcnn.tuning.lr_curve import LrCurve, curve_of, first_diverged, smooth
from jaxcnn.tuning.lr_finder import exponential, find_lr, with_rate
from tests.conftest import with_fields
from tests.feature_runs import STILL


def bits(tree: Any) -> dict[str, bytes]:
    """Every leaf as bytes, by its path."""
    leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(tree))
    return {jax.tree_util.keystr(path): np.asarray(leaf).tobytes() for path, leaf in leaves}


def trained(job: Job, state: TrainState, num_steps: int) -> tuple[TrainState, dict[str, jax.Array]]:
    """State and sums after so many steps of the run from a state, which is not donated."""
    phase, first = job.phase_at(int(state.step)), int(state.step)
    state, sums = jax.tree.map(jax.numpy.copy, state), job.zero_sums()
    compiled = job.compile_chunk(state, sums, phase)
    for begin in range(first, first + num_steps, 4):
        count = min(4, first + num_steps - begin)
        inputs = job.feed.inputs(begin, count)
        state, sums, _ = compiled(state, sums, job.feed.source, inputs, np.int32(count))
    return state, sums


@pytest.fixture
def everything(tiny_config: TrainConfig) -> TrainConfig:
    """Momentum, decay, clipping, averages, accumulation and dropout in 6 epochs of 6.25 steps."""
    return with_fields(
        tiny_config, optim__clip_norm=1.0, optim__ema_decay=0.9, optim__accumulation=2, model__dropout=0.2,
        train__epochs=6.0,
    )  # fmt: skip


CASES: dict[str, tuple[dict[str, Any], int]] = {
    "start": ({}, 0),
    "adamw, mid-run": ({"optim__name": "adamw"}, 5),
    "frozen": ({"freeze": ("backbone/**", "!backbone/stage3/**"), "optim__layer_decay": 0.8}, 5),
    "last state of a phase": ({"freeze": ("backbone/**",), "unfreeze": ((1.0, "backbone/stage3/**"),)}, 7),
    "kept features": ({"freeze": ("backbone/**",), "features": FeaturesConfig("auto"), "augment": STILL}, 5),
    "streamed": ({"data__loader": "streamed"}, 3),
}


SLOW = ("adamw, mid-run", "streamed", "last state of a phase")


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=pytest.mark.slow) if case in SLOW else case for case in CASES]
)
def test_state_sums_and_data_are_bit_identical_after_a_sweep(everything, case, tmp_path) -> None:
    fields, before = CASES[case]
    config = with_fields(everything, data__cache_dir=str(tmp_path), **fields)
    job = build_job(config)
    try:
        state, sums = trained(job, job.initial_state(), before) if before else (job.initial_state(), job.zero_sums())
        held = bits((state, sums))
        curve = find_lr(job, state, num_steps=30)
        assert bits((state, sums)) == held
        assert len(set(curve.losses)) > 10, "the sweep did not train"
        following = bits(job.feed.inputs(before, 2))
    finally:
        job.feed.close()
    other = build_job(config)  # one on which no sweep was made
    try:
        assert bits(other.feed.inputs(before, 2)) == following
    finally:
        other.feed.close()


@pytest.mark.slow
def test_training_after_a_sweep_is_bit_identical_to_training_without_one(everything) -> None:
    job, other = build_job(everything), build_job(everything)
    state = trained(job, job.initial_state(), 3)[0]
    find_lr(job, state, num_steps=20)
    assert bits(trained(job, state, 4)) == bits(trained(other, trained(other, other.initial_state(), 3)[0], 4))


def test_a_sweep_is_the_same_each_time_and_counts_from_the_step_of_its_state(everything) -> None:
    job = build_job(with_fields(everything, optim__accumulation=1, optim__clip_norm=None))
    late = trained(job, job.initial_state(), 4)[0]
    curve = find_lr(job, late, num_steps=20, rate_min=1e-7, rate_max=1e-6)
    assert curve == find_lr(job, late, num_steps=20, rate_min=1e-7, rate_max=1e-6)
    # At rates near 0 each step sees the same weights, so a run at that rate has the losses of the sweep.
    still = dataclasses.replace(job, phases=job.phases_of(job.config, None, lambda step: 1e-9))
    state, sums = jax.tree.map(jax.numpy.copy, late), still.zero_sums()
    compiled = still.compile_chunk(state, sums)
    trace = compiled(state, sums, job.feed.source, job.feed.inputs(4, 4), np.int32(4))[2]["trace"]["objective"]
    np.testing.assert_allclose(curve.losses[:4], np.asarray(trace), rtol=1e-4)


def test_the_rates_of_a_sweep_rise_by_one_factor_from_the_first_step() -> None:
    rates = [float(exponential(7, 1e-4, 10.0, 6)(step)) for step in range(7, 13)]
    np.testing.assert_allclose(rates, np.geomspace(1e-4, 10.0, 6), rtol=1e-5)


def test_a_sweep_longer_than_the_run_passes_over_streamed_data_again(tiny_config) -> None:
    config = with_fields(tiny_config, data__loader="streamed", train__epochs=1.0)
    job = build_job(config)
    try:
        assert len(find_lr(job, num_steps=24, rate_min=1e-5, rate_max=1e-3).losses) == 24 > 3 * job.total_steps
    finally:
        job.feed.close()


def test_a_sweep_stops_where_it_diverges(tiny_config) -> None:
    job = build_job(with_fields(tiny_config, model__norm="none"))
    curve = find_lr(job, num_steps=40, rate_min=1e-3, rate_max=1e6)
    assert curve.diverged_at is not None
    assert curve.rates[-1] == curve.diverged_at < 1e6
    assert all(map(math.isfinite, curve.smoothed))


def valley(rates: np.ndarray, best: float) -> np.ndarray:
    """A loss that falls to its minimum at a rate and rises after it."""
    x = np.log10(rates / best)
    return 2.0 - 1.5 * np.exp(-((x / 1.0) ** 2)) + np.where(x > 0, x**2, 0)


@pytest.mark.parametrize("best", [1e-3, 0.1, 3.0])
def test_minimum_and_steepest_of_a_constructed_curve(best: float) -> None:
    rates = np.geomspace(best / 1e4, best * 1e2, 400)
    curve = curve_of(rates, valley(rates, best), weight=0.0)
    assert curve.minimum == pytest.approx(best, rel=0.05)
    assert curve.minimum_tenth == pytest.approx(best / 10, rel=0.05)
    # -exp(-x^2) falls fastest where its second derivative is 0: x = -1 / sqrt(2).
    assert curve.steepest == pytest.approx(best * 10 ** -math.sqrt(0.5), rel=0.1)
    assert curve.suggestion is not None
    assert curve.steepest <= curve.suggestion <= curve.minimum


def test_smoothing_is_the_weighted_mean_of_what_was_before() -> None:
    losses, weight = [3.0, 1.0, 2.0], 0.9
    weights = np.array([weight**2, weight, 1.0])
    assert smooth(losses, weight)[-1] == pytest.approx(float(weights @ losses / weights.sum()))
    assert smooth([2.0] * 5, weight) == pytest.approx([2.0] * 5)


def test_divergence_is_the_first_loss_that_is_not_finite_or_far_above() -> None:
    assert first_diverged([2.0, 1.0, math.nan]) == 2
    assert first_diverged([2.0, 1.0, 1.9, 2.1], weight=0.0) == 3
    assert first_diverged([2.0, 1.9, 2.5, 3.0]) is None
    assert first_diverged([]) is None


def test_a_loss_that_never_falls_has_no_suggestion_and_no_config(tiny_config) -> None:
    rates = np.geomspace(1e-4, 10, 50)
    curve = curve_of(rates, 2.3 + 0.01 * np.sin(np.arange(50)))
    assert curve.suggestion is None
    with pytest.raises(InputError, match=r"no rate between 0\.0001 and 10 lowers the loss"):
        with_rate(tiny_config, curve)


def noisy(seed: int, fall: float, noise: float = 0.35, num_steps: int = 100) -> LrCurve:
    """A sweep whose loss falls from 2.3 over its middle, with independent noise of each batch."""
    rates = np.geomspace(1e-4, 10, num_steps)
    falls = np.interp(np.arange(num_steps), [num_steps * 0.4, num_steps * 0.8], [0, fall])
    return curve_of(rates, 2.3 - falls + noise * np.random.default_rng(seed).normal(size=num_steps))


def test_a_fall_is_told_from_the_noise_of_the_smoothed_loss() -> None:
    """What a batch of 8 has: 0.9 nats of fall under a noise of 0.35 from batch to batch are seen, none are not."""
    falling = [noisy(seed, 0.9).suggestion for seed in range(100)]
    still = [noisy(seed, 0.0).suggestion for seed in range(100)]
    assert sum(rate is not None for rate in falling) >= 95
    assert sum(rate is not None for rate in still) <= 8
    rates = np.geomspace(1e-4, 10, 100)
    assert np.mean([rates[30] < (rate or 0) < rates[99] for rate in falling]) > 0.9


def test_too_noisy_to_tell_is_not_that_no_rate_does(tiny_config) -> None:
    curve = next(curve for curve in (noisy(seed, 0.0) for seed in range(10)) if curve.suggestion is None)
    assert curve.noisy
    assert curve.to_json()["noisy"] is True
    with pytest.raises(InputError, match=r"too noisy to tell in 100 steps .*: a larger batch or more steps"):
        with_rate(tiny_config, curve)
    assert not noisy(0, 0.0, noise=0.01).noisy
    assert not noisy(0, 0.9, noise=0.01).noisy


def test_a_suggestion_lands_in_the_config_with_two_digits(tiny_config) -> None:
    rates = np.geomspace(1e-4, 10, 200)
    curve = dataclasses.replace(curve_of(rates, valley(rates, 0.3)), suggestion=0.123456)
    assert with_rate(tiny_config, curve) == with_fields(tiny_config, optim__peak_lr=0.12)


def test_ranges_that_do_not_rise_and_short_sweeps_are_refused(tiny_config) -> None:
    job = build_job(tiny_config)
    with pytest.raises(InputError, match="must rise"):
        find_lr(job, rate_min=1.0, rate_max=0.1)
    with pytest.raises(InputError, match="from 0 to 10: the sweep must rise, from above 0"):
        find_lr(job, rate_min=0)
    with pytest.raises(InputError, match="20 steps"):
        find_lr(job, num_steps=3)


def test_a_curve_is_json_a_table_and_a_figure(tmp_path: Path) -> None:
    rates = np.geomspace(1e-4, 10, 60)
    losses = valley(rates, 0.1)
    losses[50] = math.nan
    curve = curve_of(rates, losses)
    told = json.loads(json.dumps(curve.to_json(), allow_nan=False))
    assert told["losses"][-1] is None
    assert told["suggestion"] == curve.suggestion
    curve.plot(tmp_path / "lr.png", "a $title", planned=0.2)
    assert (tmp_path / "lr.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["lr.png"]
