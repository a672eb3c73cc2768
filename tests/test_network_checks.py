"""Planted faults of a network or its loss, and the check that finds each."""

import dataclasses
import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.config import ModelConfig
from jaxcnn.models.registry import build_model
from jaxcnn.training.losses import Targets, target_losses
from jaxcnn.tuning import network_checks as checks
from jaxcnn.tuning.findings import Finding
from jaxcnn.tuning.subject import Examples, Subject
from tests.tuning_subjects import SHAPE, Chain, healthy, subject_with

ALL = [
    checks.initial_loss,
    checks.network_outputs,
    checks.every_pixel_counts,
    checks.examples_are_independent,
    checks.blank_input,
]


@pytest.mark.parametrize("check", ALL, ids=lambda check: check.__name__)
def test_a_healthy_subject_passes(check: Callable[[Subject], Finding]) -> None:
    found = check(healthy())
    assert (found.verdict, found.advice) == ("pass", ""), found


@pytest.mark.parametrize("check", ALL, ids=lambda check: check.__name__)
def test_a_network_of_other_modules_passes_without_a_norm(check: Callable[[Subject], Finding]) -> None:
    found = check(subject_with(Chain()))
    assert found.verdict == "pass", found


@pytest.mark.parametrize("start", ["zero", "prior"])
@pytest.mark.parametrize("check", ALL, ids=lambda check: check.__name__)
def test_a_head_that_starts_at_zero_passes(check: Callable[[Subject], Finding], start: str) -> None:
    subject = healthy()
    shares = np.bincount(subject.train.labels, minlength=10) / len(subject.train)
    bias = jnp.log(jnp.asarray(shares)) if start == "prior" else jnp.zeros(10)
    head = {"kernel": jnp.zeros_like(subject.variables["params"]["head"]["kernel"]), "bias": bias}
    params = {**subject.variables["params"], "head": head}
    subject = dataclasses.replace(subject, variables={**subject.variables, "params": params})
    found = check(subject)
    assert found.verdict == "pass", found


def test_the_initial_loss_of_uniform_outputs_is_ln_k_with_any_smoothing() -> None:
    model = Chain(after=lambda x: 0 * x)
    for smoothing in (0.0, 0.3):
        loss = lambda logits, targets, s=smoothing: target_losses(logits, targets, s)  # noqa: E731
        found = checks.initial_loss(subject_with(model, loss=loss, label_smoothing=smoothing))
        assert found.numbers["loss"] == pytest.approx(math.log(10), rel=1e-5)
        assert found.verdict == "pass"


def test_the_initial_loss_may_be_the_entropy_of_rare_classes() -> None:
    subject = healthy()
    ones, others = np.flatnonzero(subject.train.labels == 1), np.flatnonzero(subject.train.labels != 1)
    few = subject.train.take(np.concatenate([ones, others[:5]]))
    shares = np.bincount(few.labels, minlength=10) / len(few)
    found = checks.initial_loss(dataclasses.replace(subject, train=few))
    assert found.numbers["prior"] == pytest.approx(-sum(p * math.log(p) for p in shares if p))


def test_a_loss_averaged_twice_is_found() -> None:
    loss = lambda logits, targets: target_losses(logits, targets) / len(logits)  # noqa: E731
    subject = dataclasses.replace(healthy(), loss=loss)
    assert checks.initial_loss(subject).verdict == "fail"
    assert checks.network_outputs(subject).verdict == "fail"


def cross_entropy(logits: jax.Array, targets: Targets) -> jax.Array:
    return target_losses(logits, targets)


def focal(logits: jax.Array, targets: Targets, gamma: float = 2.0, alpha: float = 1.0) -> jax.Array:
    """Lin et al. 2017, equation 5."""
    loss = cross_entropy(logits, targets)
    return alpha * (1 - jnp.exp(-loss)) ** gamma * loss


def summed_binary(logits: jax.Array, targets: Targets) -> jax.Array:
    """A sigmoid for each class, summed over them: K ln 2 for equal logits."""
    yes = jax.nn.one_hot(targets.labels, logits.shape[-1])
    return jnp.sum(jax.nn.softplus(logits) - yes * logits, axis=-1)


