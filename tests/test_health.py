"""Figures of layers, steps that are not finite, spikes: what is watched of a run, without a run."""

import functools
import math
from collections import OrderedDict

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcnn.models import BasicBlock, Classifier, NoNorm, ResNet
from jaxcnn.models.taps import tapped, unscanned
from jaxcnn.monitor import Spikes
from jaxcnn.paths import GlobRule, flatten
from jaxcnn.training.health import activation_figures, alarms, first_nonfinite, make_look
from jaxcnn.training.state import create_state
from jaxcnn.training.step import StepOptions, make_chunk, make_step, zero_sums

MODEL = Classifier(ResNet((1, 1), BasicBlock, width=4, stem="small", shortcut="pad"), 3, dropout=0.2)
RNG = np.random.default_rng(0)
IMAGES = jnp.asarray(RNG.integers(0, 256, (6, 8, 8, 2), np.uint8))
LABELS = jnp.asarray(RNG.integers(0, 3, 6).astype(np.int32))


def augment(key: jax.Array, images: jax.Array) -> tuple[jax.Array, None]:
    return images.astype(jnp.float32) / 255 + 0.01 * jax.random.normal(key, images.shape), None


@functools.cache
def variables() -> dict:
    with jax.ensure_compile_time_eval():  # also where the first call is inside a traced function
        return jax.jit(MODEL.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 2)))


def test_taps_see_the_input_of_each_layer_and_change_nothing() -> None:
    x = jnp.asarray(RNG.normal(size=(2, 8, 8, 2)).astype(np.float32))
    seen = jax.jit(lambda x: tapped(MODEL, variables(), x))(x)
    np.testing.assert_array_equal(seen.logits, jax.jit(lambda x: MODEL.apply(variables(), x))(x))
    paths = [f"backbone/stage{stage}/block1/conv{conv}" for stage in (1, 2) for conv in (1, 2)]
    assert list(seen.inputs) == ["backbone/stem/conv", *paths, "head"]
    np.testing.assert_array_equal(seen.inputs["backbone/stem/conv"], x)
    stem = MODEL.clone(features=("stem",)).apply(variables(), x)["stem"]
    np.testing.assert_allclose(seen.inputs[paths[0]], stem, rtol=1e-6)


def test_the_gradient_of_a_shift_is_that_of_the_activation() -> None:
    x = jnp.asarray(RNG.normal(size=(2, 8, 8, 2)).astype(np.float32))

    def loss(shift):
        return jnp.sum(tapped(MODEL, variables(), x, shifts={"head": shift}).logits[:, 0])

    grads = jax.grad(loss)(jnp.zeros((2, 8)))
    np.testing.assert_allclose(grads, jnp.stack([variables()["params"]["head"]["kernel"][:, 0]] * 2), rtol=1e-6)


def test_blocks_in_a_loop_are_looked_into_one_by_one() -> None:
    from jaxcnn.config import ModelConfig
    from jaxcnn.models.registry import build_model

    model = build_model(ModelConfig(name="resnet20", width=4, scan_blocks=True), (8, 8, 2), 3)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 8, 2)))
    seen = jax.eval_shape(lambda v: tapped(unscanned(model), v, jnp.zeros((1, 8, 8, 2))), shapes)
    assert len(seen.inputs) == 20


def look_of(options: StepOptions, rule: GlobRule = GlobRule()):
    optimizer = optax.sgd(0.1, momentum=0.9)
    state = create_state(variables(), rule, optimizer, use_ema=False)
    parts = (MODEL, optimizer, augment, options)
    return make_look(*parts, "relu"), make_step(*parts), state


def test_a_look_has_the_gradient_and_the_update_of_the_step() -> None:
    look, step, state = look_of(StepOptions(seed=3))
    figures = jax.jit(look)(state, IMAGES, LABELS)
    after, sums = jax.jit(step)(state, IMAGES, LABELS)
    assert float(figures["objective"]) == pytest.approx(float(sums["objective"]), rel=1e-5)
    assert float(figures["grad_norm"]) == pytest.approx(float(sums["grad_norm"]), rel=1e-4)
    norms = [float(leaf["grad_norm"]) for leaf in figures["leaves"].values()]
    assert math.sqrt(sum(norm**2 for norm in norms)) == pytest.approx(float(sums["grad_norm"]), rel=1e-4)
    before, now = flatten(state.params), flatten(after.params)
    for path, leaf in figures["leaves"].items():
        norm = np.linalg.norm(before[path])
        assert float(leaf["weight_norm"]) == pytest.approx(norm, rel=1e-5)
        if path.endswith("kernel"):
            moved = np.linalg.norm(now[path] - before[path])
            assert float(leaf["update_ratio"]) == pytest.approx(moved / norm, rel=1e-3)


