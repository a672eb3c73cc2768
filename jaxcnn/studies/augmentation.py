"""What each random change to images is worth: each alone, and some together, on a sample small enough to be learnt by
heart.

Every operation of `config_augment.py` states by its presence that an image stays of its class when it is changed so: a
statement about the task, which is wrong for some (a mirrored digit is no digit).
"""

from typing import Any

import numpy as np

from jaxcnn.config import ModelConfig
from jaxcnn.studies.findings import Claim, Findings, Table
from jaxcnn.studies.operations import NOT_MIRRORED, operations
from jaxcnn.studies.setting import Setting, rate
from jaxcnn.studies.spread import Spread, beyond_spread
from jaxcnn.studies.trials import Trial

Measured = dict[str, list[Trial]]
LEFT_OUT = {"quick": (), "cpu": ("mixup", "cutmix", "randaugment", "trivialaugment"), "paper": ()}
"""Operations that are not trained alone."""


def study(setting: Setting) -> Findings:
    """Returns accuracy and gap by operation."""
    mirrored = setting.data.source != "tfds" or setting.data.name not in NOT_MIRRORED
    pad_px, hole_px = (4, 12) if mirrored else (2, 8)
    per_class, epochs = setting.pick(quick=20, cpu=200, paper=500), setting.pick(quick=30, cpu=60, paper=120)
    width, batch_size = setting.pick(quick=8, cpu=16, paper=16), setting.pick(quick=50, cpu=100, paper=128)
    model = ModelConfig(name=setting.pick(quick="resnet8", cpu="resnet8", paper="resnet20"), width=width)
    measured: Measured = {}
    for name, augment in operations(pad_px, hole_px, mirrored=mirrored).items():
        if name in LEFT_OUT[setting.size]:
            continue
        config = setting.config(
            "augmentation", model, epochs=epochs, optim=rate(0.1, weight_decay=5e-4), batch_size=batch_size,
            augment=augment, per_class=per_class, every_epochs=epochs, warmup_epochs=5, clean=100_000,
        )  # fmt: skip
        measured[name] = setting.trials.run(name.replace(" + ", "-"), config, setting.seeds)
    rows = tuple(_row(name, trials) for name, trials in measured.items())
    return Findings(
        study="augmentation",
        question="What is each random change to images worth, where images are few?",
        setup=f"{model.name}, width {width}, on {per_class} images a class of {setting.data_name}, the same for all "
        f"seeds, {epochs} epochs in batches of {batch_size}, SGD at 0.1 with decay 5e-4; seeds {setting.seeds}. "
        f"crop: shifts of up to {pad_px} pixels; flip: in half of the cases; affine: turns to 15 degrees, sizes 0.85 "
        "to 1.15, shear to 12 degrees; colour: brightness, contrast and saturation by 0.6 to 1.4; cutout: a square of "
        f"{hole_px} pixels; mixup: alpha 0.2; cutmix: alpha 1 in half of the cases; randaugment: 2 operations of "
        "magnitude 5; trivialaugment: as published; together: crop, "
        f"{'flip, randaugment, cutout' if mirrored else 'affine, randaugment'}. All equally long and with one "
        "setting: stronger changes would gain from longer training."
        + (f" Cut: {', '.join(LEFT_OUT[setting.size])} alone." if LEFT_OUT[setting.size] else ""),
        tables=(
            Table(
                "operations",
                "Top-1 in percent at the end, mean and standard deviation over seeds. train: the images trained on, "
                "unchanged; gap: how much higher that is than on validation; trained: top-1 on images as changed.",
                ("operation", "validation", "std", "train", "gap", "std of gap", "trained"),
                rows,
            ),
        ),
        claims=_claims(measured, mirrored),
        draw=lambda figure: _draw(figure, measured),
        size=(11.0, 4.8),
        description="Left: validation top-1 by operation, a dot a seed, the best at the top; the dashed line is "
        "training on images as they are. Right: the gap, train less validation.",
    )


def _row(name: str, trials: list[Trial]) -> tuple[str | float, ...]:
    top1, gap = _top1(trials), _gap(trials)
    train = np.mean([trial.train_top1 for trial in trials])
    seen = np.mean([trial.train[-1]["top1"] for trial in trials])
    return (name, *(100 * float(value) for value in (top1.mean, top1.std, train, gap.mean, gap.std, seen)))


def _top1(trials: list[Trial]) -> Spread:
    return Spread.of([trial.top1 for trial in trials])


def _gap(trials: list[Trial]) -> Spread:
    return Spread.of([trial.gap for trial in trials])


def _claims(measured: Measured, mirrored: bool) -> tuple[Claim, ...]:
    top1 = {name: _top1(trials) for name, trials in measured.items()}
    gap = {name: _gap(trials) for name, trials in measured.items()}
    usual = "crop + flip" if mirrored else "crop"
    alone = max((name for name in top1 if name not in ("none", "crop + flip", "together")), key=lambda n: top1[n].mean)

    def numbers(one: str, other: str, of: dict[str, Spread] = top1) -> str:
        return f"{one} {of[one].percent()}, {other} {of[other].percent()} (seeds: {len(of[one].values)})."

    flips = (
        Claim("Mirror images raise accuracy where a mirrored object is still the object.",
              numbers("flip", "none"), beyond_spread(top1["flip"], top1["none"]))
        if mirrored else
        Claim("Where a class depends on left and right, mirror images spoil what shifts gain: a mirrored 2 is no 2.",
              f"{numbers('crop', 'crop + flip')} Alone: {numbers('flip', 'none')}",
              beyond_spread(top1["crop"], top1["crop + flip"]))
    )  # fmt: skip
    return (
        Claim(f"On few images {usual} raises validation accuracy.", numbers(usual, "none"),
              beyond_spread(top1[usual], top1["none"])),
        Claim(f"{usual.capitalize()} shrinks the gap between training images and validation.",
              numbers(usual, "none", gap), beyond_spread(gap["none"], gap[usual])),
        flips,
        Claim("Several operations together are worth more than the best alone.", numbers("together", alone),
              beyond_spread(top1["together"], top1[alone])),
    )  # fmt: skip


def _draw(figure: Any, measured: Measured) -> None:
    names = sorted(measured, key=lambda name: _top1(measured[name]).mean)
    by_top1, by_gap = figure.subplots(1, 2, sharey=True)
    for axes, of, colour in ((by_top1, _top1, "#4477aa"), (by_gap, _gap, "#ee6677")):
        for place, name in enumerate(names):
            spread = of(measured[name])
            axes.barh(place, 100 * spread.mean, color=colour, alpha=0.35)
            axes.plot([100 * value for value in spread.values], [place] * len(spread.values), "o", color=colour, ms=4)
        axes.axvline(100 * of(measured["none"]).mean, color="#555555", linestyle="--", linewidth=1)
        axes.grid(axis="x", alpha=0.25)
    by_top1.set_yticks(range(len(names)), names)
    lowest = min(trial.top1 for trials in measured.values() for trial in trials)
    by_top1.set_xlim(left=100 * max(0.0, lowest - 0.05))
    by_top1.set(xlabel="top-1 on validation (%)", title="what it is worth")
    by_gap.set(xlabel="top-1, training images less validation (points)", title="the gap")
