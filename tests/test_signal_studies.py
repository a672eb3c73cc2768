"""Signal by layer, the law of initial weights, derivatives, dropped units; and the studies made of them."""

import dataclasses
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.config import DataConfig, ModelConfig
from jaxcnn.inspection.derivatives import derivative, slopes
from jaxcnn.inspection.dropping import dropped_units, mean_correlation
from jaxcnn.inspection.signal import Signal, factor_a_step, make_signal
from jaxcnn.inspection.variance_law import Layer, fitted_law, kept_std
from jaxcnn.models.layers import ACTIVATIONS, GAINS
from jaxcnn.models.registry import build_model
from jaxcnn.models.taps import backward
from jaxcnn.studies import activations, dropout, initialisation
from jaxcnn.studies.setting import Setting
from jaxcnn.studies.spread import Spread
from jaxcnn.studies.trials import Trial, Trials

SHAPES = DataConfig(
    source="synthetic", image_size=8, classes=("circle", "square"),
    train_split="train[:96]", validation_split="validation[:64]",
)  # fmt: skip


class Chain(nn.Module):
    """Dense layers of one width, each after the first fed by an activation."""

    depth: int
    width: int
    std: float
    activation: str = "relu"
    linear: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        for index in range(self.depth):
            x = nn.Dense(self.width, kernel_init=nn.initializers.normal(self.std), name=f"fc{index}")(x)
            x = x if self.linear or index == self.depth - 1 else ACTIVATIONS[self.activation](x)
        return x


def _inputs(count: int, width: int) -> tuple[jax.Array, jax.Array]:
    rng = np.random.default_rng(0)
    return jnp.asarray(rng.standard_normal((count, width)), jnp.float32), jnp.asarray(rng.integers(0, width, count))


def test_gradients_by_layer_are_those_of_a_linear_network_written_out() -> None:
    model = Chain(2, 3, 1.0, linear=True)
    x, _ = _inputs(5, 3)
    variables = model.init(jax.random.key(0), x)
    found = backward(model, variables, x, jnp.sum)
    first, second = (variables["params"][name]["kernel"] for name in ("fc0", "fc1"))
    np.testing.assert_allclose(found.seen.inputs["fc1"], x @ first, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.inputs["fc1"], np.ones((5, 3)) @ second.T, rtol=1e-5)
    np.testing.assert_allclose(found.inputs["fc0"], np.ones((5, 3)) @ second.T @ first.T, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.params["fc1"]["kernel"], (x @ first).T @ np.ones((5, 3)), rtol=1e-4, atol=1e-5)
    assert list(found.inputs) == ["fc0", "fc1"]


def _at_the_start(model, x, labels) -> Signal:
    return make_signal(model)(jax.jit(model.init)(jax.random.key(0), x[:1]), x, labels)


@pytest.mark.parametrize(("linear", "share"), [(True, 1.0), (False, 0.5)], ids=["linear", "relu"])
def test_a_layer_multiplies_the_mean_square_by_fan_times_variance_and_relu_halves_it(linear, share) -> None:
    width, std = 256, 0.05
    x, labels = _inputs(64, width)
    own = _at_the_start(Chain(6, width, std, linear=linear), x, labels)
    assert own.mean_square[0] == pytest.approx(float(jnp.mean(x**2)), rel=1e-4)
    expected = share * width * std**2
    assert factor_a_step(own.mean_square[1:]) == pytest.approx(expected, rel=0.08)
    assert factor_a_step(own.gradient[-2:0:-1]) == pytest.approx(expected, rel=0.08)
    assert own.variance[0] == pytest.approx(float(jnp.var(x)), rel=1e-4)
    if linear:
        assert own.variance[3] == pytest.approx(own.mean_square[3], rel=0.1)


