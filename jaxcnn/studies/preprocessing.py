"""Why inputs are normalised: how well the first layer is conditioned, and how many steps the training takes.

LeCun et al. 1998, "Efficient BackProp", section 4.3: inputs with mean 0 and variance 1. A norm after the first
convolution does the same a layer later, and hides what was forgotten.
"""

import dataclasses
from typing import Any

import numpy as np

from jaxcnn.config import ModelConfig
from jaxcnn.studies.findings import Cell, Claim, Findings, Table
from jaxcnn.studies.input_scales import NORMALISED, Way, ways
from jaxcnn.studies.reaching import running_mean, steps_to
from jaxcnn.studies.setting import Setting, rate
from jaxcnn.studies.spread import Spread, beyond_spread
from jaxcnn.studies.trials import Trial

NETWORKS = {"no norm": "o", "no norm, own rate": "^", "batch norm": "s"}
"""What is trained on each, and its marker."""
RATE, OWN_RATES = 0.02, {"0 to 255": 3e-4, "0 to 1": 0.04}
"""For all, and the best of those tried in factors of some 3 for these."""
WINDOW, IMAGES = 8, 500
"""Steps over which the loss is averaged; images whose patches are looked at."""
COLOURS = ("#ee6677", "#ccbb44", "#4477aa", "#228833", "#aa3377")
Trained = dict[tuple[str, str], list[Trial]]  # by what is given, and the network


def study(setting: Setting) -> Findings:
    """Returns conditioning and steps by preprocessing."""
    level, epochs = setting.pick(quick=0.6, cpu=1.6, paper=1.2), setting.pick(quick=8, cpu=8, paper=20)
    width, per_class = setting.pick(quick=16, cpu=32, paper=64), setting.pick(quick=100, cpu=1000, paper=None)
    batch_size = setting.pick(quick=20, cpu=50, paper=128)
    model = ModelConfig(name="vgg11", stage_sizes=(1, 1, 1), width=width, norm="none", dropout=0.0)

    def config(network: str, peak_lr: float) -> Any:
        own = dataclasses.replace(model, norm="batch") if network == "batch norm" else model
        return setting.config("preprocessing", own, epochs=epochs, optim=rate(peak_lr), batch_size=batch_size,
                              clean=0, per_class=per_class, every_epochs=epochs, warmup_epochs=0,
                              schedule="constant")  # fmt: skip

    job = setting.trials.job(config("no norm", RATE))
    prepared = ways(job.network.preprocessing, np.asarray(job.feed.source.images[:IMAGES]))
    trained: Trained = {}
    for name, way in prepared.items():
        preprocess = dataclasses.replace(job.network.preprocessing, mean=way.mean, std=way.std)
        for network in NETWORKS:
            own = OWN_RATES.get(name) if "own" in network else RATE
            if own is None:
                continue
            label = f"{name}-{network}".replace("'", "").replace(",", "").replace(" ", "-")
            asked = (label, config(network, own), setting.seeds)
            trained[name, network] = setting.trials.run(*asked, preprocess=preprocess)
    steps = {key: _steps(trials, level) for key, trials in trained.items()}
    most = len(trained[NORMALISED, "no norm"][0].objectives)
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (name, *(round(one, 3) for one in (way.mean[0], way.std[0])), way.first.largest, way.first.smallest,
         way.first.number, *(_told(steps.get((name, network)), most) for network in NETWORKS))
        for name, way in prepared.items()
    )  # fmt: skip
    return Findings(
        study="preprocessing",
        question="What does a network pay for inputs that are not normalised?",
        setup=f"Three convolutions 3x3, each with ReLU and a max-pool, and a linear head ({model.name} of stages "
        f"{model.stage_sizes}, width {width}), on {job.num_train:,} images of {setting.data_name}, {epochs} epochs in "
        f"batches of {batch_size}, SGD with Nesterov momentum 0.9 and decay 1e-4 at a constant {RATE}, "
        f"no warm-up or augmentation; {len(setting.seeds)} seeds. Eigenvalues: of the second moments of 3x3 patches of "
        f"{IMAGES} images, with a 1 for the bias. Own rate: the best that was found for them, {OWN_RATES}. "
        "Wrong unit: mean and std in units of 0..255, taken off pixels in 0..1.",
        tables=(
            Table(
                "steps",
                "Mean and std that the first channel is normalised by, eigenvalues, their ratio, and the steps of "
                f"{most} until the training loss, a mean of {WINDOW} steps, is below {level} nats: mean and deviation "
                "over seeds.",
                ("input", "mean", "std", "largest", "smallest", "ratio", *NETWORKS),
                rows,
            ),
        ),
        claims=_claims(steps, prepared, most),
        draw=lambda figure: _draw(figure, prepared, trained, level),
        size=(12.0, 4.6),
        description="Left: the training loss by step without a norm, at one rate for all; middle: the same with batch "
        "norm; the dashed line is the level. Right: steps to it against the ratio of eigenvalues; hollow: never.",
    )


