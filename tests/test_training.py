"""Losses, metrics, schedules, optimizer, partition and the step."""

import functools
import math
from collections import namedtuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcnn.config import OptimConfig, ScheduleConfig
from jaxcnn.errors import InputError
from jaxcnn.models import BasicBlock, BatchNorm, Classifier, GroupNorm, ResNet
from jaxcnn.paths import GlobRule, flatten
from jaxcnn.training import metrics
from jaxcnn.training.losses import cross_entropy, smoothed_cross_entropy
from jaxcnn.training.optim import make_optimizer
from jaxcnn.training.partition import partition
from jaxcnn.training.schedules import make_schedule
from jaxcnn.training.state import create_state, from_trees, to_trees
from jaxcnn.training.step import StepOptions, make_chunk, make_step, zero_sums

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(40, 7)).astype(np.float32)
LABELS = RNG.integers(0, 7, 40).astype(np.int32)
Batch = namedtuple("Batch", "images labels")


def test_cross_entropy_is_the_formula() -> None:
    shifted = np.exp(LOGITS.astype(np.float64))
    expected = -np.log(shifted[np.arange(40), LABELS] / shifted.sum(1))
    np.testing.assert_allclose(cross_entropy(LOGITS, LABELS), expected, rtol=1e-5)


def test_label_smoothing_is_cross_entropy_to_the_mixed_target() -> None:
    target = 0.9 * np.eye(7)[LABELS] + 0.1 / 7
    np.testing.assert_allclose(
        smoothed_cross_entropy(LOGITS, LABELS, 0.1), optax.softmax_cross_entropy(LOGITS, target), rtol=1e-5
    )


def test_sums_are_those_of_numpy_and_masked_examples_do_not_count() -> None:
    mask = np.arange(40) < 33
    sums = metrics.sums_of(jnp.asarray(LOGITS), jnp.asarray(LABELS), jnp.asarray(mask))
    order = np.argsort(-LOGITS, axis=1)[mask]
    labels = LABELS[mask]
    hits = order[:, 0] == labels
    assert int(sums["examples"]) == 33
    assert int(sums["top1"]) == hits.sum()
    assert int(sums["top5"]) == (order[:, :5] == labels[:, None]).any(1).sum()
    np.testing.assert_array_equal(sums["class_examples"], np.bincount(labels, minlength=7))
    np.testing.assert_array_equal(sums["class_top1"], np.bincount(labels[hits], minlength=7))
    np.testing.assert_allclose(sums["loss"], np.asarray(cross_entropy(LOGITS, LABELS))[mask].sum(), rtol=1e-5)


def test_top5_of_three_classes_is_one_and_nan_is_never_a_hit() -> None:
    logits = jnp.array([[0.0, 1.0, 2.0], [math.nan] * 3])
    sums = metrics.sums_of(logits, jnp.array([0, 0]))
    assert (int(sums["top5"]), int(sums["top1"])) == (1, 0)


def test_equal_logits_are_a_hit_for_the_first_class_only() -> None:
    sums = metrics.sums_of(jnp.zeros((4, 4)), jnp.arange(4))
    assert int(sums["top1"]) == 1


def test_sums_of_parts_add_up_to_those_of_the_whole() -> None:
    pairs = zip(LOGITS.reshape(4, 10, 7), LABELS.reshape(4, 10), strict=True)
    added = functools.reduce(metrics.add, [metrics.sums_of(jnp.asarray(x), jnp.asarray(y)) for x, y in pairs])
    whole = metrics.divide(metrics.sums_of(jnp.asarray(LOGITS), jnp.asarray(LABELS)))
    for name in ("top1", "top5", "examples", "class_top1"):
        assert metrics.divide(added)[name] == whole[name]
    assert metrics.divide(added)["loss"] == pytest.approx(whole["loss"], rel=1e-5)


def test_schedule_warms_up_to_the_peak_and_ends_at_the_final_fraction() -> None:
    schedule = make_schedule(ScheduleConfig("cosine", 2.0, 0.1), 0.4, total_steps=100, steps_per_epoch=5.0)
    rates = np.array([float(schedule(step)) for step in range(101)])
    np.testing.assert_allclose(rates[:10], 0.4 * np.arange(1, 11) / 10, rtol=1e-6)
    assert rates[10] == pytest.approx(0.4)
    assert rates[55] == pytest.approx(0.4 * (0.1 + 0.9 * 0.5))  # half way down
    assert rates[100] == pytest.approx(0.04)
    assert np.all(np.diff(rates[10:]) < 0)