def test_the_kernel_gradient_is_that_of_the_mean_loss() -> None:
    x, labels = _inputs(8, 4)
    model = Chain(2, 4, 0.5)
    variables = model.init(jax.random.key(3), x)

    def loss(params):
        logits = model.apply({"params": params}, x)
        return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(8), labels])

    expected = jax.grad(loss)(variables["params"])
    found = make_signal(model)(variables, x, labels)
    for layer, norm in zip(found.layers, found.kernel_gradient, strict=True):
        assert norm == pytest.approx(float(jnp.linalg.norm(expected[layer]["kernel"])), rel=1e-4)


def test_sigmoid_lets_at_most_a_quarter_of_the_gradient_through_a_layer_of_gain_1_down_to_1e_minus_24() -> None:
    width = 64
    x, labels = _inputs(16, width)
    own = _at_the_start(Chain(40, width, width**-0.5, "sigmoid"), x, labels)
    factor = math.sqrt(factor_a_step(own.gradient[-2:0:-1]))
    assert 0.2 < factor <= 0.25
    assert 0 < own.kernel_gradient[0] < 1e-22  # whose square is below what float32 holds


def test_the_factor_of_a_geometric_series_is_found_and_none_of_what_vanished() -> None:
    assert factor_a_step([3 * 0.25**depth for depth in (2, 4, 8)], (2, 4, 8)) == pytest.approx(0.25)
    assert math.isnan(factor_a_step([1.0, 0.0]))


def test_the_kept_std_after_relu_is_that_of_he_et_al_each_way() -> None:
    layers = (Layer(1, 64, 32), Layer(3, 16, 32))
    found = [kept_std(layer, "relu", seed=0) for layer in layers]
    for way in ("forward", "backward"):
        law = fitted_law([layer.fan(way) for layer in layers], [one[way] for one in found])
        assert law.constant == pytest.approx(2, rel=0.06)
    assert [layer.fan("forward") for layer in layers] == [64, 144]
    assert [layer.fan("backward") for layer in layers] == [32, 288]


def test_the_kept_std_after_gelu_is_that_of_its_gain() -> None:
    layer = Layer(1, 128, 64)
    assert kept_std(layer, "gelu", seed=0)["forward"] ** 2 * 128 == pytest.approx(GAINS["gelu"] ** 2, rel=0.06)


def test_the_law_of_exact_points_is_found() -> None:
    fans = [9, 64, 400]
    law = fitted_law(fans, [math.sqrt(3 / fan) for fan in fans])
    assert (law.exponent, law.constant, law.worst) == pytest.approx((-0.5, 3.0, 0.0), abs=1e-9)
    assert fitted_law([10, 1000], [2 * 10.0**-1, 2 * 1000.0**-1]).exponent == pytest.approx(-1)


def test_gelu_is_smooth_at_0_and_relu_has_a_kink() -> None:
    relu, gelu = slopes(ACTIVATIONS["relu"]), slopes(ACTIVATIONS["gelu"])
    assert relu.right == pytest.approx([1.0] * 7)
    assert relu.left == pytest.approx([0.0] * 7)
    assert relu.order == pytest.approx(0, abs=1e-9)
    assert gelu.order == pytest.approx(1, abs=0.01)
    assert abs(gelu.right[-1] - 0.5) < 1e-6 > abs(gelu.left[-1] - 0.5)
    assert gelu.second[3] == pytest.approx(2 / math.sqrt(2 * math.pi), rel=1e-5)
    assert slopes(jnp.square, at=3.0).right[-1] == pytest.approx(6, rel=1e-6)
    with pytest.raises(ValueError, match="float64 is needed"):
        slopes(lambda x: x.astype(jnp.float32))


def test_largest_derivatives_are_the_known_ones() -> None:
    line = np.linspace(-6, 6, 1201)
    most = {name: derivative(ACTIVATIONS[name], line).max() for name in ("sigmoid", "tanh", "relu", "gelu")}
    at = math.sqrt(2)  # gelu'' is 0 there
    gelu = 0.5 * (1 + math.erf(1)) + at * math.exp(-1) / math.sqrt(2 * math.pi)
    assert most == pytest.approx({"sigmoid": 0.25, "tanh": 1.0, "relu": 1.0, "gelu": gelu}, rel=1e-4)


