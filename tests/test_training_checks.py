"""Checks that train: a healthy subject passes, each planted fault is found by the check that is for it."""

import dataclasses
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcnn.augment.mixing import Mix
from jaxcnn.config import AffineConfig, AugmentConfig, ModelConfig, PadCropConfig
from jaxcnn.models.registry import build_model
from jaxcnn.paths import GlobRule
from jaxcnn.training.losses import target_losses
from jaxcnn.tuning.fitting import LEARN_STEPS, WARMUP_STEPS, Fitting, fitting_of, ramp
from jaxcnn.tuning.subject import Examples, Subject
from jaxcnn.tuning.training_checks import (
    compute_type_agrees,
    learning_rate_in_range,
    least_loss,
    overfits_a_small_sample,
    real_labels_beat_shuffled_ones,
)
from tests.tuning_subjects import SHAPE, Chain, augmented_by, drawn, healthy, plain_sgd, subject_with

CHECKS = (
    learning_rate_in_range,
    overfits_a_small_sample,
    real_labels_beat_shuffled_ones,
    compute_type_agrees,
)


SHIFTS = AugmentConfig(PadCropConfig(1.0, 4), AffineConfig(0.0))


@pytest.fixture(scope="module")
def subject() -> Subject:
    """Of this file alone, so that its trainings are shared here and not kept beyond."""
    return dataclasses.replace(healthy())


@pytest.fixture(scope="module")
def chain() -> Subject:
    """A network that is not of this package, which compiles in a second."""
    augment = augmented_by(SHIFTS).augment  # without the warp, which takes long to compile
    return subject_with(Chain(norm=True, dropout=0.5), optimizer=plain_sgd, augment=augment)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_healthy_subject_passes(check, subject) -> None:
    found = check(subject)
    assert found.verdict == "pass", found
    assert found.advice == ""
    assert found.seconds > 0
    json.dumps(dataclasses.asdict(found), allow_nan=False)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 5))
def test_a_healthy_subject_passes_from_other_seeds(seed) -> None:
    model = build_model(ModelConfig(name="resnet8", width=8), SHAPE, 10)
    subject = dataclasses.replace(healthy(), variables=drawn(model, seed), seed=seed)
    assert {check.__name__: check(subject).verdict for check in CHECKS} == dict.fromkeys(
        (check.__name__ for check in CHECKS), "pass"
    )


@pytest.mark.slow
def test_labels_shuffled_against_images_are_found(subject) -> None:
    rng = np.random.default_rng(7)
    parts = {
        name: Examples(part.images, rng.permutation(part.labels))
        for name, part in {"train": subject.train, "validation": subject.validation}.items()
    }
    found = real_labels_beat_shuffled_ones(dataclasses.replace(subject, **parts))
    assert found.verdict == "fail"
    assert found.numbers["real"] > 0.95 * found.numbers["entropy"]


@pytest.mark.parametrize(("factor", "side"), [(100.0, "lower"), (1e-3, "raise")])
def test_a_learning_rate_far_off_is_found_and_which_way_told(subject, factor, side) -> None:
    off = dataclasses.replace(subject, peak_lr=factor * subject.peak_lr)
    vars(off)["_fitting"] = _sharing(subject, off)
    found = learning_rate_in_range(off)
    assert found.verdict == "fail"
    assert f"{side} optim.peak_lr" in found.advice
    json.dumps(dataclasses.asdict(found), allow_nan=False)


def _sharing(subject: Subject, off: Subject) -> Fitting:
    """The trainings of a subject for one that differs by its planned rate alone, which is in no program."""
    shared = Fitting.__new__(Fitting)
    vars(shared).update(vars(fitting_of(subject)))
    shared.subject = off
    return shared


def test_softmax_before_the_loss_is_found(subject) -> None:
    twice = dataclasses.replace(subject, loss=lambda logits, targets: target_losses(jax.nn.softmax(logits), targets))
    found = overfits_a_small_sample(twice)
    assert found.verdict == "fail"
    # The least that softmax in front of cross-entropy allows with 10 classes: logits 1 and 0.
    assert found.numbers["excess_loss"] > math.log(math.e + 9) - 1 - 0.01


@pytest.mark.slow
def test_label_smoothing_is_no_reason_to_fail(chain) -> None:
    smoothed = dataclasses.replace(
        chain,
        model=Chain(norm=True, width=16),
        variables=drawn(Chain(norm=True, width=16)),
        loss=lambda logits, targets: target_losses(logits, targets, 0.1),
        label_smoothing=0.1,
    )
    found = overfits_a_small_sample(smoothed)
    assert found.verdict == "pass", found
    assert found.numbers["floor"] > 0.4


def test_the_least_smoothed_loss_is_what_an_optimizer_finds() -> None:
    best = jnp.log(jnp.asarray([0.91, *[0.01] * 9]))
    direct = -(0.91 * best[0] + 0.01 * best[1:].sum())
    assert least_loss(0.1, 10) == pytest.approx(float(direct), rel=1e-5)
    assert least_loss(0.0, 10) == 0


