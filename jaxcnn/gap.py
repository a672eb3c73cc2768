"""What the gap between train and validation consists of: augmentation, dropout and norm mode, generalisation.

A part of the gap is positive where train is better than what follows: in points of top-1 where it is higher, in nats
where its loss is lower. So overfitting is a positive generalisation, and augmentation a negative part.
"""

import math
from collections.abc import Mapping
from typing import Any

_FEW = 200  # examples below which a decimal of a percent says nothing: an example is half a point or more


def split_of_line(line: Mapping[str, Any]) -> str:
    """Returns the gap between train and validation top-1 of one evaluation in words, in its two parts if it has clean.

    Below 200 examples figures are in whole points, with the standard error of a part.
    """
    figures = {part: line[part] for part in ("train", "clean", "validation") if part in line}
    counts = [int(found["examples"]) for found in figures.values() if "examples" in found]
    fewest = min(counts, default=None)
    top1 = {part: 100 * found["top1"] for part, found in figures.items()}
    gap = top1["train"] - top1["validation"]
    text = (
        f"epoch {line['epoch']:g}: train top-1 {_rounded(top1['train'], fewest)} %, validation "
        f"{_rounded(top1['validation'], fewest)} %"
    )
    if "clean" in figures:
        text += (
            f", clean train {_rounded(top1['clean'], fewest)} %; gap {signed(gap, fewest)} points: augmentation, "
            f"dropout, norm mode, averaging {signed(top1['train'] - top1['clean'], fewest)}, generalisation "
            f"{signed(top1['clean'] - top1['validation'], fewest)}"
        )
    else:
        text += f"; gap {signed(gap, fewest)} points"
    if not is_few(fewest):
        return text
    error = max(standard_error(found["top1"], found.get("examples", fewest)) for found in figures.values())
    return f"{text} ({fewest} examples: about ±{max(1, round(error))} points)"


def gap_parts(gap: Mapping[str, Any], figure: str = "top1") -> dict[str, float]:
    """Returns the gap between train and validation and its parts, which add up to it.

    Args:
      gap: of result.json: the figures of the same weights on the same training examples, in training mode and
        augmented ("training"), in evaluation mode and augmented ("augmented"), in evaluation mode and as they are
        ("clean"), and on "validation".
      figure: "top1" or "loss".

    Returns:
      By how much the first is better than the second, shares or nats. total: training and validation; mode: dropout
      and norm mode, training and augmented; augmentation: augmented and clean; generalisation: clean and validation.
    """
    better = -1 if figure == "loss" else 1
    training, augmented, clean, validation = (
        better * float(gap[name][figure]) for name in ("training", "augmented", "clean", "validation")
    )
    return {
        "total": training - validation,
        "augmentation": augmented - clean,
        "mode": training - augmented,
        "generalisation": clean - validation,
    }


def gap_sentence(gap: Mapping[str, Any]) -> str:
    """Returns in a sentence where the gap between train and validation top-1 comes from: "gap" of result.json.

    Below 200 examples the parts are in whole points, with the standard error of a part.
    """
    count = int(gap["examples"])
    parts = {name: 100 * value for name, value in gap_parts(gap).items()}
    side = "above" if parts["total"] >= 0 else "below"
    error = ""
    if is_few(count):
        ways = ("training", "augmented", "clean", "validation")
        points = max(standard_error(gap[name]["top1"], count) for name in ways)
        error = f": about ±{max(1, round(points))} points"
    return (
        f"train top-1 is {_rounded(abs(parts['total']), count)} points {side} validation's: augmentation "
        f"{signed(parts['augmentation'], count)}, dropout and norm mode {signed(parts['mode'], count)}, "
        f"generalisation {signed(parts['generalisation'], count)} (best weights, {count:,} training examples{error})"
    )


def standard_error(top1: float, examples: int) -> float:
    """Returns the standard error in points of a top-1 measured on some examples, 100 sqrt(p (1 - p) / n).

    A top-1 of 0 or 1 counts as one example off: that few examples show no error does not make it certain.
    """
    share = min(max(top1, 1 / examples), 1 - 1 / examples)
    return 100 * math.sqrt(max(share * (1 - share), 0.0) / examples)


def is_few(examples: int | None) -> bool:
    """Whether a measurement on some examples is told in whole points; not where their number is not known."""
    return examples is not None and examples < _FEW


def _rounded(points: float, examples: int | None) -> str:
    return f"{points:.0f}" if is_few(examples) else f"{points:.1f}"


def signed(points: float, examples: int | None, digits: int = 1) -> str:
    """Returns points with a sign and so many digits, whole where they are measured on few examples."""
    digits = 0 if is_few(examples) else digits
    return f"{round(points, digits) + 0.0:+.{digits}f}"  # + 0.0: no "-0"