def _steps(trials: list[Trial], level: float) -> Spread:
    """A seed that never reaches the level counts as infinitely many."""
    return Spread.of([steps_to(trial.objectives, level, WINDOW) or float("inf") for trial in trials])


def _told(steps: Spread | None, most: int) -> str:
    if steps is None:
        return "-"
    return steps.text(1, ".0f") if np.isfinite(steps.high) else f"> {most}"


def _claims(steps: dict[tuple[str, str], Spread], prepared: dict[str, Way], most: int) -> tuple[Claim, ...]:
    def faster(other: str, network: str = "no norm") -> Claim:
        rated = {"no norm": "at one rate", "no norm, own rate": "though its rate is fitted to it"}
        return Claim(
            f"Without a norm, a network learns faster from normalised images than from {other}, {rated[network]}.",
            f"{NORMALISED} {_told(steps[NORMALISED, 'no norm'], most)} steps, {other} "
            f"{_told(steps[other, network], most)} steps.",
            beyond_spread(steps[other, network], steps[NORMALISED, "no norm"]),
        )

    ratios = {name: way.first.number for name, way in prepared.items()}
    return (
        *(faster(name, network) for network in ("no norm", "no norm, own rate") for name in ("0 to 255", "0 to 1")),
        Claim(
            "Normalised images condition the first layer better than pixels as they are, in 0 to 255 or 0 to 1.",
            ", ".join(f"{name} {ratio:.3g}" for name, ratio in ratios.items()) + ": largest over smallest eigenvalue.",
            ratios[NORMALISED] < min(ratios["0 to 255"], ratios["0 to 1"]),
        ),
        Claim(
            "Batch norm after the first convolution hides what was forgotten: the level is reached from any input.",
            ", ".join(f"{name} {_told(steps[name, 'batch norm'], most)}" for name in prepared) + " steps.",
            all(np.isfinite(steps[name, "batch norm"].high) for name in prepared),
        ),
    )


def _draw(figure: Any, prepared: dict[str, Way], trained: Trained, level: float) -> None:
    panels = figure.subplots(1, 3)
    for axes, network in zip(panels, ("no norm", "batch norm"), strict=False):
        for colour, name in zip(COLOURS, prepared, strict=True):
            for trial in trained[name, network]:
                axes.plot(running_mean(trial.objectives, WINDOW), color=colour, linewidth=1, alpha=0.8,
                          label=name if trial is trained[name, network][0] else None)  # fmt: skip
        axes.axhline(level, color="#555555", linestyle="--", linewidth=1)
        axes.set(ylim=(0, 3), xlabel="step", ylabel=f"training loss, mean of {WINDOW} steps (nats)", title=network)
    panels[0].legend(frameon=False, fontsize=8)
    for network, marker in NETWORKS.items():
        for colour, (name, way) in zip(COLOURS, prepared.items(), strict=True):
            if (name, network) not in trained:
                continue
            steps = _steps(trained[name, network], level)
            reached, most = bool(np.isfinite(steps.high)), len(trained[NORMALISED, "no norm"][0].objectives)
            panels[2].plot(way.first.number, steps.mean if reached else 1.4 * most, marker, color=colour, markersize=7,
                           fillstyle="full" if reached else "none", linestyle="none")  # fmt: skip
        panels[2].plot([], [], marker, color="#555555", linestyle="none", label=network)
    panels[2].set(xscale="log", ylim=(0, None), xlabel="largest over smallest eigenvalue of the input",
                  ylabel="steps to the level (hollow: never)", title="conditioning and speed")  # fmt: skip
    panels[2].legend(frameon=False, fontsize=8)
    for axes in panels:
        axes.grid(alpha=0.25)
