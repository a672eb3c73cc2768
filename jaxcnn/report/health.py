"""Health of the layers over a run, of health.jsonl, as heat maps; and the steps whose loss was out of line."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxcnn.curves import as_svg
from jaxcnn.page import Markup, element, joined, table

_MOST_COLUMNS = 200  # looks that a map shows; of more, evenly chosen ones
_MOST_SPIKES = 20
_MAPS = (
    # group, figure, heading, whether its logarithm is drawn
    ("layers", "std", "activations: standard deviation", True),
    ("layers", "dead", "activations: share of dead units", False),
    ("layers", "saturated", "activations: share of saturated units", False),
    ("leaves", "grad_norm", "gradients: norm", True),
    ("leaves", "update_ratio", "updates: norm as a part of that of the weights", True),
)


def health_section(lines: Sequence[Mapping[str, Any]]) -> Markup | None:
    """Returns the section of a report on the lines of health.jsonl; none where there are none."""
    if not lines:
        return None
    looks = [line for line in lines if "event" not in line]
    stops = [line for line in lines if line.get("event") == "nonfinite"]
    notes = [element("p", f"Stopped: {stop['what']}{_again(stop)}.", class_="note fail") for stop in stops]
    maps = [drawn for group, name, title, is_log in _MAPS if (drawn := _map(looks, group, name, title, is_log))]
    return element("section", element("h2", "Health of the layers"), *notes, *maps, _spikes(lines))


def _again(stop: Mapping[str, Any]) -> str:
    return "; jaxcnn replay does the step again" if "first" in stop else ""


def _map(looks: Sequence[Mapping[str, Any]], group: str, name: str, title: str, is_log: bool) -> Markup | None:
    """A heat map of a figure, steps by layers; none where no look has it, or a share is 0 throughout."""
    shown = [look for look in looks if group in look]
    if len(shown) > _MOST_COLUMNS:
        shown = [shown[i] for i in np.linspace(0, len(shown) - 1, _MOST_COLUMNS).round().astype(int)]
    paths = list(
        dict.fromkeys(path for look in shown for path, row in look[group].items() if row.get(name) is not None)
    )
    if group == "leaves":  # biases and scales follow their kernels, and are many
        paths = [path for path in paths if path.endswith("kernel")] or paths
    values = np.array(
        [[look[group].get(path, {}).get(name, np.nan) for look in shown] for path in paths], dtype=np.float64
    )
    if not values.size or not np.isfinite(values).any() or (not is_log and not np.nanmax(values)):
        return None
    steps = [look["step"] for look in shown]
    svg = as_svg(lambda axes: _draw(axes, values, paths, steps, is_log), (10.5, 0.9 + 0.19 * min(len(paths), 60)))
    return element("figure", element("figcaption", title), Markup(svg.replace("<svg ", '<svg class="plot" ', 1)))


def _draw(axes: Any, values: np.ndarray, paths: Sequence[str], steps: Sequence[int], is_log: bool) -> None:
    from matplotlib.colors import LogNorm

    positive = values[np.isfinite(values) & (values > 0)]
    norm = LogNorm(max(positive.min(), 1e-12), positive.max() * 1.0001) if is_log and positive.size else None
    drawn = np.where(values > 0, values, np.nan) if norm else values
    limits = {} if norm else {"vmin": 0, "vmax": 1}
    picture = axes.imshow(drawn, aspect="auto", cmap="viridis", norm=norm, interpolation="nearest", **limits)
    every = max(1, -(-len(paths) // 60))
    names = [path.removeprefix("backbone/").removesuffix("/kernel") for path in paths]
    axes.set_yticks(range(0, len(paths), every), names[::every], fontsize=7, parse_math=False)
    places = np.unique(np.linspace(0, len(steps) - 1, min(len(steps), 9)).round().astype(int))
    axes.set_xticks(places, [f"{steps[place]:,}" for place in places], fontsize=8)
    axes.set_xlabel("step", fontsize=8)
    axes.figure.colorbar(picture, ax=axes, pad=0.01, fraction=0.03).ax.tick_params(labelsize=7)


def _spikes(events: Sequence[Mapping[str, Any]]) -> Markup | None:
    """A table of the steps whose loss rose out of line, the highest above what was expected first."""
    spikes = [event for event in events if event.get("event") == "loss_spike"]
    if not spikes:
        return None
    worst = sorted(spikes, key=lambda event: event["expected"] - event["loss"])[:_MOST_SPIKES]
    rows = [(f"{event['step']:,}", f"{event['loss']:.4g}", f"{event['expected']:.4g}", _few(event)) for event in worst]
    count = f"{len(spikes)} step{'s' * (len(spikes) != 1)} with a loss out of line"
    more = f"; the {_MOST_SPIKES} highest" if len(spikes) > _MOST_SPIKES else ""
    return joined(element("p", count, more), table(("step", "loss", "expected", "training examples"), rows, text=(3,)))


def _few(event: Mapping[str, Any]) -> str:
    examples = event.get("examples") or []
    return ", ".join(map(str, examples[:12])) + (f" and {len(examples) - 12} more" if len(examples) > 12 else "")