def test_constant_schedule_stays_at_the_peak() -> None:
    schedule = make_schedule(ScheduleConfig("constant", 0.0), 0.4, 100, 5.0)
    assert [float(schedule(step)) for step in (0, 50, 100)] == pytest.approx([0.4] * 3)


PARAMS = {"layer": {"kernel": jnp.array([1.0, -2.0]), "bias": jnp.array([3.0])}}
GRADS = {"layer": {"kernel": jnp.array([0.5, 1.0]), "bias": jnp.array([-1.0])}}


def updated(config: OptimConfig, steps: int) -> dict[str, np.ndarray]:
    optimizer = make_optimizer(config, lambda step: 0.1)
    params, state = PARAMS, optimizer.init(PARAMS)
    for _ in range(steps):
        updates, state = optimizer.update(GRADS, state, params)
        params = optax.apply_updates(params, updates)
    return {name: np.asarray(value) for name, value in params["layer"].items()}


def test_sgd_is_pytorchs_nesterov_with_decay_on_kernels_only() -> None:
    kernel, bias = np.array([1.0, -2.0]), np.array([3.0])
    kernel_momentum, bias_momentum = np.zeros(2), np.zeros(1)
    for _ in range(3):  # torch.optim.SGD(nesterov=True): g + decay; m = mu m + g; p -= lr (g + mu m)
        grad = np.array([0.5, 1.0]) + 0.01 * kernel
        kernel_momentum = 0.9 * kernel_momentum + grad
        kernel = kernel - 0.1 * (grad + 0.9 * kernel_momentum)
        bias_momentum = 0.9 * bias_momentum - 1.0
        bias = bias - 0.1 * (-1.0 + 0.9 * bias_momentum)
    found = updated(OptimConfig("sgd", weight_decay=0.01), 3)
    np.testing.assert_allclose(found["kernel"], kernel, rtol=1e-5)
    np.testing.assert_allclose(found["bias"], bias, rtol=1e-5)


def test_adamw_decays_apart_from_the_gradient() -> None:
    found = updated(OptimConfig("adamw", weight_decay=0.01), 1)
    step = np.sign(np.array([0.5, 1.0]))  # the first step of Adam is the sign
    np.testing.assert_allclose(found["kernel"], np.array([1.0, -2.0]) * (1 - 0.1 * 0.01) - 0.1 * step, rtol=1e-5)
    np.testing.assert_allclose(found["bias"], [3.1], rtol=1e-5)


def test_clipping_scales_the_whole_gradient() -> None:
    plain = OptimConfig("sgd", momentum=0.0, weight_decay=0.0)
    found = updated(OptimConfig("sgd", momentum=0.0, weight_decay=0.0, clip_norm=0.75), 1)
    norm = math.sqrt(0.25 + 1 + 1)
    expected = np.array([1.0, -2.0]) - 0.1 * 0.75 / norm * np.array([0.5, 1.0])
    np.testing.assert_allclose(found["kernel"], expected, rtol=1e-5)
    assert not np.allclose(updated(plain, 1)["kernel"], expected)


IMAGES = RNG.integers(0, 256, (48, 8, 8, 3), np.uint8)
TARGETS = RNG.integers(0, 5, 48).astype(np.int32)


def network(norm=None, dropout: float = 0.0, freeze: GlobRule = GlobRule()) -> Classifier:
    norm = norm or BatchNorm(frozen=freeze)
    return Classifier(ResNet((1, 1), BasicBlock, width=4, stem="small", norm=norm), 5, dropout=dropout)


def plain_augment(key: jax.Array, images: jax.Array) -> tuple[jax.Array, None]:
    return images.astype(jnp.float32) / 255 - 0.5, None


def build(
    model: nn.Module,
    options: StepOptions,
    optim: OptimConfig = OptimConfig(),
    freeze: GlobRule = GlobRule(),
    augment=plain_augment,
):
    optimizer = make_optimizer(optim, lambda step: 0.1)
    variables = model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    state = create_state(variables, freeze, optimizer, options.ema_decay is not None)
    return make_step(model, optimizer, augment, options), state


def leaves(tree) -> dict[str, np.ndarray]:
    return {path: np.asarray(leaf) for path, leaf in flatten(tree).items()}