def test_plain_training_has_no_augmentation_or_dropout(chain) -> None:
    """Steps on one batch: with none of these a second training has the same losses, whatever the draws."""
    losses = []
    for seed, dropout in ((0, 0.0), (1, 0.9)):
        changed = dataclasses.replace(
            chain,
            model=Chain(norm=True, dropout=dropout),
            seed=seed,
        )
        fit = Fitting(changed)
        places = np.tile(np.arange(fit.batch_size), (6, 1))
        losses.append(fit.run(places, np.full(6, 0.1), plain=True).objectives)
        assert not np.allclose(fit.run(places, np.full(6, 0.1)).objectives, losses[-1], rtol=1e-3)
    np.testing.assert_allclose(*losses, rtol=1e-4)


def test_plain_training_mixes_nothing(chain) -> None:
    def mixed(key, images):
        return chain.normalise(images), Mix(jnp.arange(len(images))[::-1], jnp.full(len(images), 0.5))

    places, rates = np.arange(chain.batch_size)[None], np.zeros(1)
    half = Fitting(dataclasses.replace(chain, augment=mixed))
    none = Fitting(dataclasses.replace(chain, augment=lambda key, images: (chain.normalise(images), None)))
    expected = none.run(places, rates, plain=True).objectives
    np.testing.assert_allclose(half.run(places, rates, plain=True).objectives, expected, rtol=1e-5)
    assert not np.allclose(half.run(places, rates).objectives, none.run(places, rates).objectives, rtol=1e-3)


def test_a_step_at_rate_0_measures_and_changes_no_weight(chain) -> None:
    fit = fitting_of(chain)
    found = fit.measure(fit.state, np.arange(40))
    logits, _ = chain.model.clone(dropout=0.0).apply(
        chain.variables, chain.normalise(chain.train.images[np.resize(np.arange(40), 64)]), train=True,
        mutable=["batch_stats"], rngs={"dropout": jax.random.key(0)},
    )  # fmt: skip
    labels = chain.train.labels[np.resize(np.arange(40), 64)]
    assert found.loss == pytest.approx(float(jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))))
    assert found.top1 == pytest.approx(float(np.mean(np.argmax(logits, -1) == labels)))
    for before, after in zip(jax.tree.leaves(fit.state.params), jax.tree.leaves(found.state.params), strict=True):
        np.testing.assert_array_equal(before, after)


def test_the_subject_is_not_changed_by_its_trainings(chain) -> None:
    before = [np.array(leaf) for leaf in jax.tree.leaves(chain.variables)]
    fitting_of(chain).learn(0.1)
    for old, new in zip(before, jax.tree.leaves(chain.variables), strict=True):
        np.testing.assert_array_equal(old, new)


def test_what_is_frozen_stays_in_short_trainings(chain) -> None:
    fit = Fitting(dataclasses.replace(chain, frozen=GlobRule(("conv*/**", "norm*/**"))))
    found = fit.run(fit.order(5), np.full(5, 0.1))
    assert set(found.state.params) == {"head"}
    assert found.objectives[-1] != found.objectives[0]


def test_a_training_that_is_not_finite_says_so_and_keeps_its_last_state(chain) -> None:
    broken = dataclasses.replace(
        chain, loss=lambda logits, targets: target_losses(logits, targets) - jnp.log(0 * logits[:, 0])
    )
    fit = Fitting(broken)
    found = fit.run(fit.order(3), np.full(3, 0.1))
    assert not found.finite
    assert len(found.objectives) == 1
    assert int(found.state.step) == 0
    for check in CHECKS:
        found = check(broken)
        assert found.verdict == "fail", found
        json.dumps(dataclasses.asdict(found), allow_nan=False)


def test_compute_types_are_held_against_each_other(chain) -> None:
    same = dataclasses.replace(chain, reference_model=chain.model)
    found = compute_type_agrees(same)
    assert found.verdict == "pass"
    assert found.numbers["cosine"] == pytest.approx(1.0)
    other = Chain(norm=True, dropout=0.5, after=lambda logits: jnp.round(logits * 2) / 2 + 0.3 * logits)
    assert compute_type_agrees(dataclasses.replace(chain, reference_model=other)).verdict == "warn"


def test_the_short_schedule_warms_up_holds_and_cools_down() -> None:
    shape = ramp(LEARN_STEPS)
    np.testing.assert_allclose(shape[:WARMUP_STEPS], np.arange(1, WARMUP_STEPS + 1) / WARMUP_STEPS)
    assert (shape[WARMUP_STEPS : 2 * LEARN_STEPS // 3] == 1).all()
    assert (np.diff(shape[2 * LEARN_STEPS // 3 :]) < 0).all()
    assert 0 < shape[-1] < 0.1


def test_many_hits_do_where_the_head_is_too_sure_for_a_low_loss() -> None:
    from jaxcnn.tuning.weighing import beats_largest

    labels = np.repeat(np.arange(4), (100, 40, 40, 20))  # the largest class is half of them: 3.5 % by chance
    assert beats_largest(0.65, 0.5, labels)
    assert not beats_largest(0.58, 0.3, labels)
    assert not beats_largest(0.65, 0.62, labels)
