"""The checks find planted faults, and a healthy subject passes them all."""

import dataclasses
from collections import defaultdict

import flax.linen as nn
import jax
import numpy as np
import pytest

from jaxcnn.config import ModelConfig, OptimConfig
from jaxcnn.errors import InputError
from jaxcnn.models.registry import build_model
from jaxcnn.models.taps import tapped
from jaxcnn.paths import GlobRule, flatten
from jaxcnn.training.learning_rates import factors_of
from jaxcnn.training.optim import make_optimizer
from jaxcnn.training.partition import partition_variables
from jaxcnn.tuning import preflight
from jaxcnn.tuning.faults import FAULTS, changed, planted
from jaxcnn.tuning.subject import Subject
from tests.tuning_subjects import SHAPE, healthy

BY_NAME = {check.__name__: check for check in preflight.CHECKS}


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found(name: str) -> None:
    subject = planted(healthy(), name)
    for check in FAULTS[name].found_by:
        found = BY_NAME[check](subject)
        assert found.verdict == "fail", found
        assert found.advice


def test_a_healthy_subject_passes_all_checks() -> None:
    findings = list(preflight.preflight(healthy()))
    assert [one.check for one in findings] == [name.replace("_", " ") for name in BY_NAME]
    assert len(findings) == len(preflight.CHECKS)
    assert {one.verdict for one in findings} <= {"pass", "skip"}, [one for one in findings if one.verdict != "pass"]


def test_a_check_that_cannot_be_carried_out_fails_in_words() -> None:
    def broken(logits, targets):
        raise TypeError("unsupported operand")

    findings = list(preflight.preflight(dataclasses.replace(healthy(), loss=broken)))
    failed = [one for one in findings if one.verdict == "fail"]
    assert any("TypeError: unsupported operand" in one.figure for one in failed)


@pytest.fixture(scope="module")
def transferred() -> Subject:
    """Pretrained, narrow, in part frozen, with a learning rate for each depth, and blocks in a loop."""
    subject = healthy()
    wide = build_model(ModelConfig(name="resnet8", width=8), SHAPE, 10)
    narrow = build_model(ModelConfig(name="resnet8", width=8, dtype="bfloat16", scan_blocks=True), SHAPE, 10)
    factors = defaultdict(lambda: 1.0, factors_of(subject.variables["params"], wide.part_paths, 0.5, ()))
    assert min(factors.values()) < 1
    return dataclasses.replace(
        subject, model=narrow, reference_model=wide, pretrained=True, frozen=GlobRule(("backbone/stem/**",)),
        optimizer=lambda schedule: make_optimizer(OptimConfig(), schedule, factors),
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_subject_is_one_of_a_piece(transferred: Subject, name: str) -> None:
    """Reference, variables, frozen paths and pretrained belong to the network that is planted."""
    subject = planted(transferred, name)
    x = subject.normalise(subject.train.images[:4])

    def shapes(model: nn.Module) -> dict:
        variables = jax.eval_shape(model.init, jax.random.key(0), x)
        return {path: leaf.shape for path, leaf in flatten(variables).items()}

    held = {path: leaf.shape for path, leaf in flatten(subject.variables).items()}
    assert shapes(subject.model) == held
    if subject.reference_model is not None:
        assert shapes(subject.reference_model) == held
        narrow, exact = (
            model.apply(subject.variables, x, train=True, mutable=["batch_stats"])[0]
            for model in (subject.model, subject.reference_model)
        )
        np.testing.assert_allclose(narrow, exact, atol=0.1)
    partition_variables(subject.variables, subject.frozen)  # raises for globs without a path
    drawn = subject.variables is not transferred.variables
    assert subject.pretrained != drawn
    if subject.model is transferred.model or not drawn:
        assert subject.optimizer is transferred.optimizer
        assert subject.frozen == transferred.frozen or name == "frozen"


def test_a_changed_network_keeps_the_paths_of_its_layers() -> None:
    subject = healthy()
    x = subject.normalise(subject.train.images[:2])
    twice = changed(subject.model, after=lambda logits: 2 * logits)
    one, other = (tapped(model, subject.variables, x) for model in (subject.model, twice))
    assert list(one.inputs) == list(other.inputs)
    np.testing.assert_array_equal(2 * one.logits, other.logits)


def test_an_unknown_fault_is_an_error() -> None:
    with pytest.raises(InputError, match="did you mean 'overlap'"):
        planted(healthy(), "overlapp")
