"""What the gap between train and validation consists of: augmentation, dropout and norm mode, generalisation."""

from collections.abc import Mapping
from typing import Any


def split_of_line(line: Mapping[str, Any]) -> str:
    """Returns the gap between train and validation of one evaluation in words, in its two parts if it has clean."""
    train, validation = (100 * line[part]["top1"] for part in ("train", "validation"))
    text = f"epoch {line['epoch']:g}: train {train:.1f} %"
    if "clean" not in line:
        return f"{text}, validation {validation:.1f} %: {validation - train:+.1f} points"
    clean = 100 * line["clean"]["top1"]
    return (
        f"{text} → clean {clean:.1f} % ({clean - train:+.1f}: augmentation, dropout, norm mode, "
        f"averaging) → validation {validation:.1f} % ({validation - clean:+.1f}: generalisation)"
    )


def gap_parts(gap: Mapping[str, Any], figure: str = "top1") -> dict[str, float]:
    """Returns the gap between train and validation and its parts, which add up to it.

    Args:
      gap: of result.json: the figures of the same weights on the same training examples, in training mode and
        augmented ("training"), in evaluation mode and augmented ("augmented"), in evaluation mode and as they are
        ("clean"), and on "validation".
      figure: "top1" or "loss".

    Returns:
      total: training - validation; mode: dropout and norm mode, training - augmented; augmentation: augmented - clean;
      generalisation: clean - validation.
    """
    training, augmented, clean, validation = (
        float(gap[name][figure]) for name in ("training", "augmented", "clean", "validation")
    )
    return {
        "total": training - validation,
        "augmentation": augmented - clean,
        "mode": training - augmented,
        "generalisation": clean - validation,
    }


def gap_sentence(gap: Mapping[str, Any]) -> str:
    """Returns in a sentence where the gap between train and validation top-1 comes from: "gap" of result.json."""
    parts = {name: 100 * value for name, value in gap_parts(gap).items()}
    side = "above" if parts["total"] >= 0 else "below"
    return (
        f"train top-1 is {abs(parts['total']):.1f} points {side} validation's: augmentation "
        f"{parts['augmentation']:+.1f}, dropout and norm mode {parts['mode']:+.1f}, generalisation "
        f"{parts['generalisation']:+.1f} (best weights, {gap['examples']:,} training examples)"
    )
