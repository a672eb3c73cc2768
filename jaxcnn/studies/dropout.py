"""What dropout does: the gap between train and validation on a small sample, gradients, and how alike features are."""

import itertools
from typing import Any

import jax
import numpy as np

from jaxcnn.config import ModelConfig, TrainConfig
from jaxcnn.inspection.dropping import Dropped, dropped_units, mean_correlation
from jaxcnn.job import Job
from jaxcnn.models.classifier import POOLED, output_at
from jaxcnn.studies.findings import Claim, Findings, Table
from jaxcnn.studies.setting import Setting, rate
from jaxcnn.studies.spread import Spread, beyond_spread
from jaxcnn.studies.starting_points import some_images
from jaxcnn.studies.trials import Trial
from jaxcnn.training.state import TrainState

RATES = (0.0, 0.2, 0.4, 0.6, 0.8)
MODERATE = 0.4
IMAGES = 32  # of which the gradients are looked at
MOST = 2000  # validation images over which features are correlated


def study(setting: Setting) -> Findings:
    """Returns accuracies and gaps by rate, correlations of features, and the gradients of dropped units."""
    runs = {
        one: setting.trials.run(f"dropout-{one:g}", _config(setting, one), setting.seeds, feature_correlation)
        for one in RATES
    }
    drops = _dropped(setting)
    return Findings(
        study="dropout",
        question="What does dropping units do to the gap between train and validation, to gradients and to features?",
        setup=_setup(setting),
        tables=(_by_rate(runs), _gradients(drops)),
        claims=_claims(runs, drops),
        draw=lambda figure: _draw(figure, runs),
        size=(12.5, 4.2),
        description="Accuracy on the training images (measured without dropout) and on validation; the gap in "
        "cross-entropy; the mean correlation of features. Points are seeds, lines their means.",
    )


def feature_correlation(job: Job, state: TrainState) -> dict[str, Any]:
    """Returns the mean correlation of the inputs of the head on validation images, without dropout."""
    network, parts, count = job.network, [], 0
    run = jax.jit(lambda variables, x: output_at(network.model, variables, network.normalise(x), POOLED))
    for batch, mask in job.splits["validation"].batches(500):
        parts.append(np.asarray(run(state.variables, batch.images))[np.asarray(mask, bool)])
        count += len(parts[-1])
        if count >= MOST:
            break
    features = np.concatenate(parts)[:MOST]
    return {"correlation": mean_correlation(features), "live": int(np.sum(features.std(axis=0) > 0))}


def _config(setting: Setting, one: float) -> TrainConfig:
    """A VGG of three stages; a unit is dropped with probability `one` after each of them and before the head."""
    sizes, width = setting.pick(quick=((1, 1), 16), cpu=((1, 1, 1), 32), paper=((2, 2, 2), 64))
    model = ModelConfig(name="vgg11", stage_sizes=sizes, width=width, norm="none", dropout=one, block_dropout=one)
    count = setting.pick(quick=20, cpu=100, paper=100)
    return setting.config(
        f"dropout {one:g}",
        model,
        epochs=setting.pick(quick=40, cpu=80, paper=300),
        optim=rate(0.05, weight_decay=0.0),
        batch_size=setting.pick(quick=20, cpu=50, paper=100),
        per_class=count,
        every_epochs=setting.pick(quick=20, cpu=20, paper=20),
        warmup_epochs=2.0,
        clean=10 * count,
    )


def _dropped(setting: Setting) -> list[Dropped]:
    config = _config(setting, MODERATE)
    images, labels = some_images(setting, config, IMAGES)
    job = setting.trials.job(config)
    x = job.network.normalise(images)
    return dropped_units(job.network.model, job.initial_state().variables, x, labels, jax.random.key(1))


def _spread(trials: list[Trial], figure: str) -> Spread:
    """Of one figure over seeds; loss_gap: cross-entropy of validation less that of training images."""
    if figure == "correlation":
        return Spread.of([one.measured["correlation"] for one in trials])
    if figure == "loss_gap":
        return Spread.of([one.validation[-1]["loss"] - one.clean[-1]["loss"] for one in trials])
    return Spread.of([getattr(one, figure) for one in trials])


def _by_rate(runs: dict[float, list[Trial]]) -> Table:
    rows = []
    for one, trials in runs.items():
        percents = ((_spread(trials, name), 100.0) for name in ("train_top1", "top1", "gap"))
        figures = [*percents, (_spread(trials, "loss_gap"), 1.0), (_spread(trials, "correlation"), 1.0)]
        rows.append((one, *itertools.chain(*((factor * own.mean, factor * own.std) for own, factor in figures))))
    head = ("rate", "train top-1 (%)", "std", "validation top-1 (%)", "std", "gap (points)", "std",
            "gap of the loss (nats)", "std", "feature correlation", "std")  # fmt: skip
    return Table("rates", "After training, measured without dropout: top-1 on training images and validation, the gap "
                 "in points and in cross-entropy, mean magnitude of the correlation of two inputs of the head.",
                 head, tuple(rows))  # fmt: skip


