"""Planted faults of what flows through a network, and the check that finds each."""

import dataclasses
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcnn.config import ModelConfig
from jaxcnn.models.registry import build_model
from jaxcnn.paths import GlobRule, flatten
from jaxcnn.tuning import signal_checks as checks
from jaxcnn.tuning.findings import Finding
from jaxcnn.tuning.passes import batch_of, some
from jaxcnn.tuning.subject import Subject
from tests.tuning_subjects import SHAPE, Chain, healthy, plain_sgd, subject_with

ALL = [checks.signal_and_gradient, checks.dropout_leaves_signal, checks.something_trains]


def resnet(**fields: object) -> nn.Module:
    return build_model(ModelConfig(name="resnet8", width=8, **fields), SHAPE, 10)  # type: ignore[arg-type]


@pytest.mark.parametrize("check", ALL, ids=lambda check: check.__name__)
def test_a_healthy_subject_passes(check: Callable[[Subject], Finding]) -> None:
    found = check(healthy())
    assert found.verdict in ("pass", "skip"), found


@pytest.mark.parametrize(
    "fields",
    [{"norm": "group", "num_groups": 4}, {"activation": "gelu"}, {"zero_last_scale": True}, {"norm": "none"}],
    ids=str,
)
def test_other_healthy_networks_pass(fields: dict) -> None:
    subject = subject_with(resnet(**fields), activation=fields.get("activation", "relu"))
    found = checks.signal_and_gradient(subject)
    assert found.verdict == "pass", found


@pytest.mark.parametrize(("parts_of", "batch_size"), [(64, 128), (24, 96)])
def test_ghost_batch_norm_gets_batches_that_it_takes(parts_of: int, batch_size: int) -> None:
    model = resnet(virtual_batch_size=parts_of, dropout=0.1)
    subject = dataclasses.replace(subject_with(model), batch_size=batch_size)
    for check in ALL:
        found = check(subject)
        assert found.verdict == "pass", found
    assert {len(batch_of(subject, count)) % parts_of for count in (16, 32, 64)} == {0}
    assert len(batch_of(healthy(), 32)) == 32


def test_the_profile_is_what_numpy_and_a_closed_form_say() -> None:
    """Of a network of one dense layer: the signal is the deviation of its input, the gradient W (p - y)."""

    class Dense(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
            return nn.Dense(10, name="head")(x.reshape(len(x), -1))

    subject = subject_with(Dense(), optimizer=optax.sgd)
    found = checks.profile(subject)
    batch = some(subject, 32)
    x = np.asarray(subject.normalise(batch.images), np.float64).reshape(len(batch), -1)
    kernel = np.asarray(subject.variables["params"]["head"]["kernel"], np.float64)
    logits = x @ kernel
    wrong = np.exp(logits) / np.exp(logits).sum(1, keepdims=True) - np.eye(10)[batch.labels]
    assert found.signal["head"] == pytest.approx(np.sqrt(x.var(0).mean()), rel=1e-4)
    assert found.gradient["head"] == pytest.approx(np.sqrt(np.mean(np.sum((wrong @ kernel.T) ** 2, 1))), rel=1e-4)
    step = subject.peak_lr * x.T @ wrong / len(x)
    assert found.update["head"] == pytest.approx(np.linalg.norm(step) / np.linalg.norm(kernel), rel=1e-4)
    assert found.gain["head"] == pytest.approx(np.sqrt(np.mean(kernel**2) * len(kernel)))


def test_a_sigmoid_network_of_20_layers_vanishes() -> None:
    model = Chain(depth=20, activation=nn.sigmoid, kernel_init=nn.initializers.xavier_normal())
    found = checks.signal_and_gradient(subject_with(model, activation="sigmoid"))
    assert found.verdict == "fail"
    assert "vanishes" in found.advice
    assert found.numbers["gradient_first_to_last"] < 1e-4
    assert len(found.curves["signal"]) == 21


@pytest.mark.parametrize(("std", "said"), [(1.0, "grows"), (1e-4, "vanishes")])
def test_kernels_of_the_wrong_size_are_found_without_a_norm(std: float, said: str) -> None:
    found = checks.signal_and_gradient(subject_with(resnet(norm="none", init="normal", init_std=std)))
    assert found.verdict == "fail", found
    assert said in found.advice


@pytest.mark.parametrize(("std", "said"), [(1.0, "start too large"), (1e-4, "start too small")])
def test_kernels_of_the_wrong_size_are_found_behind_batch_norm(std: float, said: str) -> None:
    found = checks.signal_and_gradient(subject_with(resnet(init="normal", init_std=std)))
    assert found.verdict == "fail", found
    assert said in found.advice


def test_dead_units_are_found() -> None:
    subject = subject_with(Chain())
    params = subject.variables["params"]
    params = {**params, "conv02": {**params["conv02"], "bias": jnp.full(8, -100.0)}}
    found = checks.signal_and_gradient(dataclasses.replace(subject, variables={**subject.variables, "params": params}))
    assert found.verdict == "fail"
    assert found.numbers["dead"] == 1


def test_saturated_units_are_found() -> None:
    model = Chain(activation=nn.tanh, kernel_init=nn.initializers.normal(3.0))
    found = checks.signal_and_gradient(subject_with(model, activation="tanh"))
    assert found.verdict == "fail"
    assert "bounds" in found.advice


@pytest.mark.parametrize(("rate", "verdict"), [(0.5, "pass"), (0.8, "warn"), (0.99, "fail")])
def test_dropout_is_told_by_what_it_leaves(rate: float, verdict: str) -> None:
    found = checks.dropout_leaves_signal(subject_with(Chain(dropout=rate, width=32)))
    assert found.verdict == verdict
    assert found.numbers["dropped"] == pytest.approx(rate, abs=0.05)
    assert found.numbers["layer"] == "head"


def test_dropout_inside_blocks_is_found() -> None:
    assert checks.dropout_leaves_signal(subject_with(resnet(block_dropout=0.99))).verdict == "fail"


def test_what_is_frozen_by_mistake_is_found() -> None:
    subject = dataclasses.replace(healthy(), frozen=GlobRule(("backbone/**",)))
    found = checks.something_trains(subject)
    head = sum(leaf.size for path, leaf in flatten(subject.variables["params"]).items() if path.startswith("head"))
    assert found.verdict == "fail"
    assert found.numbers["trainable"] == head
    assert checks.something_trains(dataclasses.replace(subject, pretrained=True)).verdict == "pass"


def test_an_optimizer_that_moves_nothing_is_found() -> None:
    subject = dataclasses.replace(healthy(), optimizer=lambda schedule: optax.set_to_zero())
    found = checks.something_trains(subject)
    assert found.verdict == "fail"
    assert found.numbers["trainable"] == 0


def test_a_gradient_that_is_stopped_is_found() -> None:
    found = checks.something_trains(subject_with(Chain(mix=jax.lax.stop_gradient), optimizer=plain_sgd))
    assert found.verdict == "fail"
    assert found.numbers["trainable"] == 90


def test_zeros_to_start_with_do_not_count_as_frozen() -> None:
    subject = subject_with(resnet(zero_last_scale=True))
    params = subject.variables["params"]
    params = {**params, "head": jax.tree.map(jnp.zeros_like, params["head"])}
    found = checks.something_trains(dataclasses.replace(subject, variables={**subject.variables, "params": params}))
    assert found.verdict == "pass", found
