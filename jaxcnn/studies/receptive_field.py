"""Receptive fields: why 3x3 convolutions are stacked, what networks can see, and how much of it counts.

Simonyan & Zisserman 2014, section 2.3; Araujo et al. 2019; Luo et al. 2016.
"""

from functools import partial
from typing import Any

import numpy as np

from jaxcnn.config import ModelConfig
from jaxcnn.inspection.effective_field import fit_gaussian, pixels_with, random_walk
from jaxcnn.studies.findings import Claim, Findings, Table
from jaxcnn.studies.seen_fields_figure import draw
from jaxcnn.studies.seen_pixels import Seen, Stack, measure_field, seen_at_initialisation
from jaxcnn.studies.setting import HE_2015, Setting
from jaxcnn.studies.spread import Spread, beyond_spread

PUBLISHED = {
    "vgg16": {"stage5": 212},
    "resnet18": {"stem": 11, "stage1": 43, "stage2": 99, "stage3": 211, "stage4": 435},
    "resnet34": {"stem": 11, "stage1": 59, "stage2": 179, "stage3": 547, "stage4": 899},
    "resnet50": {"stem": 11, "stage1": 35, "stage2": 91, "stage3": 267, "stage4": 427},
    "resnet101": {"stem": 11, "stage1": 35, "stage2": 91, "stage3": 811, "stage4": 971},
}
"""Pixels along an axis; Araujo et al. 2019, and for 18 and 34 layers the same sums."""
CHANNELS = 64


def study(setting: Setting) -> Findings:
    """Returns what modules see, by their program and by gradients."""
    stacks = [Stack.of(sides, CHANNELS) for sides in ((7,), (3, 3, 3), (5,), (3, 3))]
    names = setting.pick(quick=("vgg16", "resnet18", "resnet50"), cpu=tuple(PUBLISHED), paper=tuple(PUBLISHED))
    draws, seeds = setting.pick(quick=4, cpu=8, paper=8), setting.seeds
    networks = {
        name: seen_at_initialisation(ModelConfig(name=name, width=4), None, seeds[:1], draws, 1) for name in names
    }
    blocks = setting.pick(quick=(2, 4, 8, 16), cpu=(2, 4, 8, 16, 32), paper=(2, 4, 8, 16, 32, 64))
    growth = {2 * n + 1: _plain(n, setting) for n in blocks}
    trained = _trained(setting)
    tables = (_stack_table(stacks), _network_table(networks), _growth_table(growth), _trained_table(trained))
    return Findings(
        study="receptive-field",
        question="Why are 3x3 convolutions stacked, which pixels can a unit see, and which of them count for it?",
        setup=_setup(setting, draws),
        tables=tables,
        claims=(_stack_claim(stacks), _size_claim(networks), _growth_claim(growth), _trained_claim(trained)),
        draw=partial(draw, networks, growth, trained),
        size=(11.5, 7.2),
        description="Squares: the theoretical field. Bright: the pixels whose change matters, by the squared gradient, "
        "each map divided by its maximum. Right: the field that could be seen grows as the depth, what counts as its "
        "square root. Below: the last map of a small ResNet before and after training.",
        details={"heats": {name: fields[-1].heats.mean(0).tolist() for name, fields in networks.items()}}
        if setting.size == "paper" else {},
    )  # fmt: skip


def _plain(blocks: int, setting: Setting) -> Seen:
    config = ModelConfig(
        name="resnet20", stage_sizes=(blocks,), block="plain", norm="none", stem="small", width=8
    )  # fmt: skip
    draws = setting.pick(quick=16, cpu=64, paper=64)
    return seen_at_initialisation(config, ("stage1",), setting.seeds, draws, 4)[0]


def _trained(setting: Setting) -> list[dict[str, np.ndarray]]:
    model = ModelConfig(name=setting.pick(quick="resnet8", cpu="resnet20", paper="resnet56"))
    config = setting.config(
        "field", model, epochs=setting.pick(quick=8, cpu=15, paper=160), augment=HE_2015, every_epochs=200,
        per_class=setting.pick(quick=100, cpu=None, paper=None),
    )  # fmt: skip
    trials = setting.trials.run(model.name, config, setting.seeds, measure_field)
    return [{**{k: np.array(v) for k, v in trial.measured.items()}, "top1": np.array(trial.top1)} for trial in trials]


def _stack_table(stacks: list[Stack]) -> Table:
    rows = [
        (" + ".join(f"{side}x{side}" for side in stack.sides), stack.theory.size, stack.measured, stack.parameters,
         f"{stack.parameters // CHANNELS**2} C²", None if stack.flops is None else stack.flops / 1e6, len(stack.sides))
        for stack in stacks
    ]  # fmt: skip
    head = ("convolutions", "sees px", "measured px", "weights", "in C²", "MFLOP at 32 px", "activations")
    return Table("stacks", f"Stacks of convolutions of C = {CHANNELS} channels, an image of 32x32.", head, tuple(rows))