def _gradients(drops: list[Dropped]) -> Table:
    head = ("dropout", "rate", "share dropped", "largest gradient, dropped", "largest gradient, kept", "scale",
            "scale of gradients")  # fmt: skip
    rows = tuple((one.path, one.rate, one.share, one.gradient_of_dropped, one.gradient_of_kept, one.scale,
                  one.backward_scale) for one in drops)  # fmt: skip
    return Table("gradients", "One draw of each dropout in the network: gradients of the loss with respect to units "
                 "before it that are not 0, and what the kept ones are multiplied by.", head, rows)  # fmt: skip


def _claims(runs: dict[float, list[Trial]], drops: list[Dropped]) -> tuple[Claim, ...]:
    def told(figure: str, factor: float = 1.0) -> str:
        return ", ".join(f"{one:g}: {_spread(trials, figure).text(factor)}" for one, trials in runs.items())

    without, some = runs[0.0], runs[MODERATE]
    exact = all(one.gradient_of_dropped == 0 < one.gradient_of_kept and one.scale_error < 1e-5 for one in drops)
    return (
        Claim(f"The gap between train and validation shrinks with dropout (rate {MODERATE:g} against 0).",
              f"gap in points by rate: {told('gap', 100)}; in nats: {told('loss_gap')}",
              beyond_spread(_spread(without, "gap"), _spread(some, "gap"))),
        Claim(f"A moderate rate ({MODERATE:g}) raises accuracy on validation.",
              f"top-1 (%) by rate: {told('top1', 100)}", beyond_spread(_spread(some, "top1"), _spread(without, "top1"))),
        Claim("Units that are dropped pass no gradient at all; those kept are scaled by 1 / (1 - rate), both ways.",
              f"largest gradient of a dropped unit {max(one.gradient_of_dropped for one in drops):g}, of a kept one "
              f"{max(one.gradient_of_kept for one in drops):.2g}; largest error of the scale "
              f"{max(one.scale_error for one in drops):.1g}", exact),
        Claim(f"Features are less correlated with dropout (rate {MODERATE:g} against 0): less co-adaptation.",
              f"mean correlation by rate: {told('correlation')}",
              beyond_spread(_spread(without, "correlation"), _spread(some, "correlation"))),
    )  # fmt: skip


def _draw(figure: Any, runs: dict[float, list[Trial]]) -> None:
    accuracy, gap, correlation = figure.subplots(1, 3)
    for axes, name, factor, colour, label in (
        (accuracy, "train_top1", 100, "#228833", "training images"),
        (accuracy, "top1", 100, "#ee6677", "validation"),
        (gap, "loss_gap", 1, "#4477aa", None),
        (correlation, "correlation", 1, "#aa3377", None),
    ):
        own = [_spread(trials, name) for trials in runs.values()]
        axes.plot(tuple(runs), [factor * one.mean for one in own], color=colour, linewidth=1.6, label=label)
        for place, one in zip(runs, own, strict=True):
            axes.plot([place] * len(one.values), [factor * value for value in one.values], "o", color=colour,
                      markersize=4, alpha=0.6)  # fmt: skip
        axes.set_xlabel("dropout rate")
    accuracy.set(title="accuracy, without dropout", ylabel="top-1 (%)")
    accuracy.legend(fontsize=8)
    gap.set(title="gap of the loss", ylabel="validation less training (nats)", ylim=(0, None))
    correlation.set(title="features before the head", ylabel="mean |correlation|", ylim=(0, None))


def _setup(setting: Setting) -> str:
    config = _config(setting, MODERATE)
    return (
        f"VGG of {len(config.model.stage_sizes or ())} stages with {config.model.stage_sizes} convolutions, "
        f"{config.model.width} channels in the first, no norm; units are dropped after each stage and before the head. "
        f"{config.data.per_class} images a class, {config.train.epochs:g} epochs of batches of "
        f"{config.train.batch_size}, no augmentation, no weight decay; SGD with momentum 0.9, a rate of "
        f"{config.optim.peak_lr:g} with a cosine to 0. Seeds: {len(setting.seeds)}. Srivastava et al. 2014, section 6.1, "
        "train larger networks on all of CIFAR-10, with rates that differ by layer; here one rate is for all, and the "
        "sample is small on purpose."
    )
