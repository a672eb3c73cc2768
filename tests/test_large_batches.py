"""LARS, LAMB, learning rates that follow the batch."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcnn.build import build_job
from jaxcnn.config import OptimConfig, TrainConfig
from jaxcnn.inspection.leaves import decayed_leaves
from jaxcnn.paths import GlobRule, flatten, unflatten
from jaxcnn.training.learning_rates import batch_factor, peak_rate, peak_told
from jaxcnn.training.optim import carry_over, make_optimizer
from jaxcnn.training.partition import first_phases
from jaxcnn.tuning.building import subject_of
from jaxcnn.tuning.lr_curve import curve_of
from jaxcnn.tuning.lr_finder import RATES, with_rate
from tests.conftest import with_fields

RNG = np.random.default_rng(0)
PARAMS = {
    "backbone/conv/kernel": RNG.normal(size=(3, 3, 2, 4)),
    "backbone/norm/scale": 1 + 0.1 * RNG.normal(size=4),
    "backbone/norm/bias": 0.1 * RNG.normal(size=4),
    "head/kernel": RNG.normal(size=(4, 5)),
}
SLOPES = [{path: RNG.normal(size=value.shape) for path, value in PARAMS.items()} for _ in range(5)]
RATES_BY_STEP = np.array([0.5, 1.0, 2.0, 1.5, 0.1])


def schedule(step):
    return jnp.asarray(RATES_BY_STEP)[step]


def trained(config: OptimConfig, params=PARAMS, slopes=SLOPES, factors=None) -> dict[str, np.ndarray]:
    """The parameters after five steps with given gradients, in float64."""
    with jax.enable_x64(True):
        optimizer = make_optimizer(config, schedule, factors)
        tree = unflatten({path: jnp.asarray(value) for path, value in params.items()})
        state = optimizer.init(tree)
        for slope in slopes:
            grads = unflatten({path: jnp.asarray(value) for path, value in slope.items()})
            updates, state = optimizer.update(grads, state, tree)
            tree = optax.apply_updates(tree, updates)
        return {path: np.asarray(leaf) for path, leaf in flatten(tree).items()}


def lars(w, slopes, *, is_kernel, eta=0.02, decay=0.01, momentum=0.9):
    """You et al. 2017, algorithm 1; without ratio and decay for what is no kernel."""
    v = np.zeros_like(w)
    for rate, g in zip(RATES_BY_STEP, slopes, strict=True):
        if is_kernel:
            local = eta * np.sqrt(np.sum(w**2)) / (np.sqrt(np.sum(g**2)) + decay * np.sqrt(np.sum(w**2)))
            v = momentum * v + rate * local * (g + decay * w)
        else:
            v = momentum * v + rate * g
        w = w - v
    return w


def lamb(x, slopes, *, is_kernel, beta1=0.8, beta2=0.95, decay=0.01):
    """You et al. 2019, algorithm 2 with φ(z) = z; Adam's steps for what is no kernel."""
    m, v = np.zeros_like(x), np.zeros_like(x)
    for t, (rate, g) in enumerate(zip(RATES_BY_STEP, slopes, strict=True), start=1):
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        r = (m / (1 - beta1**t)) / (np.sqrt(v / (1 - beta2**t)) + 1e-6)
        if is_kernel:
            r = r + decay * x
            r = r * np.sqrt(np.sum(x**2)) / np.sqrt(np.sum(r**2))
        x = x - rate * r
    return x


@pytest.mark.parametrize(
    ("config", "paper"),
    [
        (OptimConfig("lars", weight_decay=0.01, trust_coefficient=0.02), lars),
        (OptimConfig("lamb", weight_decay=0.01, beta1=0.8, beta2=0.95), lamb),
    ],
)
def test_five_steps_are_those_of_the_paper(config: OptimConfig, paper) -> None:
    found = trained(config)
    for path, value in PARAMS.items():
        expected = paper(value, [slope[path] for slope in SLOPES], is_kernel=path.endswith("kernel"))
        np.testing.assert_allclose(found[path], expected, rtol=1e-12, atol=1e-13, err_msg=path)
        assert not np.allclose(found[path], value)


