"""Over which axes each norm normalises, and what small batches do to it (Wu & He 2018, figures 2 and 5)."""

from typing import Any

import numpy as np

from jaxcnn.config import ModelConfig, TrainConfig
from jaxcnn.inspection.norm_axes import draw_cube, formula_sets, measured_sets
from jaxcnn.models.norms import BatchNorm, GroupNorm, InstanceNorm, LayerNorm
from jaxcnn.studies.findings import Claim, Findings, Table
from jaxcnn.studies.panels import draw_spreads, finish
from jaxcnn.studies.setting import AS_THEY_ARE, HE_2015, Setting, rate
from jaxcnn.studies.spread import Spread, beyond_spread

SHAPE = (4, 2, 2, 6)
"""Of the map that is perturbed: N, H, W, C."""
ELEMENT = (0, 1, 1, 0)
"""Which of its values the cubes show."""
CUBES: dict[str, Any] = {"batch": BatchNorm(), "layer": LayerNorm(), "instance": InstanceNorm(), "group": GroupNorm(2)}
WORKERS = {"quick": 2, "cpu": 4, "paper": 8}
"""Over which each batch is divided: batch norm takes the statistics of one worker's images, as on the paper's GPUs."""

Tops = dict[Any, dict[int, Spread]]
"""Top-1 by norm and by images a worker."""


def study(setting: Setting) -> Findings:
    """Returns the axes of four norms, measured, and their top-1 by the images that share statistics."""
    sets = {name: measured_sets(norm, SHAPE) for name, norm in CUBES.items()}
    exact = {name: int(np.sum(np.all(sets[name] == formula_sets(norm, SHAPE), axis=(1, 2, 3, 4))))
             for name, norm in CUBES.items()}  # fmt: skip
    sizes = setting.pick(quick=(32, 8, 2), cpu=(32, 16, 8, 4, 2), paper=(32, 16, 8, 4, 2))
    setting = setting.resized(quick=14, cpu=16, paper=None)  # a quarter of the arithmetic
    tops: Tops = {}
    for norm in CUBES:
        for size in sizes:
            config = config_of(setting, norm, size)
            trials = setting.trials.run(config.name, config, setting.seeds)
            tops.setdefault(norm, {})[size] = Spread.of([trial.top1 for trial in trials])
    return Findings(
        study="norm-axes",
        question="Over which axes does each norm normalise, and what do small batches do to it?",
        setup=_setup(setting, config),
        tables=(_accuracies(tops), _axes(sets, exact)),
        claims=claims(tops, exact),
        draw=lambda figure: draw(figure, sets, tops),
        size=(11.0, 7.6),
        description="Above: one value (red) of a map of 4 images, 6 channels and 2x2 pixels is perturbed; blue are the "
        "outputs that change with it. Below: top-1 by the images that share batch norm's statistics, a dot a seed.",
    )