def test_dropped_units_get_no_gradient_and_kept_ones_are_scaled() -> None:
    model = build_model(
        ModelConfig(name="vgg11", stage_sizes=(1,), width=4, dropout=0.75, block_dropout=0.5), (8, 8, 3), 4
    )
    x = jax.random.normal(jax.random.key(0), (64, 8, 8, 3))
    variables = model.init(jax.random.key(1), x)
    stage, head = dropped_units(model, variables, x, jnp.arange(64) % 4, jax.random.key(2))
    assert (stage.path, head.path) == ("backbone/stage1/dropout", "dropout")
    for found, rate in ((stage, 0.5), (head, 0.75)):
        assert found.share == pytest.approx(rate, abs=0.08)
        assert found.gradient_of_dropped == 0 < found.gradient_of_kept
        assert (found.scale, found.backward_scale) == pytest.approx((1 / (1 - rate),) * 2, rel=1e-5)
        assert found.scale_error < 1e-5


def test_correlation_is_0_of_independent_1_of_equal_and_of_constants_none() -> None:
    rng = np.random.default_rng(0)
    base = rng.standard_normal((20_000, 3))
    assert mean_correlation(base) < 0.02
    assert mean_correlation(np.stack([base[:, 0], -2 * base[:, 0], np.ones(20_000)], 1)) == pytest.approx(1)
    half = np.stack([base[:, 0], base[:, 0] + base[:, 1] * math.sqrt(3)], 1)  # r = 1 / 2
    assert mean_correlation(half) == pytest.approx(0.5, abs=0.02)
    assert math.isnan(mean_correlation(np.ones((10, 3))))


@pytest.fixture(scope="module")
def setting(tmp_path_factory) -> Setting:
    return Setting("quick", SHAPES, (0, 1), Trials(tmp_path_factory.mktemp("signals") / "trials"))


def _tiny(monkeypatch, module, **model) -> None:
    """The study's networks with width 4 and one epoch."""
    whole = module._config

    def config(*arguments):
        own = whole(*arguments)
        return dataclasses.replace(
            own,
            model=dataclasses.replace(own.model, width=4, **model),
            train=dataclasses.replace(own.train, epochs=1.0, batch_size=16),
            evaluation=dataclasses.replace(own.evaluation, batch_size=20, train_examples=16),
        )

    monkeypatch.setattr(module, "_config", config)