def test_kernels_without_a_norm_get_the_plain_step() -> None:
    """A head that starts at zero could not move if its step were in proportion to its norm."""
    params = {**PARAMS, "head/kernel": np.zeros((4, 5))}
    first = SLOPES[:1]
    found = trained(OptimConfig("lars", weight_decay=0.01), params, first)["head/kernel"]
    np.testing.assert_allclose(found, -0.5 * first[0]["head/kernel"], rtol=1e-12)
    adam = trained(OptimConfig("lamb", weight_decay=0.01), params, first)["head/kernel"]
    np.testing.assert_allclose(adam, -0.5 * np.sign(first[0]["head/kernel"]), rtol=1e-4)
    still = trained(OptimConfig("lars", weight_decay=0.0), slopes=[{p: 0 * v for p, v in PARAMS.items()}])
    for path, value in PARAMS.items():
        np.testing.assert_array_equal(still[path], value)


@pytest.mark.parametrize("name", ["lars", "lamb"])
def test_a_step_of_a_kernel_has_the_norm_that_is_stated_whatever_the_gradients_scale(name: str) -> None:
    config = OptimConfig(name, weight_decay=0.0, momentum=0.0, trust_coefficient=0.001)  # type: ignore[arg-type]
    for scale in (1e-3, 1e3):
        found = trained(config, slopes=[{path: scale * value for path, value in SLOPES[0].items()}])
        for path in ("backbone/conv/kernel", "head/kernel"):
            share = np.linalg.norm(found[path] - PARAMS[path]) / np.linalg.norm(PARAMS[path])
            assert share == pytest.approx(0.5 * (0.001 if name == "lars" else 1.0), rel=1e-9)


@pytest.mark.parametrize("name", ["lars", "lamb"])
def test_factors_of_the_rate_are_on_top_of_the_trust_ratio(name: str) -> None:
    config = OptimConfig(name, weight_decay=0.01)  # type: ignore[arg-type]
    factors = {path: 0.5 if path.startswith("backbone") else 1.0 for path in PARAMS}
    plain, scaled = (trained(config, slopes=SLOPES[:1], factors=given) for given in (None, factors))
    for path, value in PARAMS.items():
        np.testing.assert_allclose(scaled[path] - value, factors[path] * (plain[path] - value), rtol=1e-9)


@pytest.mark.parametrize("name", ["lars", "lamb"])
@pytest.mark.parametrize("decay", [0.0, 0.01])
def test_inspect_tells_decay_from_a_ratio_that_has_the_norm_in_it(tiny_config: TrainConfig, name, decay) -> None:
    job = build_job(with_fields(tiny_config, optim__name=name, optim__weight_decay=decay))
    paths = {path for path in flatten(job.network.shapes["params"]) if path.endswith("kernel")}
    assert decayed_leaves(job.phases[0], job.network) == (paths if decay else set())


@pytest.mark.parametrize("name", ["lars", "lamb"])
def test_what_is_thawed_leaves_the_moments_and_counts_of_the_others_alone(name: str) -> None:
    """Head alone for two steps, then all: the head as if it had always been alone, the rest as from a first step."""
    config = OptimConfig(name, weight_decay=0.01)  # type: ignore[arg-type]
    tree = unflatten({path: jnp.asarray(value, jnp.float32) for path, value in PARAMS.items()})
    grads = [unflatten({path: jnp.asarray(value, jnp.float32) for path, value in slope.items()}) for slope in SLOPES]
    head = {"head": tree["head"]}
    first = first_phases(tree, [GlobRule(("backbone/**",)), GlobRule()])
    constant = lambda step: 0.1  # noqa: E731
    before = make_optimizer(config, constant, None, {path: 0 for path, phase in first.items() if phase == 0})
    after, alone = make_optimizer(config, constant, None, first), make_optimizer(config, constant)
    state, own = before.init(head), alone.init(head)
    for grad in grads[:2]:
        _, state = before.update({"head": grad["head"]}, state, head)
        _, own = alone.update({"head": grad["head"]}, own, head)
    updates, _ = after.update(grads[2], carry_over(state, after.init(tree)), tree)
    expected, _ = alone.update({"head": grads[2]["head"]}, own, head)
    rest = {"backbone": tree["backbone"]}
    fresh, _ = alone.update({"backbone": grads[2]["backbone"]}, alone.init(rest), rest)
    for path, value in {**flatten(expected), **flatten(fresh)}.items():
        np.testing.assert_allclose(flatten(updates)[path], value, rtol=1e-5, err_msg=path)


def test_the_finder_has_a_range_for_each_optimizer() -> None:
    assert RATES.keys() == set(OptimConfig.__annotations__["name"].__args__)


# Learning rates by batch.


def config_of(**fields) -> TrainConfig:
    return with_fields(TrainConfig(), **fields)


