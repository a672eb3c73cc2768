"""Why kernels are drawn as they are: variance by layer for each rule, the law behind it, and what trains."""

import math
from dataclasses import replace
from typing import Any

from jaxcnn.config import ModelConfig, TrainConfig
from jaxcnn.inspection.signal import Signal, factor_a_step, make_signal
from jaxcnn.inspection.variance_law import Law, Layer, Way, fitted_law, kept_std
from jaxcnn.studies.findings import Claim, Findings, Table
from jaxcnn.studies.initialisation_figure import RULES, draw_study
from jaxcnn.studies.setting import Setting, rate
from jaxcnn.studies.spread import Spread, beyond_spread
from jaxcnn.studies.starting_points import starting_signals
from jaxcnn.studies.trials import Trial

ACTIVATIONS = ("relu", "tanh")
LAYERS = (Layer(1, 64, 64), Layer(3, 4, 64), Layer(3, 16, 32), Layer(3, 64, 64), Layer(5, 32, 32), Layer(7, 32, 64))
WAYS: tuple[Way, ...] = ("forward", "backward")
IMAGES = 64  # whose signal is measured
Stds = dict[tuple[str, Way], list[list[float]]]  # by seed and layer


def study(setting: Setting) -> Findings:
    """Returns variances by layer, the fitted law, and the losses of networks that differ in their rule alone."""
    signals: dict[tuple[str, str], list[Signal]] = {}
    for activation in ACTIVATIONS:
        measure = make_signal(setting.trials.job(_config(setting, "Kaiming", activation)).network.model)
        for rule in RULES:
            config = _config(setting, rule, activation)
            signals[activation, rule] = starting_signals(setting, config, IMAGES, measure)
    measured = {
        (activation, seed): [kept_std(layer, activation, seed) for layer in LAYERS]
        for activation in ACTIVATIONS for seed in setting.seeds
    }  # fmt: skip
    stds: Stds = {
        (activation, way): [[one[way] for one in measured[activation, seed]] for seed in setting.seeds]
        for activation in ACTIVATIONS for way in WAYS
    }  # fmt: skip
    laws = {key: [fitted_law([layer.fan(key[1]) for layer in LAYERS], one) for one in own] for key, own in stds.items()}
    chance = math.log(len(setting.trials.splits(setting.data).train.class_names))
    trained = setting.pick(quick=("Kaiming", "Xavier"), cpu=("Kaiming", "Xavier"), paper=tuple(RULES))
    runs = {rule: setting.trials.run(rule.replace(" ", "-"), _config(setting, rule), setting.seeds) for rule in trained}
    return Findings(
        study="initialisation",
        question="How large should initial weights be, and what happens if they are not?",
        setup=_setup(setting),
        tables=(_by_rule(signals, runs), _by_fan(stds, laws)),
        claims=_claims(signals, laws, runs, chance),
        draw=lambda figure: draw_study(figure, signals, stds, [layer.fan("forward") for layer in LAYERS], runs, chance),
        size=(12.5, 8.0),
        description="Mean square of activations and of gradients by layer, logarithmic, of ReLU (solid) and tanh "
        "(dashed); the std that keeps the variance against the fan; and the training loss.",
    )


def _config(setting: Setting, rule: str, activation: Any = "relu") -> TrainConfig:
    width = setting.pick(quick=16, cpu=32, paper=64)
    init, std = RULES[rule]
    model = ModelConfig(
        name="vgg11", stage_sizes=(setting.pick(quick=16, cpu=30, paper=30) - 1,), width=width, norm="none",
        activation=activation, dropout=0.0, init=init, init_std=std,
    )  # fmt: skip
    return setting.resized(quick=14, cpu=16, paper=32).config(
        f"{rule} {activation}",
        model,
        epochs=setting.pick(quick=8, cpu=16, paper=60),
        optim=replace(rate(0.03), clip_norm=1.0),
        batch_size=setting.pick(quick=32, cpu=64, paper=128),
        per_class=setting.pick(quick=100, cpu=500, paper=None),
        clean=0,
    )


def _by_rule(signals: dict[tuple[str, str], list[Signal]], runs: dict[str, list[Trial]]) -> Table:
    rows = []
    for (activation, rule), own in signals.items():
        trials = runs.get(rule, []) if activation == "relu" else []
        losses, top1 = [one.train[-1]["loss"] for one in trials], [one.top1 for one in trials]
        rows.append(
            (activation, rule, Spread.of([one.mean_square[-1] / one.mean_square[1] for one in own]).mean,
             Spread.of([_factor(one) for one in own]).mean,
             Spread.of([factor_a_step(one.gradient[-2:0:-1]) for one in own]).mean,
             Spread.of(losses).mean if losses else None, 100 * Spread.of(top1).mean if top1 else None)
        )  # fmt: skip
    head = ("activation", "rule", "last / second layer", "factor a layer", "factor back", "loss", "top-1 (%)")
    return Table("rules", "Mean square of the inputs of the last layer against those of the second, before training; "
                 "the factor for one more layer, of activations forward and of gradients backward, fitted; training "
                 "loss and validation top-1 at the end, of ReLU. Means over seeds.", head, tuple(rows))  # fmt: skip