def test_a_look_at_a_frozen_backbone_has_the_leaves_that_train() -> None:
    look, _, state = look_of(StepOptions(seed=3), GlobRule(("backbone/**",)))
    figures = jax.eval_shape(look, state, IMAGES, LABELS)
    assert set(figures["leaves"]) == {"head/kernel", "head/bias"}
    assert "backbone/stage1/block1/conv1" in figures["layers"]


def test_figures_of_activations_are_those_of_numpy() -> None:
    x = np.maximum(RNG.normal(size=(5, 4, 4, 6)).astype(np.float32), 0)
    x[..., 2] = 0
    figures = activation_figures(jnp.asarray(x), "relu")
    assert float(figures["mean"]) == pytest.approx(x.mean(), rel=1e-5)
    assert float(figures["std"]) == pytest.approx(x.std(), rel=1e-5)
    assert float(figures["dead"]) == pytest.approx(1 / 6)
    y = np.array([0.5, 0.999, 0.001, 0.9], np.float32)[:, None]
    assert float(activation_figures(jnp.asarray(y), "sigmoid")["saturated"]) == 0.5
    assert set(activation_figures(jnp.asarray(y), "gelu")) == {"mean", "std"}


def figures_with(**changes: dict) -> dict:
    """Healthy figures of two layers, with changes by path."""
    layers = {path: {"mean": 0.1, "std": 1.0, "dead": 0.0} for path in ("a", "b")}
    leaves = {f"{path}/kernel": {"grad_norm": 1.0, "weight_norm": 1.0, "update_ratio": 1e-3} for path in layers}
    figures = {
        "layers": layers,
        "leaves": leaves,
        "logits": {"mean": 0.0, "std": 1.0},
        "objective": 2.3,
        "grad_norm": 1.0,
    }
    for path, change in changes.items():
        part = leaves if path.endswith("kernel") else figures if path == "logits" else layers
        part[path] = {**part[path], **change}
    return figures


def test_alarms_name_the_layer_and_the_figure() -> None:
    assert alarms(figures_with()) == {}
    assert "b: 80 % of its inputs are 0" in alarms(figures_with(b={"dead": 0.8}))["dead b"]
    found = alarms(figures_with(**{"a/kernel": {"update_ratio": 0.3}, "b/kernel": {"grad_norm": 0.0}}))
    assert "30 % of its norm" in found["update a/kernel"]
    assert "its gradient is 0" in found["gradient b/kernel"]


def counts_with(**changes: dict[str, int]) -> dict:
    """Figures of a look at two layers in which nothing is not finite but what is said."""
    inputs = OrderedDict(a=0, b=0)
    leaves = {"a/kernel": 0, "b/kernel": 0}
    counts = {"images": 0, "inputs": inputs, "logits": 0, "params": leaves, "grads": leaves}
    for part, change in changes.items():
        counts[part] = type(counts[part])({**counts[part], **change}) if isinstance(change, dict) else change
    return {"nonfinite": counts, "objective": 2.3, "grad_norm": 1.0}


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"params": {"a/kernel": 1}, "inputs": {"b": 9}}, "in the parameter a/kernel"),
        ({"images": 1, "inputs": {"a": 1, "b": 9}}, "in the images"),
        ({"inputs": {"b": 1}, "logits": 3}, "after a"),
        ({"logits": 3}, "in the logits, after b"),
        ({"grads": {"a/kernel": 1, "b/kernel": 1}}, "in the gradient of b/kernel"),
    ],
)
def test_the_first_place_that_is_not_finite_is_named(changes: dict, place: str) -> None:
    assert first_nonfinite(counts_with(**changes)).startswith(place)


def test_of_finite_logits_the_loss_is_named() -> None:
    assert first_nonfinite({**counts_with(), "objective": math.nan}).startswith("in the loss")
    assert first_nonfinite({**counts_with(), "grad_norm": math.inf}).startswith("in the norm of the gradient")


