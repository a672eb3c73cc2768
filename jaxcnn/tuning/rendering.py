"""Findings of the checks before a run as text, JSON, one PNG and one HTML page."""

import numbers
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from jaxcnn.curves import as_svg, save
from jaxcnn.page import Markup, element, image, joined, page
from jaxcnn.tuning.findings import Finding
from jaxcnn.whole import write_whole

COLOURS = {"pass": "#1b7837", "warn": "#b36b00", "fail": "#b3261e", "skip": "#6b7580"}
_LINE_IN, _GAP_IN, _HEAD_IN, _PLOT_IN = 0.19, 0.13, 0.75, 2.35  # inches
_LEGEND_IN = 0.55  # beside curves by layer, beyond the margin
_TEXT_IN, _SIDE_IN, _WIDE = 8.4, 4.4, 122  # of the list, of the plots, and characters a line of the list


def as_text(findings: Sequence[Finding]) -> str:
    """Returns the findings for a terminal: a line each, as `as_line`, then how many ended with each verdict."""
    width = max((len(one.check) for one in findings), default=0)
    return "\n".join([*(as_line(one, width) for one in findings), told(findings)])


def as_line(one: Finding, width: int = 32) -> str:
    """Returns a finding for a terminal: verdict, check (in `width` letters), figure, expectation; then its advice."""
    expected = f"   expected {one.expected}" if one.expected else ""
    rows = [f"{one.verdict:4s}  {one.check:{width}s}  {one.figure}{expected}".rstrip()]
    if one.advice and one.verdict in ("warn", "fail"):
        rows += textwrap.wrap(one.advice, 100, initial_indent="      -> ", subsequent_indent="         ")
    return "\n".join(rows)


def told(findings: Sequence[Finding]) -> str:
    """Returns how many checks ended with each verdict: "10 pass, 1 warn, 1 fail"."""
    counts: Counter[str] = Counter(one.verdict for one in findings)
    return ", ".join(f"{counts[verdict]} {verdict}" for verdict in COLOURS if counts[verdict]) or "no checks"


def as_json(findings: Sequence[Finding]) -> dict[str, Any]:
    """Returns the findings as JSON takes them, in their order, with the worst verdict: what is not finite is none."""
    verdicts = {one.verdict for one in findings}
    worst = next((verdict for verdict in ("fail", "warn", "pass", "skip") if verdict in verdicts), "pass")
    return {"verdict": worst, "findings": [_finite(asdict(one)) for one in findings]}


def _finite(value: Any) -> Any:
    """The value with plain lists and numbers; NaN and infinities, which JSON has not, as none."""
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value


def draw(findings: Sequence[Finding], path: Path, title: str) -> None:
    """Draws the list of checks, and beside it the curves of those that have some, to a PNG.

    Args:
      findings: in the order of the list.
      path: file to write, replaced whole.
      title: heading.
    """
    from matplotlib.figure import Figure

    blocks = [(one, _lines(one)) for one in findings]
    plots = [one for one in findings if one.curves]
    tall = sum(len(lines) * _LINE_IN + _GAP_IN for _, lines in blocks)
    height = _HEAD_IN + 0.2 + max(tall, _PLOT_IN * len(plots), 0.4)
    width = _TEXT_IN + (_SIDE_IN if plots else 0)
    figure = Figure(figsize=(width, height))

    def write_at(x: float, y: float, text: str, **style: Any) -> None:
        figure.text(x / width, 1 - y / height, text, va="top", parse_math=False, **style)

    write_at(0.2, 0.12, title, fontsize=13, weight="bold")
    write_at(0.2, 0.42, told(findings), fontsize=9.5, color="#555555")
    y = _HEAD_IN
    for one, lines in blocks:
        write_at(0.2, y, one.verdict.upper(), fontsize=9, weight="bold", color=COLOURS[one.verdict])
        for place, (text, colour) in enumerate(lines):
            write_at(0.85, y, text, fontsize=9.5 if place == 0 else 8.5, weight="bold" if place == 0 else "normal",
                     color=colour)  # fmt: skip
            y += _LINE_IN
        y += _GAP_IN
    for place, one in enumerate(plots):
        top = _HEAD_IN + place * _PLOT_IN
        wide = _SIDE_IN - 1.35 - (_LEGEND_IN if _by_layer(one.curves) else 0)
        box = (_TEXT_IN + 0.75, height - top - _PLOT_IN + 0.65, wide, _PLOT_IN - 0.95)
        axes = figure.add_axes((box[0] / width, box[1] / height, box[2] / width, box[3] / height))
        draw_curves(one, axes)
    save(figure, path)


def _lines(one: Finding) -> list[tuple[str, str]]:
    """The lines of a finding in the list, each with its colour."""
    text = one.figure + (f"; expected {one.expected}" if one.expected else "")
    lines = [(one.check, "#1d2126"), *((line, "#333333") for line in textwrap.wrap(text, _WIDE))]
    if one.advice:
        lines += [(line, COLOURS[one.verdict]) for line in textwrap.wrap(one.advice, _WIDE)]
    return lines


