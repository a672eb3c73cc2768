"""Why sigmoid vanishes: the gradient of the first layer by depth and activation, what trains, and kinks at 0."""

from typing import Any

import numpy as np

from jaxcnn.config import ModelConfig, OptimConfig, TrainConfig
from jaxcnn.inspection.derivatives import Slopes, derivative, slopes
from jaxcnn.inspection.signal import factor_a_step
from jaxcnn.models.layers import ACTIVATIONS, GAINS
from jaxcnn.studies.activation_figure import COLOURS, draw_study
from jaxcnn.studies.findings import Claim, Findings, Table
from jaxcnn.studies.setting import Setting
from jaxcnn.studies.spread import Spread, beyond_spread
from jaxcnn.studies.starting_points import starting_signals

NAMES = tuple(COLOURS)
DEPTHS = {"quick": (2, 8, 16), "cpu": (2, 4, 8, 16, 32), "paper": (2, 4, 8, 16, 32)}
"""Layers with weights: 3x3 convolutions and the head."""
UNTRAINED = {"quick": (), "cpu": (4, 8, 16), "paper": ()}  # of these the gradient at the start alone
LINE = tuple(np.linspace(-6, 6, 1201).tolist())
IMAGES = 64  # whose loss gives the gradients at the start
Runs = dict[tuple[str, int], Spread]


def study(setting: Setting) -> Findings:
    """Returns gradient norms of the first layer and accuracies, and the numerics of each function around 0."""
    depths, seeds = DEPTHS[setting.size], setting.seeds
    gradients, accuracy = Runs(), Runs()
    for depth in reversed(depths):
        for name in NAMES:
            config = _config(setting, name, depth)
            start = starting_signals(setting, config, IMAGES)
            gradients[name, depth] = Spread.of([one.kernel_gradient[0] for one in start])
            if depth not in UNTRAINED[setting.size]:
                trained = setting.trials.run(f"{name}-{depth}", config, seeds)
                accuracy[name, depth] = Spread.of([one.top1 for one in trained])
    chance = 1 / len(setting.trials.splits(setting.data).train.class_names)
    factors = {name: _factors(gradients, name, depths) for name in NAMES}
    around = {name: slopes(ACTIVATIONS[name]) for name in NAMES}
    curves = {name: derivative(ACTIVATIONS[name], np.asarray(LINE)) for name in NAMES}
    layers = Table(
        "layers",
        "Norm of the first kernel's gradient at the start, and top-1 on validation at the end: mean and std of seeds.",
        ("activation", "layers", "gradient of the first kernel", "std of gradient", "top-1 (%)", "std of top-1"),
        tuple(
            (name, depth, gradients[name, depth].mean, gradients[name, depth].std,
             *((100 * own.mean, 100 * own.std) if (own := accuracy.get((name, depth))) else (None, None)))
            for name in NAMES for depth in depths
        ),
    )  # fmt: skip
    functions = Table(
        "functions",
        "The functions as the networks have them, in float64: largest derivative; slopes to the right and left of 0 "
        f"and the second difference at a step of {around['relu'].steps[3]:g}; the power of the step with which the two "
        "slopes meet; the gain of the initialiser; the factor of the first gradient for one more layer.",
        ("activation", "largest slope", "right of 0", "left of 0", "second", "power", "gain", "factor a layer"),
        tuple(
            (name, float(curves[name].max()), own.right[3], own.left[3], own.second[3], own.order, GAINS[name],
             factors[name].mean)
            for name, own in around.items()
        ),
    )  # fmt: skip
    return Findings(
        study="activations",
        question="Why do deep networks not learn with sigmoid, and what do ReLU and GELU do instead?",
        setup=_setup(setting, depths),
        tables=(layers, functions),
        claims=_claims(gradients, accuracy, factors, around, curves, depths, chance),
        draw=lambda figure: draw_study(figure, np.asarray(LINE), curves, gradients, accuracy, depths, chance),
        size=(12.5, 8.0),
        description="Derivatives; the gradient of the first kernel at the start on a logarithmic axis, where c to the "
        "power of the depth is a straight line; accuracy after training; and how the slopes on both sides of 0 meet.",
    )


def _config(setting: Setting, name: Any, depth: int) -> TrainConfig:
    """A stack of convolutions of one width, a max-pool, the mean over the map and the head."""
    width = setting.pick(quick=16, cpu=32, paper=64)
    model = ModelConfig(name="vgg11", stage_sizes=(depth - 1,), width=width, norm="none", activation=name, dropout=0.0)
    return setting.resized(quick=14, cpu=16, paper=32).config(
        f"{name}-{depth}",
        model,
        epochs=setting.pick(quick=8, cpu=12, paper=60),
        # Adam, whose steps do not depend on the size of a gradient: what fails does not fail for want of a rate.
        optim=OptimConfig(
            name="adamw", peak_lr=setting.pick(quick=2e-3, cpu=1e-3, paper=1e-3), weight_decay=0.0, ema_decay=None
        ),
        batch_size=setting.pick(quick=32, cpu=64, paper=128),
        per_class=setting.pick(quick=80, cpu=500, paper=None),
        every_epochs=setting.pick(quick=8, cpu=4, paper=5),
        clean=0,
    )