def test_a_step_is_the_gradient_step_written_out() -> None:
    model = network()
    step, state = build(model, StepOptions(0), OptimConfig(momentum=0.0, weight_decay=0.0))
    new, sums = jax.jit(step)(state, IMAGES[:16], TARGETS[:16])

    def loss(params):
        logits, _ = model.apply(
            {"params": params, "batch_stats": state.batch_stats},
            plain_augment(None, jnp.asarray(IMAGES[:16]))[0],
            train=True,
            mutable=["batch_stats"],
        )
        return optax.softmax_cross_entropy_with_integer_labels(logits, TARGETS[:16]).mean()

    value, grads = jax.value_and_grad(loss)(state.params)
    assert float(sums["loss"]) / 16 == pytest.approx(float(value), rel=1e-5)
    assert float(sums["grad_norm"]) == pytest.approx(float(optax.tree.norm(grads)), rel=1e-4)
    expected = leaves(jax.tree.map(lambda p, g: p - 0.1 * g, state.params, grads))
    for path, value in leaves(new.params).items():
        np.testing.assert_allclose(value, expected[path], atol=1e-5, err_msg=path)
    assert int(new.step) == 1


def test_accumulation_equals_the_whole_batch_without_batch_statistics() -> None:
    results = []
    for parts in (1, 4):
        step, state = build(network(GroupNorm(2)), StepOptions(0, accumulation=parts))
        new, sums = jax.jit(step)(state, IMAGES[:32], TARGETS[:32])
        results.append((leaves(new.params), {name: np.asarray(value) for name, value in sums.items()}))
    for path, value in results[0][0].items():
        np.testing.assert_allclose(results[1][0][path], value, atol=2e-6, err_msg=path)
    np.testing.assert_array_equal(results[0][1]["class_examples"], results[1][1]["class_examples"])
    assert results[0][1]["loss"] == pytest.approx(results[1][1]["loss"], rel=1e-5)


def test_ema_follows_the_parameters_and_statistics() -> None:
    step, state = build(network(), StepOptions(0, ema_decay=0.5))
    expected = leaves(state.ema)
    for index in range(12):
        state, _ = jax.jit(step)(state, IMAGES[:16], TARGETS[:16])
        keep = min(0.5, (1 + index) / (10 + index))
        now = leaves({"params": state.params, "batch_stats": state.batch_stats})
        expected = {path: keep * expected[path] + (1 - keep) * now[path] for path in now}
    for path, value in leaves(state.ema).items():
        np.testing.assert_allclose(value, expected[path], rtol=1e-4, atol=1e-6, err_msg=path)
    assert leaves(state.variables["params"]).keys() == leaves(state.params).keys()


def chunked(step, state, cuts: list[int]):
    source = Batch(jnp.asarray(IMAGES), jnp.asarray(TARGETS))
    chunk = jax.jit(make_chunk(step, lambda source, places: Batch(source.images[places], source.labels[places])))
    order = np.random.default_rng(1).integers(0, 48, (sum(cuts), 16)).astype(np.int32)
    sums, first = jax.device_put(zero_sums(step, state, IMAGES[:16], TARGETS[:16])), 0
    for count in cuts:
        inputs = np.zeros((8, 16), np.int32)
        inputs[:count] = order[first : first + count]
        state, sums, _ = chunk(state, sums, source, inputs, np.int32(count))
        first += count
    return state, sums, chunk


OPTIONS = StepOptions(3, label_smoothing=0.1, accumulation=2, ema_decay=0.9)


def test_the_result_does_not_depend_on_how_steps_are_cut_into_chunks() -> None:
    results = []
    for cuts in ([8], [3, 5], [1] * 8, [1, 7]):
        step, state = build(network(dropout=0.3), OPTIONS, OptimConfig(clip_norm=1.0))
        state, sums, chunk = chunked(step, state, cuts)
        assert chunk._cache_size() == 1  # compiled once for every number of steps
        results.append([np.asarray(leaf).tobytes() for leaf in jax.tree.leaves((state, sums))])
    assert all(result == results[0] for result in results[1:])


