"""Receptive fields: why 3x3 convolutions are stacked, what networks can see, and how much of it counts.

Simonyan & Zisserman 2014, section 2.3; Araujo et al. 2019; Luo et al. 2016.
"""

from functools import partial

import numpy as np

from jaxcnn.config import ModelConfig, TrainConfig
from jaxcnn.inspection.effective_field import fit_gaussian
from jaxcnn.studies.findings import Claim, Findings
from jaxcnn.studies.seen_figure import draw
from jaxcnn.studies.seen_pixels import Seen, Stack, Trained, measure_field, seen_at_initialisation, trained_fields
from jaxcnn.studies.seen_tables import growth_table, network_table, stack_table, trained_table
from jaxcnn.studies.setting import AS_THEY_ARE, HE_2015, Setting
from jaxcnn.studies.spread import Spread, beyond_spread

PUBLISHED = {
    "vgg16": {"stage5": 212},
    "resnet18": {"stem": 11, "stage1": 43, "stage2": 99, "stage3": 211, "stage4": 435},
    "resnet34": {"stem": 11, "stage1": 59, "stage2": 179, "stage3": 547, "stage4": 899},
    "resnet50": {"stem": 11, "stage1": 35, "stage2": 91, "stage3": 267, "stage4": 427},
    "resnet101": {"stem": 11, "stage1": 35, "stage2": 91, "stage3": 811, "stage4": 971},
}
"""Pixels along an axis, of the networks as torchvision has them: the stride of a bottleneck is on its 3x3 convolution.
The ResNets of Araujo et al. 2019 are TF-Slim's, which have it in the last block of a stage."""


def study(setting: Setting) -> Findings:
    """Returns what modules see, by their program and by gradients."""
    stacks = [Stack.of(sides, channels=64) for sides in ((7,), (3, 3, 3), (5,), (3, 3))]
    all_names = tuple(PUBLISHED)
    names = setting.pick(quick=("vgg16", "resnet18", "resnet50"), cpu=all_names, paper=all_names)
    draws = setting.pick(quick=4, cpu=8, paper=8)
    networks = {
        name: seen_at_initialisation(ModelConfig(name=name, width=4), None, setting.seeds[:1], draws, 1, exactly=True)
        for name in names
    }
    blocks = setting.pick(quick=(2, 4, 8, 16), cpu=(2, 4, 8, 16, 32), paper=(2, 4, 8, 16, 32, 64))
    growth = {2 * n + 1: _plain(n, setting) for n in blocks}
    trained = _trained(setting)
    return Findings(
        study="receptive-field",
        question="Why are 3x3 convolutions stacked, which pixels can a unit see, and which of them count for it?",
        setup=_setup(setting, draws, trained),
        tables=(stack_table(stacks), network_table(networks, PUBLISHED), growth_table(growth), trained_table(trained)),
        claims=(_stack_claim(stacks), _size_claim(networks), _growth_claim(growth), _trained_claim(trained)),
        draw=partial(draw, networks, growth, trained),
        size=(11.5, 7.2),
        description="Above: squares are theoretical fields; bright are the pixels that count, by the root of the mean "
        "squared gradient of the unit in the middle, each map divided by its maximum. Below: the field that could be "
        "seen grows as the depth, what counts as its square root; and the last map of a ResNet before and after "
        "training.",
    )


def _plain(blocks: int, setting: Setting) -> Seen:
    width, draws, images = setting.pick(quick=(8, 16, 4), cpu=(16, 32, 2), paper=(32, 64, 2))
    config = ModelConfig(
        name="resnet20", stage_sizes=(blocks,), block="plain", norm="none", stem="small", width=width
    )  # fmt: skip
    return seen_at_initialisation(config, ("stage1",), setting.seeds, draws, images)[0]


def _trained(setting: Setting) -> list[Trained]:
    config = _config(setting)
    return trained_fields(setting.trials.run(config.model.name, config, setting.seeds, measure_field))


def _config(setting: Setting) -> TrainConfig:
    model = ModelConfig(name=setting.pick(quick="resnet8", cpu="resnet8", paper="resnet56"))
    epochs, per_class = setting.pick(quick=(20, 100), cpu=(10, 500), paper=(160, None))
    augment = setting.pick(quick=AS_THEY_ARE, cpu=HE_2015, paper=HE_2015)
    return setting.config("field", model, epochs=epochs, augment=augment, every_epochs=epochs, per_class=per_class)