def draw_curves(one: Finding, axes: Any) -> None:
    """Draws the curves of a finding: those of the range test, of figures by layer, of losses by step; or any.

    Of others the first is the abscissa if it rises all along and all are as long, else each is drawn over its places.
    """
    curves = {name: np.asarray(values, np.float64) for name, values in one.curves.items()}
    by_layer = _by_layer(curves)
    across = _abscissa(curves)
    drawn = {name: values for name, values in curves.items() if name != across}
    if by_layer:  # on a logarithmic axis, where a share of 0 has no place
        drawn = {name: np.where(values > 0, values, np.nan) for name, values in drawn.items() if np.any(values > 0)}
    colours = iter(_PLOT_COLOURS * len(drawn))
    for name, values in drawn.items():
        at = curves[across][: len(values)] if across else np.arange(len(values))
        faint = name == "loss" and "smoothed" in curves
        style = {"color": "#bbbbbb", "linewidth": 0.8} if faint else {"color": next(colours)}
        axes.plot(at, values[: len(at)], label=name.replace("_", " "), marker="." if len(at) <= 30 else None, **style)
    if across == "rate":
        axes.set_xscale("log")
        _mark_rates(one, axes)
        _follow(curves.get("smoothed", curves.get("loss")), curves.get("loss"), axes)
    elif by_layer or _is_wide(drawn):
        axes.set_yscale("log")
    axes.set_title(one.check, fontsize=9, parse_math=False, color=COLOURS[one.verdict], weight="bold")
    axes.set_xlabel("layer" if by_layer else "learning rate" if across == "rate" else across or "", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.25)
    if len(drawn) > 1 or across == "rate":
        beside: Any = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5), "handlelength": 1.2} if by_layer else {}
        for text in axes.legend(fontsize=7, frameon=False, **beside).get_texts():  # layer curves cross all over
            text.set_parse_math(False)
        if across in ("step", "rate"):
            axes.set_ylabel("loss (nats)", fontsize=8)
    else:
        axes.set_ylabel(next(iter(drawn), "").replace("_", " "), fontsize=8)


def _by_layer(curves: Mapping[str, Any]) -> bool:
    return "depth" in curves or "signal" in curves


def _abscissa(curves: Mapping[str, np.ndarray]) -> str | None:
    """The curve that the others are drawn over; none: their places."""
    first, values = next(iter(curves.items()), ("", np.zeros(0)))
    for name in ("rate", "depth", "step"):
        if name in curves:
            return name
    alike = {len(other) for other in curves.values()} == {len(values)}
    return first if len(curves) > 1 and alike and np.all(np.diff(values) > 0) else None


def _is_wide(curves: Mapping[str, np.ndarray]) -> bool:
    """Whether curves are positive and span so much that their low parts need a logarithmic axis."""
    shown = np.concatenate([values[np.isfinite(values)] for values in curves.values()] or [np.zeros(0)])
    return bool(shown.size and shown.min() > 0 and shown.max() > 30 * shown.min())


_PLOT_COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#aa3377")


def _mark_rates(one: Finding, axes: Any) -> None:
    """Vertical lines at the rates that the finding names."""
    for name, colour in (("suggestion", "#aa3377"), ("planned", "#228833")):
        rate = one.numbers.get(name)
        if isinstance(rate, numbers.Real) and float(rate) > 0:
            label = f"{name.replace('_', ' ')} {float(rate):.2g}"
            axes.axvline(float(rate), color=colour, linewidth=1, linestyle="--", label=label)


def _follow(smoothed: np.ndarray | None, raw: np.ndarray | None, axes: Any) -> None:
    """Puts into view where the smoothed loss goes before it diverges, and most of the noise around it there."""
    if smoothed is None or not np.isfinite(smoothed).any():
        return
    finite = smoothed[np.isfinite(smoothed)]
    start, low = finite[: max(1, len(finite) // 10)].max(), finite.min()
    raw = smoothed if raw is None else raw[: len(smoothed)]
    sane = smoothed[: len(raw)] <= start + 0.35 * (start - low)
    around = raw[sane & np.isfinite(raw)]
    lowest, highest = np.percentile(around, (2, 98)) if around.size else (low, start)
    bottom, top = min(low, lowest), max(start, min(highest, start + (start - low)))
    room = 0.08 * (top - bottom)
    axes.set_ylim(bottom - room - 1e-6, max(top, start + 0.25 * (start - low)) + room + 1e-6)


def write_html(findings: Sequence[Finding], path: Path, title: str, figures: Mapping[str, Path] | None = None) -> None:
    """Writes the findings as one page with everything in it.

    Args:
      findings: in the order of the list.
      path: file to write, replaced whole.
      title: heading.
      figures: PNG files that belong to it by caption, such as a sheet of augmented samples.
    """
    checks = element("section", *(_check(one) for one in findings))
    plots = [
        element("figure", svg_plot(lambda axes, one=one: draw_curves(one, axes))) for one in findings if one.curves
    ]
    sheets = [
        joined(element("h2", caption), image(file.read_bytes(), caption, style="max-width: 100%"))
        for caption, file in (figures or {}).items()
    ]
    body = [element("p", told(findings), class_="soft"), checks]
    if plots:
        body += [element("h2", "Curves"), element("div", *plots, class_="plots")]
    write_whole(path, page(title, *body, *sheets))


def svg_plot(draw_into: Any) -> Markup:
    """Returns a small plot as a part of a page."""
    return Markup(as_svg(draw_into, (5.0, 3.0)).replace("<svg ", '<svg class="plot" ', 1))


def _check(one: Finding) -> Markup:
    expected = element("span", f" expected {one.expected}", class_="soft") if one.expected else None
    seconds = element("span", f" ({one.seconds:.1f} s)", class_="soft") if one.seconds >= 0.05 else None
    return element(
        "div",
        element("div", one.verdict, class_=f"verdict {one.verdict}"),
        element(
            "div",
            element("p", element("b", one.check), seconds),
            element("p", one.figure, expected and ";", expected),
            element("p", one.advice) if one.advice else None,
        ),
        class_="check",
    )