def test_dropout_differs_from_step_to_step_and_is_a_function_of_the_seed() -> None:
    losses = {}
    for seed in (0, 0, 1):
        step, state = build(network(GroupNorm(2), dropout=0.5), StepOptions(seed), OptimConfig(peak_lr=1e-9))
        _, sums = jax.jit(step)(state.replace(step=jnp.int32(0)), IMAGES[:16], TARGETS[:16])
        _, later = jax.jit(step)(state.replace(step=jnp.int32(1)), IMAGES[:16], TARGETS[:16])
        losses.setdefault(seed, []).append((float(sums["loss"]), float(later["loss"])))
    assert losses[0][0] == losses[0][1]
    assert losses[0][0][0] != losses[0][0][1]
    assert losses[0][0] != losses[1][0]


@pytest.mark.parametrize("patterns", [("backbone/**",), ("backbone/**", "!backbone/stage2/**"), ("**/norm*/*",)])
def test_frozen_leaves_and_statistics_are_bit_identical_with_everything_on(patterns: tuple[str, ...]) -> None:
    rule = GlobRule(patterns)
    optim = OptimConfig("adamw", weight_decay=0.1, clip_norm=0.5)
    step, state = build(network(freeze=rule, dropout=0.2), OPTIONS, optim, rule)
    before = leaves(to_trees(state, {})["model"])
    state, _, _ = chunked(step, state, [8, 4])
    after = leaves(to_trees(state, {})["model"])
    moved = {path for path in before if not np.array_equal(before[path], after[path])}
    trainable = {f"params/{path}" for path in flatten(state.params)}
    statistics = {path for path in before if path.startswith("batch_stats/")}
    norms = {path: path.removeprefix("batch_stats/").rsplit("/", 1)[0] for path in statistics}
    still = {path for path in statistics if rule.matches(f"{norms[path]}/scale")}
    assert moved == trainable | (statistics - still)
    assert still
    held = {path for path in map(str, jax.tree_util.tree_leaves_with_path(state.opt_state)) if "stem" in path}
    assert not (patterns[0] == "backbone/**" and held)  # no optimizer state for what is frozen


def test_no_gradient_is_computed_for_what_is_frozen() -> None:
    def flops(patterns: tuple[str, ...]) -> float:
        rule = GlobRule(patterns)
        step, state = build(network(freeze=rule), StepOptions(0), OptimConfig(clip_norm=1.0), rule)
        return jax.jit(step).lower(state, IMAGES[:16], TARGETS[:16]).compile().cost_analysis()["flops"]

    assert flops(("backbone/**",)) < 0.45 * flops(())


def test_a_state_survives_the_form_of_a_checkpoint() -> None:
    rule = GlobRule(("backbone/stem/**",))
    step, state = build(network(freeze=rule), OPTIONS, freeze=rule)
    sums = zero_sums(step, state, IMAGES[:16], TARGETS[:16])
    back, back_sums = from_trees(to_trees(state, sums), rule)
    assert jax.tree.structure(back) == jax.tree.structure(state)
    assert jax.tree.structure(back_sums) == jax.tree.structure(sums)


def test_freezing_everything_or_nothing_that_exists_is_an_error() -> None:
    params = {"backbone": {"kernel": 1}, "head": {"kernel": 2}}
    with pytest.raises(InputError, match="every parameter is frozen"):
        partition(params, GlobRule(("**",)))
    with pytest.raises(InputError, match=r"'bakbone/\*\*' matches no parameter; nearest paths: backbone"):
        partition(params, GlobRule(("bakbone/**",)))


def test_bfloat16_computes_in_it_and_keeps_parameters_and_logits_in_float32() -> None:
    from jaxcnn.config import ModelConfig
    from jaxcnn.models import build_model

    model = build_model(ModelConfig("resnet8", width=4, dtype="bfloat16"), (8, 8, 3), 5)
    step, state = build(model, StepOptions(0))
    text = jax.jit(step).lower(state, IMAGES[:16], TARGETS[:16]).as_text()
    convolutions = [line for line in text.splitlines() if "stablehlo.convolution" in line]
    assert convolutions
    operands = [line.split(" : (")[-1].split("->")[0] for line in convolutions]  # a gradient may be summed in float32
    assert all(types.count("xbf16>") == 2 for types in operands)
    new, sums = jax.jit(step)(state, IMAGES[:16], TARGETS[:16])
    assert {leaf.dtype for leaf in jax.tree.leaves((new.params, new.batch_stats))} == {jnp.dtype("float32")}
    assert model.apply(state.variables, jnp.zeros((1, 8, 8, 3))).dtype == jnp.float32
    assert sums["loss"].dtype == jnp.float32
