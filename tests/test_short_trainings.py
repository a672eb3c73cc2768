"""Checks that train where little can be trained: tiny and cut batches, few examples, rare classes, noisy sweeps."""

import dataclasses
from types import SimpleNamespace
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcnn.tuning import affordable as affordable_module
from jaxcnn.tuning.affordable import affordable
from jaxcnn.tuning.entropies import balanced, entropy_of
from jaxcnn.tuning.findings import Finding
from jaxcnn.tuning.fitting import LEARN_STEPS, Fitting, fitting_of
from jaxcnn.tuning.subject import Examples, Subject
from jaxcnn.tuning.training_checks import (
    learning_rate_in_range,
    overfits_a_small_sample,
    real_labels_beat_shuffled_ones,
)
from jaxcnn.tuning.weighing import bounded
from tests.tuning_subjects import Chain, digits, healthy, plain_sgd, subject_with

pytestmark = pytest.mark.slow  # each trains; the default suite has the checks on a healthy subject and on faults

CHECKS = (overfits_a_small_sample, real_labels_beat_shuffled_ones, learning_rate_in_range)


class Small(nn.Module):
    """Two convolutions with batch norm and a linear head: what somebody's own code has."""

    num_classes: int = 10

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        for width in (8, 16):
            x = nn.Conv(width, (3, 3), (2, 2))(x)
            x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(x))
        return nn.Dense(self.num_classes)(x.reshape(len(x), -1))


def small(**fields: Any) -> Subject:
    subject = healthy()
    still = lambda key, images: (subject.normalise(images), None)  # noqa: E731
    fields = {"optimizer": plain_sgd, "augment": still, **fields}
    return subject_with(Small(num_classes=len(fields.get("class_names", "0123456789"))), **fields)


@pytest.fixture(scope="module")
def batch_of_8() -> Subject:
    return small(batch_size=8, peak_lr=0.02)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_healthy_run_with_batches_of_8_passes(check, batch_of_8) -> None:
    found = check(batch_of_8)
    assert found.verdict == "pass", found


def test_figures_name_the_planned_rate_and_the_one_here(batch_of_8) -> None:
    found = learning_rate_in_range(batch_of_8)
    assert "at 0.02, here 0.08 at batch 32 in the place of 8" in found.figure
    assert found.numbers["planned"] == pytest.approx(0.08)
    assert found.numbers["peak_lr"] == 0.02


def test_the_curves_of_real_and_of_shuffled_labels_are_both_there(batch_of_8) -> None:
    curves = real_labels_beat_shuffled_ones(batch_of_8).curves
    assert set(curves) == {"step", "real", "shuffled"}
    assert {len(values) for values in curves.values()} == {LEARN_STEPS}
    assert np.mean(curves["real"][-8:]) < np.mean(curves["shuffled"][-8:]) - 0.5


def test_unseen_loss_is_of_200_examples_where_there_are_as_many(batch_of_8) -> None:
    assert real_labels_beat_shuffled_ones(batch_of_8).numbers["examples"] == 192  # whole batches of 32


def test_higher_rates_are_tried_before_a_sample_is_called_unlearnable(batch_of_8) -> None:
    slow = dataclasses.replace(batch_of_8, peak_lr=2e-4)
    shared = Fitting.__new__(Fitting)
    vars(shared).update(vars(fitting_of(batch_of_8)), sane_rate=0.005)
    shared.subject = dataclasses.replace(shared.subject, peak_lr=8e-4)
    vars(slow)["_fitting"] = shared
    found = overfits_a_small_sample(slow)
    assert found.verdict == "pass", found
    assert found.numbers["rate"] == pytest.approx(0.05)


@pytest.mark.parametrize(("peak_lr", "verdict"), [(0.02, "skip"), (1e-9, "warn")])
def test_a_noisy_sweep_neither_praises_nor_fails_a_rate(batch_of_8, peak_lr, verdict) -> None:
    subject = dataclasses.replace(batch_of_8, peak_lr=peak_lr)
    shared, known = Fitting.__new__(Fitting), fitting_of(batch_of_8)
    held = {name: value for name, value in vars(known).items() if name not in ("learned", "sane_rate")}
    vars(shared).update(held, curve=dataclasses.replace(known.curve, suggestion=None, noisy=True))
    shared.subject = dataclasses.replace(known.subject, peak_lr=4 * peak_lr)
    vars(subject)["_fitting"] = shared
    found = learning_rate_in_range(subject)
    assert found.verdict == verdict, found
    assert "none" not in found.figure
    assert ("too noisy to tell" in found.figure) == (verdict == "warn")


def test_planned_rates_follow_the_batch(monkeypatch) -> None:
    """Linearly for gradient descent, by the square root for Adam."""
    monkeypatch.setattr(affordable_module, "STEP_FLOP", 0.0)
    cut = small(batch_size=512, peak_lr=0.4)
    assert affordable(cut).batch_size == 16
    assert affordable(cut).peak_lr == pytest.approx(0.4 * 16 / 512)
    assert affordable(dataclasses.replace(cut, optimizer=optax.adam)).peak_lr == pytest.approx(0.4 * (16 / 512) ** 0.5)
    assert affordable(dataclasses.replace(cut, batch_size=16)).peak_lr == 0.4
    assert Fitting(cut).tells_little
    assert Fitting(cut).rate_scale == pytest.approx(1 / 32)


