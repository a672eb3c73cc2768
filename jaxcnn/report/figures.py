"""The sections of a report on how good a run is: heading, curves, gap, confusion matrix, worst images."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from jaxcnn.comparison import RunRecord
from jaxcnn.curves import as_svg, best_line, draw_accuracy, draw_loss
from jaxcnn.gap import gap_parts, gap_sentence, is_few, signed, split_of_line
from jaxcnn.page import Markup, element, image, joined, table
from jaxcnn.report.measuring import WorstImage

_MOST_CELLS = 20  # classes up to which the confusion matrix is a table
_MOST_PAIRS = 12
_PERCENT = "\N{NO-BREAK SPACE}%"
_THUMBNAIL_PX = 192  # longest side of an embedded image


def heading(record: RunRecord) -> Markup:
    """Returns the final figures as cards, and what the curves say."""
    best, result = best_line(record.lines), record.result or {}
    cards = [("best validation top-1", f"{100 * best['validation']['top1']:.2f} %", f"epoch {best['epoch']:g}")]
    if test := result.get("test"):
        cards.append(("test top-1", f"{100 * test['top1']:.2f} %", f"{test['examples']:,} examples"))
    if "parameters" in result:
        cards.append(("parameters", _in_words(result["parameters"]), record.settings["model.name"]))
    if "seconds" in result:
        cards.append(("time", _duration(result["seconds"]), str(result.get("device", ""))))
    if not result:
        last = record.lines[-1]
        cards.append(("not finished", f"epoch {last['epoch']:g}", f"of {record.settings['train.epochs']:g}"))
    shown = [element("div", name, element("b", figure), element("span", more, class_="soft"), class_="card")
             for name, figure, more in cards]  # fmt: skip
    style = "warn" if record.diagnosis.is_alarm else "pass" if record.diagnosis.kind == "healthy" else ""
    return joined(
        element("div", *shown, class_="cards"), element("p", record.diagnosis.sentence, class_=f"note {style}".strip())
    )


def curves_section(lines: Sequence[Mapping[str, Any]]) -> Markup:
    """Returns loss and accuracy over the epochs, each a figure of its own so that a narrow page shows them in turn."""
    plots = [plot(as_svg(partial(draw, lines=lines))) for draw in (draw_loss, draw_accuracy)]
    return element("section", element("h2", "Curves"), element("div", *plots, class_="plots"))


def plot(svg: str) -> Markup:
    """Returns an SVG element as a figure of the page."""
    return element("figure", Markup(svg.replace("<svg ", '<svg class="plot" ', 1)))


def gap_section(record: RunRecord) -> Markup:
    """Returns the gap between train and validation in its parts, of the final weights where the run has ended.

    A part is positive where the row above it is better: a higher top-1, a lower loss.
    """
    gap = (record.result or {}).get("gap")
    if not gap:
        return element("section", element("h2", "Train and validation"), element("p", split_of_line(record.lines[-1])))
    top1, loss = gap_parts(gap), gap_parts(gap, "loss")
    count = gap["examples"]
    digits = 0 if is_few(count) else 2
    names = (
        ("training", "train, as in training", "", None),
        ("augmented", "train, evaluation mode, augmented", "dropout and norm mode", "mode"),
        ("clean", "train, evaluation mode, clean", "augmentation", "augmentation"),
        ("validation", "validation", "generalisation", "generalisation"),
    )
    rows = [
        (
            label,
            f"{100 * gap[name]['top1']:.{digits}f} %",
            f"{gap[name]['loss']:.4f}",
            signed(100 * top1[part], count, 2) if part else "",
            f"{loss[part]:+.4f}" if part else "",
            cause,
        )
        for name, label, cause, part in names
    ]
    rows.append(
        ("from first to last", "", "", signed(100 * top1["total"], count, 2), f"{loss['total']:+.4f}", "the gap")
    )
    head = ("", "top-1", "loss", "worse by, points", "worse by, nats", "due to")
    text = gap_sentence(gap)
    return element(
        "section",
        element("h2", "Train and validation"),
        element("p", f"{text[0].upper()}{text[1:]}."),
        table(head, rows, text=(0, 5)),
    )


def confusion_section(matrix: np.ndarray, class_names: Sequence[str], what: str) -> Markup:
    """Returns a confusion matrix: as a table, of many classes as a map; and the pairs that are confused most.

    Args:
      matrix: int [K, K], how many examples of each class (row) were taken for each class (column).
      class_names: K names.
      what: was measured.
    """
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    if len(class_names) <= _MOST_CELLS:
        shown = _matrix_table(matrix, shares, class_names)
    else:
        shown = plot(as_svg(lambda axes: _draw_shares(axes, shares), (7.0, 6.0)))
    return element(
        "section",
        element("h2", "Confusion matrix"),
        element("p", f"{what}; a row a true class, a column what it was taken for.", class_="soft"),
        element("div", shown, _pairs(matrix, shares, class_names), class_="beside"),
    )


def _matrix_table(matrix: np.ndarray, shares: np.ndarray, class_names: Sequence[str]) -> Markup:
    rows = [element("tr", element("th"), *(element("th", name) for name in class_names), element("th", "correct"))]
    for true, name in enumerate(class_names):
        cells = [
            element("td", f"{count:,}" if count else "", style=f"--of: {80 * share:.0f}%")
            for count, share in zip(matrix[true].tolist(), shares[true].tolist(), strict=True)
        ]
        correct = f"{100 * shares[true, true]:.1f} %" if matrix[true].sum() else "-"
        rows.append(element("tr", element("th", name), *cells, element("th", correct, class_="number")))
    return element("div", element("table", *rows, class_="matrix"), class_="scroll")


def _draw_shares(axes: Any, shares: np.ndarray) -> None:
    picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    axes.set(xlabel="predicted class", ylabel="true class")
    axes.figure.colorbar(picture, ax=axes, shrink=0.8, label="share of the class")


def _pairs(matrix: np.ndarray, shares: np.ndarray, class_names: Sequence[str]) -> Markup | None:
    """The pairs of classes confused most, by count."""
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:_MOST_PAIRS]
    places = [divmod(int(place), len(class_names)) for place in order]
    rows = [
        (class_names[true], class_names[taken], f"{wrong[true, taken]:,}", f"{100 * shares[true, taken]:.1f} %")
        for true, taken in places
        if wrong[true, taken]
    ]
    if not rows:
        return element("p", "No example was taken for another class.")
    head = ("class", "taken for", "examples", "of the class")
    return element("div", element("p", "Confused most:"), table(head, rows, text=(0, 1)))


def worst_section(worst: Sequence[WorstImage], class_names: Sequence[str]) -> Markup:
    """Returns the images with the highest losses, each with what it is and what it was taken for."""
    shown = [element("figure", _thumbnail(one.image, class_names[one.label]), _caption(one, class_names))
             for one in worst]  # fmt: skip
    text = "Highest loss first: mistakes of the network, of the labels, or images that nobody could tell."
    return element(
        "section",
        element("h2", "Worst validation images"),
        element("p", text, class_="soft"),
        element("div", *shown, class_="images"),
    )


def _caption(one: WorstImage, class_names: Sequence[str]) -> Markup:
    label, taken = class_names[one.label], class_names[one.predicted]
    right = one.label == one.predicted
    share = f"{100 * one.probability:.1f}{_PERCENT}"
    found = f"right, with {share}" if right else f"taken for {taken}, {share}"
    rest = "" if right else f"own class {100 * one.label_probability:.2g}{_PERCENT}, "
    more = element("span", f"{rest}loss {one.loss:.2f}, example {one.place}", class_="soft")
    said = element("span", found, class_=None if right else "wrong")
    return element("figcaption", element("b", label), element("br"), said, element("br"), more)


def _thumbnail(pixels: np.ndarray, alt: str) -> Markup:
    """An image as it is, or reduced where it is large; small ones are enlarged by the browser, pixel by pixel."""
    import cv2

    h, w = pixels.shape[:2]
    scale = _THUMBNAIL_PX / max(h, w)
    if scale < 1:
        size = (max(1, round(w * scale)), max(1, round(h * scale)))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA).reshape(size[1], size[0], -1)
    blue_first = np.ascontiguousarray(pixels[..., ::-1])  # OpenCV's order
    done, png = cv2.imencode(".png", blue_first)
    if not done:
        raise ValueError(f"an image of shape {pixels.shape} cannot be encoded")
    return image(png.tobytes(), alt, class_="small" if scale > 1 else None)


def _in_words(count: int) -> str:
    return f"{count / 1e6:.1f} M" if count >= 1e6 else f"{count:,}"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