def _factors(gradients: Runs, name: str, depths: tuple[int, ...]) -> Spread:
    """Of each seed, c of the gradient as c^depth."""
    each = zip(*(gradients[name, depth].values for depth in depths), strict=True)
    return Spread.of([factor_a_step(list(norms), depths) for norms in each])


def _claims(
    gradients: Runs, accuracy: Runs, factors: dict[str, Spread], around: dict[str, Slopes],
    curves: dict[str, Any], depths: tuple[int, ...], chance: float,
) -> tuple[Claim, ...]:  # fmt: skip
    deep, learnt = depths[-1], chance + 0.1 * (1 - chance)
    vanishes = beyond_spread(factors["relu"], factors["sigmoid"])
    vanishes = vanishes and bool(factors["sigmoid"].high < 0.5 and factors["relu"].low > 0.8)
    bound = factors["sigmoid"].high <= 0.25 if len(factors["sigmoid"].values) > 1 else None
    stuck = [beyond_spread(accuracy[name, deep], accuracy["sigmoid", deep]) for name in ("relu", "gelu")]
    ends_so = accuracy["sigmoid", deep].high < learnt < min(accuracy[name, deep].low for name in ("relu", "gelu"))
    fitted = ", ".join(f"{name} {spread.text()}" for name, spread in factors.items())
    ends = ", ".join(f"{name} {accuracy[name, deep].percent()}" for name in NAMES)
    jumps = {name: abs(own.jump[-1]) for name, own in around.items()}
    return (
        Claim("With sigmoid the gradient of the first layer falls exponentially with depth; with ReLU it does not.",
              f"factor for one more layer: {fitted}; at {deep} layers {gradients['sigmoid', deep].text()} against "
              f"{gradients['relu', deep].text()}", vanishes),
        Claim("Sigmoid's derivative is 1/4 at most, and a layer lets at most that share of the gradient through, its "
              "kernel being of gain 1.",
              f"largest derivative {curves['sigmoid'].max():.6g}, factor a layer {factors['sigmoid'].text()}",
              None if bound is None else bound and abs(curves["sigmoid"].max() - 0.25) < 1e-9),
        Claim(f"A network of {deep} layers learns with ReLU and GELU, and with sigmoid stays at chance.",
              f"top-1 at {deep} layers: {ends}; chance is {100 * chance:.3g} %",
              None if None in stuck else all(stuck) and ends_so),
        Claim("GELU has a derivative at 0, and a second one; ReLU has none.",
              f"slopes right and left of 0 differ at a step of {around['relu'].steps[-1]:g} by {jumps['gelu']:.2g} "
              f"(GELU) and {jumps['relu']:.2g} (ReLU); GELU's meet with the power {around['gelu'].order:.3f} of the "
              f"step, its second difference is {around['gelu'].second[3]:.6g} (2/sqrt(2 pi) is 0.797885), ReLU's is "
              f"1 / step",
              jumps["gelu"] < 1e-5 and abs(around["gelu"].order - 1) < 0.01 and abs(jumps["relu"] - 1) < 1e-9),
    )  # fmt: skip


def _setup(setting: Setting, depths: tuple[int, ...]) -> str:
    config = _config(setting, "relu", depths[-1])
    return (
        f"Stacks of 3x3 convolutions of {config.model.width} channels with biases, without norm and dropout, a 2x2 "
        f"max-pool, the mean over the map and the head: {', '.join(map(str, depths))} layers with weights. Kernels by "
        "Kaiming's rule, fan_out, with the gain of each activation (table). Images of "
        f"{config.data.image_size} pixels, {config.data.per_class or 'all'} a class; {config.train.epochs:g} epochs of "
        f"batches of {config.train.batch_size}; Adam at {config.optim.peak_lr:g} after one epoch of warm-up, then a "
        "cosine to 0, the same for all. Gradients at the start are of the mean loss of "
        f"{IMAGES} training images, before any step. Seeds: {len(setting.seeds)}. "
        f"{UNTRAINED[setting.size] or 'None'} layers are not trained. No one paper has this experiment: "
        "Glorot & Bengio 2010 compare activations at up to five layers, He et al. 2015 initialisers at 22 and 30."
    )