def _factor(signal: Signal) -> float:
    return factor_a_step(signal.mean_square[1:])


def _by_fan(stds: Stds, laws: dict[tuple[str, Way], list[Law]]) -> Table:
    rows = []
    for (activation, way), own in laws.items():
        constant, power = (Spread.of([getattr(one, name) for one in own]) for name in ("constant", "exponent"))
        for place, layer in enumerate(LAYERS):
            kept = Spread.of([one[place] for one in stds[activation, way]])
            rows.append((activation, way, f"{layer.side}x{layer.side}x{layer.inputs}x{layer.outputs}", layer.fan(way),
                         kept.mean, kept.std, kept.mean**2 * layer.fan(way), constant.mean, power.mean))  # fmt: skip
    head = ("activation", "way", "kernel", "fan", "std kept", "std over seeds", "std² · fan", "constant", "exponent")
    return Table("law", "The std of a kernel at which activation and convolution keep the variance, measured, and "
                 "the law fitted to all: std = sqrt(constant / fan), or a power.", head, tuple(rows))  # fmt: skip


def _claims(
    signals: dict[tuple[str, str], list[Signal]], laws: dict[tuple[str, Way], list[Law]], runs: dict[str, list[Trial]],
    chance: float,
) -> tuple[Claim, ...]:  # fmt: skip
    constants, powers = ({way: Spread.of([getattr(one, name) for one in laws["relu", way]]) for way in WAYS}
                         for name in ("constant", "exponent"))  # fmt: skip
    fit = all(abs(constants[way].mean / 2 - 1) < 0.05 and abs(powers[way].mean + 0.5) < 0.02 for way in WAYS)
    factors = {rule: Spread.of([_factor(one) for one in signals["relu", rule]]) for rule in RULES}
    ratio = Spread.of([x / k for x, k in zip(factors["Xavier"].values, factors["Kaiming"].values, strict=True)])
    loss = {rule: Spread.of([one.train[-1]["loss"] for one in own]) for rule, own in runs.items()}
    top1 = {rule: Spread.of([one.top1 for one in own]) for rule, own in runs.items()}
    apart = beyond_spread(loss["Xavier"], loss["Kaiming"])
    ends_so = loss["Xavier"].low > 0.99 * chance > 0.9 * chance > loss["Kaiming"].high
    depth = len(signals["relu", "Kaiming"][0].layers)
    return (
        Claim("After ReLU a kernel keeps the variance at std = sqrt(2 / fan): fan_in forward, fan_out backward.",
              "; ".join(f"{way}: constant {constants[way].text()}, power {powers[way].text()}" for way in WAYS), fit),
        Claim("With Kaiming's rule the signal stays within a small factor a layer; with Xavier's it halves with each.",
              f"factor a layer: {', '.join(f'{rule} {one.text()}' for rule, one in factors.items())}; Xavier against "
              f"Kaiming {ratio.text()} (1/2); padding takes a part of both",
              0.8 < factors["Kaiming"].mean < 1.25 and abs(ratio.mean - 0.5) < 0.05),
        Claim(f"A network of {depth} layers trains with Kaiming's rule and stalls with Xavier's.",
              f"training loss {', '.join(f'{rule} {one.text()}' for rule, one in loss.items())} (a guess: "
              f"{chance:.4g}); top-1 {', '.join(f'{rule} {one.percent()}' for rule, one in top1.items())}",
              apart and ends_so),
    )  # fmt: skip


def _setup(setting: Setting) -> str:
    config = _config(setting, "Kaiming")
    return (
        f"Stacks of {(config.model.stage_sizes or (0,))[0]} 3x3 convolutions of {config.model.width} channels without "
        "norm, a 2x2 max-pool, the mean over the map and the head; zero padding takes a little of the variance at each "
        f"border. Images of {config.data.image_size} pixels, {config.data.per_class or 'all'} a class; "
        f"{config.train.epochs:g} epochs of batches of {config.train.batch_size}, SGD with Nesterov momentum 0.9 and "
        f"decay 1e-4 at {config.optim.peak_lr:g}, an epoch of warm-up, gradients cut at {config.optim.clip_norm:g}, "
        f"the same for all rules. Signals are those of {IMAGES} training images before any step. Kaiming is by fan_in; "
        "where all layers are equally wide Xavier and LeCun differ in the first alone. He et al. 2015 (Delving Deep, "
        f"figure 3) train 30 wider layers on ImageNet. Seeds: {len(setting.seeds)}."
    )
