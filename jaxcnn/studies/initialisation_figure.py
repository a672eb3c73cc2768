"""The figure of the study of initial weights, and the rules that it compares."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxcnn.inspection.signal import Signal
from jaxcnn.studies.trials import Trial

RULES: dict[str, tuple[Any, float]] = {
    "Kaiming": ("kaiming_fan_in_normal", 0.01),
    "Xavier": ("xavier_normal", 0.01),
    "LeCun": ("lecun_normal", 0.01),
    "std 0.01": ("normal", 0.01),
    "std 1": ("normal", 1.0),
}
"""By name: `model.init` and `model.init_std`."""
COLOURS = dict(zip(RULES, ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#aa3377"), strict=True))
_DASHES = {"relu": "-", "tanh": "--"}


def draw_study(
    figure: Any,
    signals: Mapping[tuple[str, str], Sequence[Signal]],
    stds: Mapping[tuple[str, Any], Sequence[Sequence[float]]],
    fans: Sequence[int],
    runs: Mapping[str, Sequence[Trial]],
    chance: float,
) -> None:
    """Draws activations and gradients by layer, the law, and training losses.

    Args:
      figure: an empty matplotlib figure.
      signals: by (activation, rule), one a seed.
      stds: by (activation, way), [seed][layer]: what keeps the variance.
      fans: of the layers, forward.
      runs: of ReLU, by rule.
      chance: loss of a guess: log K.
    """
    axes = figure.subplots(2, 2)
    for own, name, title in (
        (axes[0, 0], "mean_square", "activations before training"),
        (axes[0, 1], "gradient", "gradients before training"),
    ):
        _draw_by_layer(own, signals, name)
        own.set(title=title, xlabel="layer (its input)", ylabel="mean square", yscale="log")
    axes[0, 0].legend(fontsize=7, ncols=2)
    _draw_law(axes[1, 0], stds["relu", "forward"], fans)
    for rule, trials in runs.items():
        for trial in trials:
            values = [min(one["loss"], 5.0) for one in trial.train]
            label = rule if trial is trials[0] else None
            axes[1, 1].plot(trial.epochs, values, color=COLOURS[rule], label=label, linewidth=1.4)
    axes[1, 1].axhline(chance, color="#999999", linewidth=1, linestyle=":", label="a guess")
    axes[1, 1].set(title="training, ReLU", xlabel="epoch", ylabel="training loss (nats)", ylim=(0, 3))
    axes[1, 1].legend(fontsize=8)


def _draw_by_layer(axes: Any, signals: Mapping[tuple[str, str], Sequence[Signal]], name: str) -> None:
    for (activation, rule), own in signals.items():
        values = np.asarray([getattr(one, name) for one in own], np.float64)
        values[values <= 0] = np.nan  # float32 holds nothing below 1e-38
        mean = np.exp(np.mean(np.log(values), axis=0))
        axes.plot(range(1, len(mean) + 1), mean, _DASHES[activation], color=COLOURS[rule], linewidth=1.4,
                  label=f"{rule}, {activation}")  # fmt: skip


def _draw_law(axes: Any, stds: Sequence[Sequence[float]], fans: Sequence[int]) -> None:
    line = np.geomspace(min(fans) / 1.3, max(fans) * 1.3, 50)
    axes.loglog(line, np.sqrt(2 / line), color="#999999", linewidth=1.2, label="sqrt(2 / fan)")
    for own in stds:
        label = "measured" if own is stds[0] else None
        axes.plot(fans, own, "o", color=COLOURS["Kaiming"], markersize=4, alpha=0.7, label=label)
    axes.set(title="std that keeps the variance after ReLU", xlabel="fan_in", ylabel="std of the kernel")
    axes.legend(fontsize=8)