OTHER_LOSSES = {
    "focal": (focal, 0.9**2 * math.log(10)),
    "focal, weighed": (lambda *given: focal(*given, alpha=0.25), 0.25 * 0.9**2 * math.log(10)),
    "binary": (summed_binary, 10 * math.log(2)),
}


@pytest.mark.parametrize("name", OTHER_LOSSES)
def test_another_loss_is_held_against_its_own_value_of_equal_logits(name: str) -> None:
    loss, equal = OTHER_LOSSES[name]
    subject = dataclasses.replace(healthy(), loss=loss)
    found = checks.initial_loss(subject)
    assert (found.verdict, found.numbers["equal"]) == ("warn", pytest.approx(equal, rel=1e-4)), found
    assert "equal logits" in found.advice
    assert checks.network_outputs(subject).verdict != "fail"
    sure = dataclasses.replace(subject_with(Chain(after=lambda x: 300 * x)), loss=loss)
    assert checks.initial_loss(sure).verdict == "fail"


def test_labels_that_leak_are_found_under_another_loss_too() -> None:
    """The network's outputs are right by 20 for a loss that sees the labels, and equal logits cost what they do."""
    for own in (cross_entropy, focal):
        loss = lambda logits, targets, own=own: own(20 * jax.nn.one_hot(targets.labels, 10) + 0 * logits, targets)  # noqa: E731
        flat = lambda logits, targets, loss=loss, own=own: jnp.where(  # noqa: E731
            jnp.any(logits != 0, axis=-1), loss(logits, targets), own(0 * logits, targets)
        )
        found = checks.initial_loss(dataclasses.replace(healthy(), loss=flat))
        assert found.verdict == "fail"
        assert "labels" in found.advice


@pytest.mark.parametrize("own", [cross_entropy, focal, summed_binary])
@pytest.mark.parametrize(("power", "said"), [(1, "summed"), (-1, "twice")])
def test_a_loss_that_goes_with_the_batch_size_is_found_and_told(own: Callable, power: int, said: str) -> None:
    loss = lambda logits, targets: own(logits, targets) * float(len(logits)) ** power  # noqa: E731
    found = checks.initial_loss(dataclasses.replace(healthy(), loss=loss))
    assert found.verdict == "fail"
    assert said in found.advice


@pytest.mark.parametrize(("power", "said"), [(1, "summed"), (-1, "twice")])
def test_a_loss_times_or_over_the_planned_batch_size_is_found(power: int, said: str) -> None:
    loss = lambda logits, targets: cross_entropy(logits, targets) * 24.0**power  # noqa: E731
    found = checks.initial_loss(dataclasses.replace(healthy(), loss=loss, batch_size=24))
    assert found.verdict == "fail"
    assert said in found.advice


def test_focal_loss_of_two_classes_is_not_one_that_is_averaged_twice() -> None:
    """Equal logits of it cost ln 2 / 32, and a batch has 32 examples."""
    labels = healthy().train.labels % 2
    subject = subject_with(
        Chain(num_classes=2, after=lambda x: 0 * x), loss=lambda *given: focal(*given, gamma=5.0), batch_size=32,
        train=Examples(healthy().train.images, labels), class_names=("even", "odd"),
    )  # fmt: skip
    assert checks.initial_loss(subject).verdict == "warn"


def test_kernels_of_deviation_one_are_found_by_the_initial_loss() -> None:
    config = ModelConfig(name="resnet8", width=8, norm="none", init="normal", init_std=1.0)
    assert checks.initial_loss(subject_with(build_model(config, SHAPE, 10))).verdict == "fail"


@pytest.mark.parametrize(("after", "said"), [(nn.softmax, "softmax"), (nn.relu, "activation"), (nn.sigmoid, "sigmoid")])
def test_an_activation_after_the_last_layer_is_found(after: Callable, said: str) -> None:
    found = checks.network_outputs(subject_with(Chain(after=after)))
    assert found.verdict == "fail"
    assert said in found.advice