def _stack_claim(stacks: list[Stack]) -> Claim:
    one, three = stacks[:2]
    same = one.theory == three.theory and one.measured == three.measured == one.theory.size
    numbers = (
        f"three 3x3 and one 7x7 see {three.theory.size} and {one.theory.size} pixels, by gradients {three.measured} "
        f"and {one.measured}; they have {three.parameters:,} and {one.parameters:,} weights, 3 activations and 1"
    )
    right = same and 49 * three.parameters == 27 * one.parameters
    return Claim("Three 3x3 convolutions see what one 7x7 sees, with 27/49 of the weights.", numbers, right)


def _size_claim(networks: dict[str, list[Seen]]) -> Claim:
    every = [(name, seen) for name, fields in networks.items() for seen in fields]
    known = [(seen.theory.size, PUBLISHED[name][seen.part]) for name, seen in every if seen.part in PUBLISHED[name]]
    exact, right = sum(seen.is_exact for _, seen in every), sum(ours == theirs for ours, theirs in known)
    numbers = (
        f"{right} of {len(known)} published sizes are met; of {exact} of {len(every)} maps a gradient reaches the "
        "first and the last pixel of the field along both axes, and none beyond"
    )
    statement = "The field that follows from the program is the published one, and gradients reach just its pixels."
    return Claim(statement, numbers, right == len(known) and exact == len(every))


def _growth_claim(growth: dict[int, Seen]) -> Claim:
    depths, seen = list(growth), list(growth.values())
    by_seed = np.log([one.sigmas for one in seen])  # [depths, seeds]
    powers = Spread.of(np.polyfit(np.log(depths), by_seed, 1)[0])
    shallow, deep = Spread.of(seen[0].shares), Spread.of(seen[-1].shares)
    r2 = fit_gaussian(seen[-1].heats.mean(axis=0)).r2
    numbers = (
        f"sigma grows as depth to the {powers.text()}; a Gaussian explains {100 * r2:.1f} % of the deepest map; "
        f"{shallow.percent()} of the area count at {depths[0]} layers, {deep.percent()} at {depths[-1]}"
    )
    smaller, fits = beyond_spread(shallow, deep), powers.low > 0.45 and powers.high < 0.55 and r2 > 0.95
    statement = "What counts is a Gaussian whose width grows as the square root of depth, so ever less of the field."
    return Claim(statement, numbers, None if fits and smaller is None else bool(fits and smaller))


def _trained_claim(trained: list[Trained]) -> Claim:
    part = list(trained[0].pixels)[-1]
    before, after = (Spread.of([of.pixels[part][when] for of in trained]) for when in (0, 1))
    numbers = f"{before.text()} pixels before, {after.text()} after, of {trained[0].size} ({part})"
    return Claim("Training widens what counts.", numbers, beyond_spread(after, before))


def _setup(setting: Setting, draws: int, trained: list[Trained]) -> str:
    config = _config(setting)
    changed = setting.pick(quick="as they are", cpu="shifted and mirrored", paper="shifted and mirrored")
    run = f"{config.model.name} on {setting.data_name}, {config.data.per_class or 'all'} images a class, {changed}, "
    run += f"{config.train.epochs:g} epochs, {len(trained)} seeds"
    return (
        "**Fields** are those of the traced programs of the live modules. They are measured by the gradient of the "
        f"centre unit of each map with respect to the image, over {draws} draws of weights and images, on the CPU. "
        "The networks have width 4 instead of 64, which changes no field. Batch norms are those of evaluation: "
        "statistics over a batch or a map would let all pixels in.\n\n"
        f"**Growth**: plain 3x3 convolutions with ReLU, width {setting.pick(quick=8, cpu=16, paper=32)}, without norm, "
        "with Kaiming's weights.\n\n"
        f"**Training**: {run}, SGD at rate 0.1 with a cosine; top-1 "
        f"{Spread.of([of.top1 for of in trained]).percent()}. Before training batch norms use the statistics of the "
        "images that are measured. That training widens what counts is Luo et al. 2016, section 3.\n\n"
        "**Cut**: no network of 7x7 convolutions is trained beside one of 3x3, as no network of the library has stages "
        "of 7x7; and Luo et al. measured trained networks of segmentation too."
    )