def test_large_finite_values_are_not_taken_for_infinite_ones() -> None:
    look, _, state = look_of(StepOptions(seed=3))
    kernel = state.params["head"]["kernel"]
    params = {**state.params, "head": {**state.params["head"], "kernel": jnp.full_like(kernel, 3e19)}}
    figures = jax.tree.map(float, jax.jit(look)(state.replace(params=params), IMAGES, LABELS))
    assert not math.isfinite(figures["leaves"]["head/kernel"]["weight_norm"])  # its squares overflow
    assert figures["nonfinite"]["params"]["head/kernel"] == 0
    assert "in the parameter" not in first_nonfinite(figures)


class Exploding(nn.Module):
    """A linear network whose loss overflows once its weight has grown."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        return nn.Dense(3, name="head")(x.reshape(x.shape[0], -1))


def test_a_step_that_is_not_finite_leaves_the_state_and_ends_all_chunks() -> None:
    model = Exploding()
    start = model.init(jax.random.key(0), jnp.zeros((1, 4)), train=False)
    optimizer = optax.sgd(0.1)
    state = create_state(start, GlobRule(), optimizer, use_ema=False)
    options = StepOptions(seed=0)
    step = make_step(model, optimizer, lambda key, images: (images, None), options)
    images = jnp.ones((6, 2, 4)).at[3].set(jnp.inf)  # the batch of the fourth step
    labels = jnp.zeros((6, 2), jnp.int32)
    chunk = jax.jit(make_chunk(step, lambda source, item: Pair(*item)))
    none = jax.tree.map(jnp.asarray, zero_sums(step, state, images[0], labels[0]))
    stopped, sums, brief = chunk(state, none, (), (images, labels), np.int32(6))
    before, _, healthy = chunk(state, none, (), (images, labels), np.int32(3))
    assert (int(stopped.step), int(sums["steps"]), int(sums["nonfinite"])) == (3, 4, 1)
    assert int(brief["nonfinite"]) == 1
    assert int(healthy["nonfinite"]) == 0
    jax.tree.map(np.testing.assert_array_equal, stopped, before)
    objectives = np.asarray(brief["trace"]["objective"])
    assert np.isfinite(objectives[:3]).all()
    assert not np.isfinite(objectives[3])
    assert (objectives[4:] == 0).all()
    further, sums, brief = chunk(stopped, sums, (), (images, labels), np.int32(6))  # sent before the first was read
    jax.tree.map(np.testing.assert_array_equal, further, before)
    assert (int(sums["steps"]), int(brief["examples"])) == (4, 0)


class Pair:
    def __init__(self, images: jax.Array, labels: jax.Array):
        self.images, self.labels = images, labels


def test_the_objective_of_accumulated_parts_is_that_of_the_whole() -> None:
    model = Classifier(ResNet((1,), BasicBlock, width=4, stem="small", norm=NoNorm()), 3)
    start = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 2)))
    state = create_state(start, GlobRule(), optax.sgd(0.1), use_ema=False)
    plain = lambda key, images: (images.astype(jnp.float32) / 255, None)  # noqa: E731
    whole, parts = (
        jax.jit(make_step(model, optax.sgd(0.1), plain, StepOptions(0, accumulation=count)))(state, IMAGES, LABELS)[1]
        for count in (1, 3)
    )
    assert float(whole["objective"]) == pytest.approx(float(parts["objective"]), rel=1e-5)
    assert float(whole["objective"]) == pytest.approx(float(whole["loss"]) / 6, rel=1e-5)


def test_a_spike_is_told_once_and_noise_and_descent_are_not() -> None:
    losses = 2.3 * np.exp(-np.arange(300) / 100) + np.random.default_rng(0).normal(0, 0.1, 300)
    assert Spikes(3.0).found(losses) == []
    losses[200:203] = 9.0
    ((place, (loss, expected)),) = Spikes(3.0).found(losses)
    assert (place, loss) == (200, 9.0)
    assert expected == pytest.approx(np.median(losses[100:200]))


def test_spikes_do_not_depend_on_how_steps_come() -> None:
    losses = np.ones(120)
    losses[[60, 90]] = 5.0
    whole, parts = Spikes(3.0), Spikes(3.0)
    found = [first + place for first in range(0, 120, 7) for place, _ in parts.found(losses[first : first + 7])]
    assert [place for place, _ in whole.found(losses)] == found == [60, 90]