def _drawn(findings, tmp_path) -> None:
    from matplotlib.figure import Figure

    from jaxcnn.curves import save

    figure = Figure(figsize=findings.size, layout="constrained")
    findings.draw(figure)
    save(figure, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000


@pytest.mark.slow
def test_the_study_of_activations(setting, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(activations, "NAMES", ("sigmoid", "relu", "gelu"))
    monkeypatch.setitem(activations.DEPTHS, "quick", (2, 4))
    monkeypatch.setattr("jaxcnn.studies.activation_figure.COLOURS", dict.fromkeys(activations.NAMES, "k"))
    monkeypatch.setattr(activations, "IMAGES", 8)
    _tiny(monkeypatch, activations)
    findings = activations.study(setting)
    rows = {row[:2]: row for row in findings.tables[0].rows}
    assert len(rows) == 6
    assert rows["sigmoid", 4][2] < rows["relu", 4][2]
    falls, bound, learns, smooth = findings.claims
    assert smooth.supported
    assert falls.supported is not None
    assert learns.supported is False  # in one epoch nothing learns
    factor = {row[0]: row[-1] for row in findings.tables[1].rows}["sigmoid"]
    assert f"{factor:.3g}" in falls.numbers
    assert bound.supported in (True, False)
    _drawn(findings, tmp_path)


@pytest.mark.slow
def test_the_study_of_initialisation(setting, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(initialisation, "LAYERS", (Layer(1, 32, 32), Layer(3, 8, 16)))
    monkeypatch.setattr(initialisation, "ACTIVATIONS", ("relu",))
    monkeypatch.setattr(initialisation, "IMAGES", 8)
    _tiny(monkeypatch, initialisation, stage_sizes=(4,))
    findings = initialisation.study(setting)
    factor = {row[1]: row[3] for row in findings.tables[0].rows}
    assert factor["Xavier"] / factor["Kaiming"] == pytest.approx(0.5, abs=0.25)
    assert factor["std 0.01"] < 0.01 < 1 < factor["std 1"]
    law, halves, stalls = findings.claims
    assert law.supported is not None
    assert halves.supported is not None
    assert stalls.supported in (True, False)
    _drawn(findings, tmp_path)


def test_the_study_of_dropout(setting, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(dropout, "RATES", (0.0, 0.4))
    monkeypatch.setattr(dropout, "IMAGES", 8)
    _tiny(monkeypatch, dropout, stage_sizes=(1,))
    findings = dropout.study(setting)
    gap, _, gradient, alike = findings.claims
    assert gradient.supported
    assert gap.supported is not None
    assert alike.supported is not None
    row = findings.tables[0].rows[1]
    assert row[5] == pytest.approx(row[1] - row[3], abs=1e-4)  # the gap is train less validation
    _drawn(findings, tmp_path)


def _verdicts_of_activations(sigmoid_top1, relu_top1, factors) -> list[bool | None]:
    def own(sigmoid, relu):
        return {(name, 8): Spread(relu if name in ("relu", "gelu") else sigmoid) for name in activations.NAMES}

    around = {name: slopes(ACTIVATIONS[name]) for name in activations.NAMES}
    curves = {name: derivative(ACTIVATIONS[name], np.linspace(-1, 1, 21)) for name in activations.NAMES}
    spreads = {name: Spread(factors[name == "relu"]) for name in activations.NAMES}
    found = activations._claims(own((1e-6,), (1.0,)), own(sigmoid_top1, relu_top1), spreads, around, curves, (8,), 0.5)
    return [claim.supported for claim in found]


def test_claims_on_activations_ask_what_they_state_of_two_classes() -> None:
    falls = ((0.2, 0.21), (0.95, 1.0))
    assert _verdicts_of_activations((0.49, 0.5), (0.9, 1.0), falls) == [True] * 4  # chance is 1/2
    assert _verdicts_of_activations((0.49, 0.5), (0.51, 1.0), falls)[2] is False  # one seed learns nothing
    both_fall, no_gap = ((0.2, 0.21), (0.3, 0.4)), ((0.9,), (1.0,))
    assert _verdicts_of_activations((0.5, 0.5), (0.9, 1.0), both_fall)[0] is False
    assert _verdicts_of_activations((0.5,), (1.0,), no_gap)[:3] == [None, None, None]


def _trials(losses) -> list[Trial]:
    figures = [({"loss": loss, "top1": 0.1},) for loss in losses]
    return [Trial("a", seed, (1.0,), one, (), one, (), (), True, {}, 1.0, "cpu") for seed, one in enumerate(figures)]


@pytest.mark.parametrize(
    ("kaiming", "xavier", "supported"),
    [
        ((0.5, 0.6), (0.693, 0.693), True),
        ((0.5, 0.69), (0.693, 0.693), False),  # one seed does not train
        ((0.1, 0.2), (0.5, 0.6), False),  # Xavier's trains too
        ((0.5,), (0.693,), None),
    ],
)
def test_a_rule_trains_if_each_seed_does_and_stalls_at_the_loss_of_a_guess(kaiming, xavier, supported) -> None:
    one = Signal(("a", "b", "c"), (1.0,) * 3, (1.0,) * 3, (1.0,) * 3, (1.0,) * 3)
    signals = {("relu", rule): [one] * len(kaiming) for rule in initialisation.RULES}
    laws = {("relu", way): [fitted_law([9, 64], [0.5, 0.2])] for way in initialisation.WAYS}
    runs = {"Kaiming": _trials(kaiming), "Xavier": _trials(xavier)}
    assert initialisation._claims(signals, laws, runs, math.log(2))[2].supported is supported
