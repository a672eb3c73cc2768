"""What makes short trainings affordable changes nothing that they measure."""

import dataclasses

import jax
import numpy as np
import optax
import pytest

from jaxcnn.config import ModelConfig
from jaxcnn.models.registry import build_model
from jaxcnn.paths import GlobRule
from jaxcnn.tuning import affordable as module
from jaxcnn.tuning.affordable import affordable, frozen_point, multiply_adds
from jaxcnn.tuning.fitting import Fitting
from jaxcnn.tuning.subject import Subject
from tests.tuning_subjects import SHAPE, Chain, drawn, healthy, subject_with


def frozen(*patterns: str) -> Subject:
    """A ResNet-8 of which a part is frozen, in the norms too."""
    rule = GlobRule(patterns)
    model = build_model(ModelConfig(name="resnet8", width=4), SHAPE, 10, rule)
    return dataclasses.replace(healthy(), model=model, variables=drawn(model), frozen=rule)


@pytest.mark.parametrize(
    ("patterns", "point"),
    [
        (("backbone/**",), "stage3"),
        (("backbone/stem/**", "backbone/stage1/**"), "stage1"),
        (("backbone/**", "!backbone/stage1/**"), "stem"),
        (("backbone/stage1/**",), None),
        (("backbone/**", "!**/norm*/*"), None),
    ],
)
def test_training_begins_after_the_last_part_before_which_nothing_moves(patterns, point) -> None:
    assert frozen_point(frozen(*patterns)) == point


def test_what_is_not_ours_or_not_frozen_has_no_such_part() -> None:
    assert frozen_point(healthy()) is None
    assert frozen_point(subject_with(Chain(), frozen=GlobRule(("conv*/**",)))) is None


def test_the_first_loss_from_features_is_that_of_the_network_on_images() -> None:
    subject = frozen("backbone/**")
    cheap = affordable(subject)
    assert cheap.model.start == "stage3"
    assert cheap.train.images.shape[1:] == (4, 4, 16)
    fit = Fitting(subject)
    assert set(fit.state.params) == {"head"}
    logits = subject.model.apply(subject.variables, subject.normalise(subject.train.images[:64]), train=False)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, subject.train.labels[:64])
    assert fit.measure(fit.state, np.arange(64)).loss == pytest.approx(float(losses.mean()), rel=1e-4)


def test_few_examples_pass_through_a_large_frozen_part_on_cpu(monkeypatch) -> None:
    monkeypatch.setattr(module, "PASS_FLOP", 0.0)
    cheap = affordable(frozen("backbone/**"))
    assert len(cheap.train) + len(cheap.validation) == module.LEAST_EXAMPLES
    assert len(cheap.train) > len(cheap.validation) > 0


def test_the_batch_is_halved_while_a_step_takes_too_much(monkeypatch) -> None:
    subject = subject_with(Chain())
    flop = 6 * multiply_adds(subject)
    for most, size in ((100, 64), (40, 32), (1, 16)):
        monkeypatch.setattr(module, "STEP_FLOP", most * flop)
        assert affordable(subject).batch_size == size
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert affordable(subject).batch_size == 64


def test_multiply_adds_of_a_chain_are_those_of_its_layers() -> None:
    subject = subject_with(Chain())
    first, second, third = 14 * 14 * 9 * 1 * 8, 7 * 7 * 9 * 8 * 8, 7 * 7 * 9 * 8 * 8
    assert multiply_adds(subject) == first + second + third + 8 * 10