def config_of(setting: Setting, norm: Any, size: int) -> TrainConfig:
    """Returns the config of a network with so many images a worker; the learning rate is linear in them."""
    width = setting.pick(quick=8, cpu=8, paper=16)
    virtual = size if norm == "batch" else None
    return setting.config(
        f"{norm}-{size}",
        ModelConfig(name=setting.pick(quick="resnet8", cpu="resnet8", paper="resnet20"), width=width, norm=norm,
                    num_groups=width // 4, virtual_batch_size=virtual),
        epochs=setting.pick(quick=15, cpu=4, paper=100),
        optim=rate(0.1 * size / 32),
        batch_size=size * WORKERS[setting.size],
        augment=setting.pick(quick=AS_THEY_ARE, cpu=AS_THEY_ARE, paper=HE_2015),
        per_class=setting.pick(quick=80, cpu=1000, paper=None),
        every_epochs=setting.pick(quick=15, cpu=4, paper=5),
        clean=0,
    )  # fmt: skip


def claims(tops: Tops, exact: dict[str, int]) -> tuple[Claim, ...]:
    """Returns what holds of the axes, and of the largest number of images beside the smallest."""
    count, (large, *_, small) = int(np.prod(SHAPE)), tops["batch"]
    drops = {norm: Spread.of(list(np.subtract(by[large].values, by[small].values))) for norm, by in tops.items()}
    told = {
        norm: f"{norm} {by[large].percent()} at {large}, {by[small].percent()} at {small}" for norm, by in tops.items()
    }
    lost = ", ".join(f"{norm} {drop.text(100, '.1f')}" for norm, drop in drops.items())
    return (
        Claim(
            "Each norm normalises over the axes that its paper names.",
            f"the outputs that change are those of the formula for {', '.join(f'{n} {c}' for n, c in exact.items())} "
            f"of {count} values perturbed.",
            all(found == count for found in exact.values()),
        ),
        Claim(
            "Batch norm falls apart where few images share its statistics.",
            f"top-1 {told['batch']} images.",
            beyond_spread(tops["batch"][large], tops["batch"][small]),
        ),
        Claim(
            "Group norm does not: it loses less than batch norm.",
            f"top-1 {told['group']} images; points lost: {lost}.",
            beyond_spread(drops["batch"], drops["group"]),
        ),
        Claim(
            "With few images, group norm is the better of the two.",
            f"top-1 at {small}: group {tops['group'][small].percent()}, batch {tops['batch'][small].percent()}.",
            beyond_spread(tops["group"][small], tops["batch"][small]),
        ),
    )


def _accuracies(tops: Tops) -> Table:
    sizes = list(tops["batch"])
    rows = tuple((norm, *(by[size].percent() for size in sizes)) for norm, by in tops.items())
    caption = "Top-1 by norm and by images a worker, mean and standard deviation of the seeds."
    return Table("accuracy", caption, ("norm", *(f"{size} images" for size in sizes)), rows)


def _axes(sets: dict[str, np.ndarray], exact: dict[str, int]) -> Table:
    rows = tuple((norm, int(np.sum(changed[0])), exact[norm], len(changed)) for norm, changed in sets.items())
    caption = f"Outputs of a map N, H, W, C = {SHAPE} that change with its first value; for how many values the "
    caption += "changed outputs are those of the formula."
    return Table("axes", caption, ("norm", "outputs that change", "as the formula", "values perturbed"), rows)


def _setup(setting: Setting, config: TrainConfig) -> str:
    cuts = setting.pick(
        quick="800 digits of 14x14 pixels, as they are, and a ResNet-8 for ImageNet and a ResNet-50.",
        cpu="10,000 images of CIFAR-10 at 16x16 pixels, as they are, and a ResNet-8 for ImageNet and a ResNet-50.",
        paper="CIFAR-10, padded, cropped and flipped, and a ResNet-20 instead of ImageNet and a ResNet-50.",
    )
    return (
        f"{WORKERS[setting.size]} workers of so many images each make a batch, and batch norm normalises those of a "
        "worker together (`virtual_batch_size`), as on the 8 GPUs of the paper: so the gradient's batch is larger than "
        f"that of the statistics. {config.train.epochs:g} epochs with each, so more steps with fewer images; "
        f"SGD with Nesterov momentum 0.9 at 0.1 times images / 32, {config.model.num_groups} groups, "
        f"{len(setting.seeds)} seeds. Running statistics keep 0.9 of the old from worker to worker, so they are "
        "those of the last ten: with 2 images each, of some 20, "
        f"which is a part of what batch norm loses. Cut: {cuts}"
    )


def draw(figure: Any, sets: dict[str, np.ndarray], tops: Tops) -> None:
    """Draws the cubes of four norms above the accuracies."""
    above, below = figure.subfigures(2, 1, height_ratios=(1, 1.1))
    for place, (norm, changed) in enumerate(sets.items()):
        axes = above.add_subplot(1, len(sets), place + 1, projection="3d")
        draw_cube(axes, changed[np.ravel_multi_index(ELEMENT, SHAPE)], ELEMENT, f"{norm} norm")
    axes = below.subplots()
    draw_spreads(axes, {f"{norm} norm": by for norm, by in tops.items()}, 100)
    axes.set_xscale("log", base=2)
    axes.invert_xaxis()
    sizes = list(tops["batch"])
    axes.minorticks_off()
    finish(axes, xlabel="images a worker", ylabel="top-1 (%)", xticks=sizes, xticklabels=[str(size) for size in sizes])