def _network_table(networks: dict[str, list[Seen]]) -> Table:
    rows = [
        (name, seen.part, PUBLISHED[name].get(seen.part), seen.theory.size, seen.measured[0][1] - seen.measured[0][0] + 1,
         seen.theory.stride, Spread.of(seen.sigmas).mean, 100 * Spread.of(seen.shares).mean)
        for name, fields in networks.items() for seen in fields
    ]  # fmt: skip
    head = ("network", "map", "published", "from the program", "with a gradient", "stride", "sigma", "counts %")
    caption = (
        "Fields along an axis in pixels, at random weights: sigma is the standard deviation of the squared gradient, "
        "and the last column how much of the field's area holds 95.45 % of it."
    )
    return Table("networks", caption, head, tuple(rows))


def _growth_table(growth: dict[int, Seen]) -> Table:
    rows = [
        (depth, seen.theory.size, Spread.of(seen.sigmas).text(), random_walk([(3, 1)] * depth),
         fit_gaussian(seen.heats.mean(0)).r2, Spread.of(seen.shares).text(100))
        for depth, seen in growth.items()
    ]  # fmt: skip
    head = ("3x3 layers", "field", "sigma", "sqrt(2 n / 3)", "R² of a Gaussian", "counts %")
    return Table(
        "growth", "Plain stacks with ReLU at random weights; mean and deviation over seeds.", head, tuple(rows)
    )


def _trained_table(trained: list[dict[str, np.ndarray]]) -> Table:
    rows = [
        (seed, *(pixels_with(of[when]) for when in ("before", "after")), of["before"].size, 100 * float(of["top1"]))
        for seed, of in enumerate(trained)
    ]
    head = ("seed", "pixels before", "pixels after", "of", "top-1 %")
    return Table("trained", "Pixels of the image that hold 95.45 % of the squared gradient.", head, tuple(rows))


def _stack_claim(stacks: list[Stack]) -> Claim:
    one, three = stacks[:2]
    same = one.theory == three.theory and one.measured == three.measured == one.theory.size
    numbers = (
        f"both see {three.theory.size} pixels, measured {three.measured} and {one.measured}; {three.parameters:,} weights "
        f"and {one.parameters:,}, {3 * 9} C² and {7 * 7} C²; 3 activations and 1"
    )
    right = same and 49 * three.parameters == 27 * one.parameters
    return Claim("Three 3x3 convolutions see what one 7x7 sees, with 27/49 of the weights.", numbers, right)


def _size_claim(networks: dict[str, list[Seen]]) -> Claim:
    every = [(name, seen) for name, fields in networks.items() for seen in fields]
    known = [(seen.theory.size, PUBLISHED[name][seen.part]) for name, seen in every if seen.part in PUBLISHED[name]]
    exact, right = sum(seen.is_exact for _, seen in every), sum(ours == theirs for ours, theirs in known)
    numbers = f"{right} of {len(known)} published sizes; of {exact} of {len(every)} maps the first and the last pixel"
    statement = "The field that follows from the program is the published one, and gradients reach just its pixels."
    return Claim(statement, numbers, right == len(known) and exact == len(every))


def _growth_claim(growth: dict[int, Seen]) -> Claim:
    depths, first, *_, last = np.array(list(growth)), *growth.values()
    powers = [
        np.polyfit(np.log(depths), np.log(of), 1)[0] for of in zip(*(s.sigmas for s in growth.values()), strict=True)
    ]
    r2 = fit_gaussian(last.heats.mean(0)).r2
    smaller = beyond_spread(Spread.of(first.shares), Spread.of(last.shares))
    numbers = (
        f"sigma grows as depth to the {Spread.of(powers).text()}; a Gaussian explains {100 * r2:.1f} % of the deepest map; "
        f"{Spread.of(first.shares).percent()} of the area count at {depths[0]} layers, "
        f"{Spread.of(last.shares).percent()} at {depths[-1]}"
    )
    fits = 0.45 < min(powers) and max(powers) < 0.55 and r2 > 0.95
    statement = (
        "What counts is a Gaussian whose width grows as the square root of the depth, so ever less of the field."
    )
    return Claim(statement, numbers, None if fits and smaller is None else bool(fits and smaller))


def _trained_claim(trained: list[dict[str, np.ndarray]]) -> Claim:
    before, after = (Spread.of([pixels_with(of[when]) for of in trained]) for when in ("before", "after"))
    numbers = f"{before.text()} pixels before, {after.text()} after, of {trained[0]['after'].size}"
    return Claim("Training widens what counts.", numbers, beyond_spread(after, before))


def _setup(setting: Setting, draws: int) -> str:
    return (
        "**Fields.** From the traced programs of the live modules; measured by the gradient of the centre unit of each map "
        f"with respect to the image, over {draws} draws of weights and images. The networks have width 4 instead of 64, "
        "which changes no field. Batch norms are those of evaluation: statistics over the map would let all pixels in.\n\n"
        "**Growth.** Plain networks of 3x3 convolutions with ReLU, width 8, without norm, Kaiming weights.\n\n"
        f"**Training.** {setting.pick(quick='resnet8 on 1,000 digits, 8 epochs', cpu='resnet20, 15 epochs', paper='resnet56')}, "
        "SGD at rate 0.1 with a cosine. **Cut:** no network with 7x7 convolutions is trained beside one of 3x3, since no "
        "network of the library has stages of 7x7; Luo et al. trained longer, and on ImageNet for segmentation too."
    )