def test_the_linear_rule_multiplies_by_the_batch_and_sqrt_by_its_root() -> None:
    config = config_of(optim__peak_lr=0.1, train__batch_size=1024)
    assert (peak_rate(config), peak_told(config)) == (0.1, "0.1")
    linear, root = (with_fields(config, optim__lr_scaling=rule) for rule in ("linear", "sqrt"))
    assert (peak_rate(linear), peak_told(linear)) == (0.4, "0.1 x 1024 / 256 = 0.4")
    assert (peak_rate(root), peak_told(root)) == (0.2, "0.1 x sqrt(1024 / 256) = 0.2")
    assert peak_rate(with_fields(linear, optim__base_batch_size=2048)) == 0.05


def test_k_small_steps_are_one_large_one_at_k_times_the_rate_where_the_gradient_stays() -> None:
    """Goyal et al. 2017, equations 3 and 4, on a loss that is linear in the weights: both sides are equal."""
    slopes = RNG.normal(size=(8, 16, 3))  # 8 small batches of 16 examples: the gradient of each example
    small, base = np.zeros(3), config_of(optim__peak_lr=0.05, train__batch_size=16, optim__base_batch_size=16)
    base = with_fields(base, optim__lr_scaling="linear")
    for batch in slopes:
        small = small - peak_rate(base) * batch.mean(0)
    large = -peak_rate(with_fields(base, train__batch_size=128)) * slopes.reshape(-1, 3).mean(0)
    np.testing.assert_allclose(large, small, rtol=1e-12)


def test_a_run_has_the_scaled_rate_and_says_so(tiny_config: TrainConfig, caplog, monkeypatch) -> None:
    monkeypatch.setattr(logging.getLogger("jaxcnn"), "propagate", True)
    config = with_fields(tiny_config, optim__lr_scaling="linear", optim__base_batch_size=8, schedule__name="constant")
    caplog.set_level("INFO", logger="jaxcnn")
    job = build_job(config)
    assert "learning rate: 0.05 x 32 / 8 = 0.2, warm-up of 1 epochs" in caplog.text
    assert float(job.schedule(job.total_steps)) == pytest.approx(0.2)
    assert "warning" not in caplog.text
    caplog.clear()
    build_job(with_fields(config, schedule__warmup_epochs=0.0))
    assert "needs a warm-up (Goyal et al. 2017, section 2.2): set schedule.warmup_epochs" in caplog.text
    caplog.clear()
    build_job(with_fields(config, schedule__warmup_epochs=0.0, optim__base_batch_size=32))
    assert "learning rate: 0.05 x 32 / 32 = 0.05, no warm-up" in caplog.text
    assert "needs a warm-up" not in caplog.text


def test_a_run_says_over_how_many_images_its_batch_norm_is(tiny_config: TrainConfig, caplog, monkeypatch) -> None:
    """On one device too: parts of a batch have statistics of their own."""
    monkeypatch.setattr(logging.getLogger("jaxcnn"), "propagate", True)
    caplog.set_level("INFO", logger="jaxcnn")
    parts = with_fields(tiny_config, optim__accumulation=4)
    build_job(with_fields(parts, mesh__data=1))
    assert "a batch goes in 4 parts of 8 images; batch norm over 8 images" in caplog.text
    caplog.clear()
    build_job(with_fields(parts, mesh__data=1, model__norm="none"))
    assert "a batch goes in 4 parts of 8 images" in caplog.text
    assert "batch norm over" not in caplog.text
    caplog.clear()
    build_job(with_fields(tiny_config, mesh__data=1))
    assert "parts" not in caplog.text
    assert "batch norm over" not in caplog.text


@pytest.mark.parametrize("rule", ["none", "linear", "sqrt"])
def test_what_the_finder_writes_gives_the_rate_that_it_found(rule: str) -> None:
    rates = np.geomspace(1e-3, 10, 60)
    losses = np.where(rates < 0.5, 2.3 - np.linspace(0, 1.5, 60), 9.0)
    curve = curve_of(rates, losses)
    config = config_of(optim__lr_scaling=rule, optim__base_batch_size=50, train__batch_size=128)
    found = with_rate(config, curve)
    assert peak_rate(found) == pytest.approx(float(f"{curve.suggestion:.1e}"), rel=1e-12)
    assert found.optim.peak_lr * batch_factor(config) == peak_rate(found)


def test_checks_plan_with_the_scaled_rate(tiny_config: TrainConfig) -> None:
    config = with_fields(tiny_config, optim__lr_scaling="linear", optim__base_batch_size=8, optim__name="lars")
    subject = subject_of(config, max_examples=32)[1]
    assert (subject.peak_lr, subject.rate_factor, subject.rates) == (pytest.approx(0.2), 4.0, (1e-3, 1e3))