def test_tiny_batches_grow_and_no_batch_is_larger_than_all_examples() -> None:
    for planned, count, batch in ((1, 512, 32), (8, 512, 32), (48, 512, 48), (8, 10, 10), (64, 40, 40)):
        subject = small(batch_size=planned, peak_lr=0.1, train=digits("train", 512).take(np.arange(count)))
        fit = Fitting(subject)
        assert fit.batch_size == batch
        assert fit.subject.peak_lr == pytest.approx(0.1 * batch / planned)
        assert not fit.tells_little


def test_a_fault_is_a_warning_where_far_smaller_batches_than_planned_are_affordable(monkeypatch) -> None:
    monkeypatch.setattr(affordable_module, "STEP_FLOP", 0.0)
    rng = np.random.default_rng(3)
    train, validation = digits("train", 512), digits("validation", 200)
    mixed = Examples(train.images, rng.permutation(train.labels))
    other = Examples(validation.images, rng.permutation(validation.labels))
    found = real_labels_beat_shuffled_ones(small(batch_size=128, train=mixed, validation=other))
    assert found.verdict == "warn", found
    assert "batch 16 of 128" in found.advice


def test_what_is_sure_still_fails_with_a_small_batch() -> None:
    failure = Finding("c", "fail", "figure", "expected", "Do this.")
    fit: Any = SimpleNamespace(tells_little=True, batch_size=16, planned_batch=512)
    assert bounded(fit, failure, sure=True) == failure
    assert bounded(fit, failure, sure=False).verdict == "warn"
    fit.tells_little = False
    assert bounded(fit, failure, sure=False) == failure


@pytest.mark.parametrize(("batch", "count", "examples"), [(1, 512, 32), (16, 512, 32), (1, 5, 5)])
def test_the_sample_is_32_examples_whatever_the_batch(batch, count, examples, monkeypatch) -> None:
    monkeypatch.setattr(affordable_module, "TELLING_BATCH", 1)  # a network that takes no other batch
    subject = small(batch_size=batch, train=digits("train", 512).take(np.arange(count)))
    fit = fitting_of(subject)
    seen: list[np.ndarray] = []
    monkeypatch.setattr(fit, "batches_of", lambda places, steps: seen.append(places) or np.zeros((1, 1), int))
    monkeypatch.setattr(
        fit, "run", lambda *args, **kwargs: SimpleNamespace(finite=True, start=9.0, top1=0.0, state=None,
                                                            objectives=np.zeros(1))
    )  # fmt: skip
    vars(fit)["sane_rate"] = 0.1
    vars(fit)["curve"] = SimpleNamespace(suggestion=0.1, smoothed=(1.0,))
    found = overfits_a_small_sample(subject)
    assert {len(set(places.tolist())) for places in seen} == {examples}
    assert found.numbers["examples"] == examples
    assert found.verdict == "fail"


def test_a_measurement_sees_every_example() -> None:
    fit = Fitting(small(batch_size=48))
    seen = fit.batches_of(np.arange(50), 2)
    assert fit.measure(fit.state, np.arange(50)).objectives.shape == (2,)
    assert set(seen.ravel().tolist()) == set(range(50))


def rare(split: str, count: int) -> Examples:
    """Digits of which ones, 3 in 100, are to be told from the others."""
    both = digits(split, count)
    ones, others = np.flatnonzero(both.labels == 1), np.flatnonzero(both.labels != 1)
    few = ones[: round(0.03 * len(others))]
    places = np.random.default_rng(0).permutation(np.concatenate([few, others]))
    return Examples(both.images[places], (both.labels[places] == 1).astype(both.labels.dtype))


def test_a_healthy_run_with_a_rare_class_passes() -> None:
    train, validation = rare("train", 1000), rare("validation", 500)
    assert entropy_of(train.labels) == pytest.approx(0.135, abs=0.02)
    parts = {"train": train, "validation": validation, "class_names": ("other", "one")}
    subject = small(**parts, batch_size=32, peak_lr=0.05)
    found = real_labels_beat_shuffled_ones(subject)
    assert found.verdict == "pass", found
    assert "chance: 50 %" in found.expected
    assert overfits_a_small_sample(subject).verdict == "pass"
    assert learning_rate_in_range(subject).verdict == "pass"


def test_classes_take_turns_in_what_is_balanced() -> None:
    labels = np.array([0] * 97 + [1] * 3 + [5] * 10)
    places = balanced(labels, np.arange(100), 40, 0)  # class 5 is not among them
    assert np.bincount(labels[places]).tolist() == [20, 20]
    assert len(set(places[labels[places] == 0].tolist())) == 20
    assert set(places[labels[places] == 1].tolist()) == {97, 98, 99}


def test_optimizers_that_use_the_weights_train_in_plain_trainings() -> None:
    """Clipped by the norms of the weights (Brock et al. 2021): with zeros for weights nothing would move."""

    def clipped(rate):
        return optax.chain(optax.adaptive_grad_clip(0.1), plain_sgd(rate))

    fit = Fitting(subject_with(Chain(norm=True), optimizer=clipped, peak_lr=0.1))
    places = fit.batches_of(np.arange(32), 40)
    found = fit.run(places, np.full(40, 0.1), plain=True)
    assert found.end < found.start - 0.3
    assert jnp.isfinite(found.end)
