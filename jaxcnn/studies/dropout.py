"""What dropout does: the gap between train and validation on a small sample, gradients, and how alike features are."""

import itertools

import jax
import jax.numpy as jnp

from jaxcnn.config import ModelConfig, OptimConfig, TrainConfig
from jaxcnn.inspection.dropping import Dropped, dropped_units
from jaxcnn.studies.dropout_figure import draw_study, spread_of
from jaxcnn.studies.feature_correlation import feature_correlation
from jaxcnn.studies.findings import Claim, Findings, Table
from jaxcnn.studies.setting import Setting
from jaxcnn.studies.spread import beyond_spread
from jaxcnn.studies.starting_points import some_images
from jaxcnn.studies.trials import Trial

RATES = (0.0, 0.2, 0.4, 0.6, 0.8)
MODERATE = 0.4
IMAGES = 32  # of which the gradients are looked at


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
        draw=lambda figure: draw_study(figure, runs),
        size=(12.5, 4.2),
        description="Accuracy on the training images (measured without dropout) and on validation; the gap in "
        "cross-entropy; the mean correlation of features. Points are seeds, lines their means.",
    )


def _config(setting: Setting, one: float) -> TrainConfig:
    """A small VGG; a unit is dropped with probability `one` after each stage and before the head."""
    sizes = setting.pick(quick=(1, 1), cpu=(1, 1, 1), paper=(2, 2, 2))
    width, count = setting.pick(quick=(32, 20), cpu=(32, 100), paper=(64, 100))
    model = ModelConfig(name="vgg11", stage_sizes=sizes, width=width, norm="none", dropout=one, block_dropout=one)
    return setting.resized(quick=14, cpu=16, paper=32).config(
        f"dropout {one:g}",
        model,
        epochs=setting.pick(quick=60, cpu=80, paper=300),
        optim=OptimConfig(
            name="adamw", peak_lr=setting.pick(quick=2e-3, cpu=1e-3, paper=1e-3), weight_decay=0.0, ema_decay=None
        ),
        batch_size=setting.pick(quick=20, cpu=50, paper=100),
        per_class=count,
        every_epochs=setting.pick(quick=30, cpu=20, paper=20),
        warmup_epochs=2.0,
        clean=10 * count,
    )


def _dropped(setting: Setting) -> list[Dropped]:
    config = _config(setting, MODERATE)
    images, labels = some_images(setting, config, IMAGES)
    job = setting.trials.job(config)
    x = job.network.normalise(jnp.asarray(images))
    return dropped_units(job.network.model, job.initial_state().variables, x, jnp.asarray(labels), jax.random.key(1))


def _by_rate(runs: dict[float, list[Trial]]) -> Table:
    rows = []
    for one, trials in runs.items():
        percents = ((spread_of(trials, name), 100.0) for name in ("train_top1", "top1", "gap"))
        figures = [*percents, (spread_of(trials, "loss_gap"), 1.0), (spread_of(trials, "correlation"), 1.0)]
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
        return ", ".join(f"{one:g}: {spread_of(trials, figure).text(factor)}" for one, trials in runs.items())

    without, some = runs[0.0], runs[MODERATE]
    exact = all(one.gradient_of_dropped == 0 < one.gradient_of_kept and one.scale_error < 1e-5 for one in drops)
    return (
        Claim(f"The gap between train and validation shrinks with dropout (rate {MODERATE:g} against 0).",
              f"gap in points by rate: {told('gap', 100)}; in nats: {told('loss_gap')}",
              beyond_spread(spread_of(without, "gap"), spread_of(some, "gap"))),
        Claim(f"A moderate rate ({MODERATE:g}) raises accuracy on validation.",
              f"top-1 (%) by rate: {told('top1', 100)}",
              beyond_spread(spread_of(some, "top1"), spread_of(without, "top1"))),
        Claim("Units that are dropped pass no gradient at all; those kept are scaled by 1 / (1 - rate), both ways.",
              f"largest gradient of a dropped unit {max(one.gradient_of_dropped for one in drops):g}, of a kept one "
              f"{max(one.gradient_of_kept for one in drops):.2g}; largest error of the scale "
              f"{max(one.scale_error for one in drops):.1g}", exact),
        Claim(f"Features are less correlated with dropout (rate {MODERATE:g} against 0): less co-adaptation.",
              f"mean correlation by rate: {told('correlation')}",
              beyond_spread(spread_of(without, "correlation"), spread_of(some, "correlation"))),
    )  # fmt: skip


def _setup(setting: Setting) -> str:
    config = _config(setting, MODERATE)
    return (
        f"Images of {config.data.image_size} pixels, {config.data.per_class} a class; a VGG with "
        f"{config.model.stage_sizes} convolutions by stage, {config.model.width} channels in the first, no norm; units "
        f"are dropped after each stage and before the head. {config.train.epochs:g} epochs of batches of "
        f"{config.train.batch_size}, no augmentation, no weight decay; Adam at {config.optim.peak_lr:g} with a cosine "
        f"to 0. Seeds: {len(setting.seeds)}. Srivastava et al. 2014 (section 6.1) train larger networks on all of "
        "CIFAR-10, with rates that differ by layer; here one is for all, and the sample is small on purpose."
    )