def test_a_softmax_inside_the_loss_is_found() -> None:
    loss = lambda logits, targets: target_losses(jax.nn.softmax(logits), targets)  # noqa: E731
    found = checks.network_outputs(dataclasses.replace(healthy(), loss=loss))
    assert found.verdict == "fail"
    assert found.numbers["loss_if_right"] == pytest.approx(math.log(math.e + 9) - 1, abs=1e-3)


def test_a_loss_with_the_wrong_sign_is_found() -> None:
    loss = lambda logits, targets: -target_losses(logits, targets)  # noqa: E731
    assert "sign" in checks.network_outputs(dataclasses.replace(healthy(), loss=loss)).advice


def test_log_probabilities_as_outputs_are_no_fault() -> None:
    assert checks.network_outputs(subject_with(Chain(after=nn.log_softmax))).verdict == "pass"


def test_weights_of_classes_are_no_fault_of_the_loss() -> None:
    subject = healthy()
    counts = np.bincount(subject.train.labels, minlength=10)
    weights = tuple((len(subject.train) / (10 * counts)).tolist())
    loss = lambda logits, targets: target_losses(logits, targets, 0.1, weights)  # noqa: E731
    found = checks.network_outputs(dataclasses.replace(subject, loss=loss, label_smoothing=0.1))
    assert found.verdict == "pass", found


def test_outputs_that_are_not_finite_are_found() -> None:
    assert checks.network_outputs(subject_with(Chain(after=lambda x: x / 0.0))).verdict == "fail"


class Half(nn.Module):
    """Sees the upper half of the image alone."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        return Chain()(x[:, :7], train=train)


@pytest.mark.parametrize("check", [checks.every_pixel_counts, checks.examples_are_independent])
def test_a_gradient_that_is_not_finite_fails_in_words(check: Callable[[Subject], Finding]) -> None:
    found = check(subject_with(Chain(mix=lambda x: jnp.sqrt(x - x))))  # 0, with a slope that is infinite
    assert found.verdict == "fail"
    assert "not finite" in found.figure
    assert "NaN" in found.advice


def test_a_part_of_the_image_that_is_not_read_is_found() -> None:
    found = checks.every_pixel_counts(subject_with(Half()))
    assert found.verdict == "fail"
    assert found.numbers["share"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    "mix",
    [lambda x: x - x.mean(0), lambda x: nn.softmax(x, axis=0), lambda x: x[::-1]],
    ids=["mean", "softmax", "order"],
)
def test_a_module_that_mixes_over_the_batch_is_found(mix: Callable) -> None:
    found = checks.examples_are_independent(subject_with(Chain(mix=mix)))
    assert found.verdict == "fail"
    assert found.numbers["evaluation"] > 0


@pytest.mark.parametrize("norm", ["layer", "instance", "group"])
def test_norms_of_one_image_keep_examples_apart_in_training_too(norm: str) -> None:
    model = build_model(ModelConfig(name="resnet8", width=8, norm=norm, num_groups=4), SHAPE, 10)  # type: ignore[arg-type]
    found = checks.examples_are_independent(subject_with(model))
    assert found.verdict == "pass"
    assert found.numbers == {"evaluation": 0, "training": 0}


def test_a_network_that_does_not_look_is_found() -> None:
    found = checks.blank_input(subject_with(Chain(depth=20, activation=nn.sigmoid, width=4)))
    assert found.verdict == "fail"


def test_the_baseline_of_blank_images_is_the_entropy_of_the_classes() -> None:
    shares = np.bincount(healthy().train.labels) / len(healthy().train)
    found = checks.blank_input(healthy())
    assert found.numbers["loss"] == pytest.approx(float(-np.sum(shares * np.log(shares))))
    assert found.numbers["top1"] == pytest.approx(shares.max())


def test_the_loss_is_called_with_targets_as_in_a_step() -> None:
    seen: list[type] = []

    def loss(logits: jax.Array, targets: Targets) -> jax.Array:
        seen.append(type(targets))
        return target_losses(logits, targets)

    checks.initial_loss(dataclasses.replace(healthy(), loss=loss))
    assert set(seen) == {Targets}
