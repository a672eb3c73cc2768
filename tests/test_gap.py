"""The gap between train and validation in its parts: signs, digits, and the same on the page of a run."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxcnn.comparison import RunRecord
from jaxcnn.diagnosis import Diagnosis
from jaxcnn.gap import gap_parts, gap_sentence, split_of_line, standard_error
from jaxcnn.report.figures import gap_section
from tests.pages import Outline


def line(epoch: float, train: float, validation: float, **more: float) -> dict[str, Any]:
    """A line of metrics.jsonl with these top-1."""
    figures = {"train": train, "validation": validation, **more}
    return {"epoch": epoch, **{part: {"top1": top1, "loss": 1.0} for part, top1 in figures.items()}}


GAP = {
    "examples": 1000,
    "training": {"loss": 0.5, "top1": 0.95},
    "augmented": {"loss": 0.42, "top1": 0.962},
    "clean": {"loss": 0.2, "top1": 0.992},
    "validation": {"loss": 0.6, "top1": 0.879},
}


def test_the_parts_of_the_gap_add_up_to_it_and_are_positive_where_train_is_better() -> None:
    for figure, better in (("top1", 1), ("loss", -1)):
        parts = gap_parts(GAP, figure)
        total = parts.pop("total")
        assert total == pytest.approx(better * (GAP["training"][figure] - GAP["validation"][figure]))
        assert sum(parts.values()) == pytest.approx(total)
        assert parts["generalisation"] > 0 > parts["augmentation"]  # it overfits, and augmentation makes training hard
        assert parts["mode"] < 0


def test_the_gap_is_told_with_each_part() -> None:
    assert gap_sentence(GAP) == (
        "train top-1 is 7.1 points above validation's: augmentation -3.0, dropout and norm mode -1.2, generalisation "
        "+11.3 (best weights, 1,000 training examples)"
    )
    turned = {**GAP, "validation": {"loss": 0.1, "top1": 0.97}}
    assert "is 2.0 points below validation's" in gap_sentence(turned)


def test_the_gap_of_a_line_has_two_parts_where_it_is_clean_with_the_signs_of_the_sentence() -> None:
    assert split_of_line(line(3, 0.9, 0.8)) == "epoch 3: train top-1 90.0 %, validation 80.0 %; gap +10.0 points"
    assert split_of_line(line(3, 0.9, 0.8, clean=0.95)) == (
        "epoch 3: train top-1 90.0 %, validation 80.0 %, clean train 95.0 %; gap +10.0 points: augmentation, dropout, "
        "norm mode, averaging -5.0, generalisation +15.0"
    )
    sentence = gap_sentence({**GAP, "training": GAP["augmented"]})
    same = split_of_line(line(3, GAP["augmented"]["top1"], GAP["validation"]["top1"], clean=GAP["clean"]["top1"]))
    for part in ("-3.0", "generalisation +11.3"):
        assert part in sentence
        assert part in same


@pytest.mark.parametrize("examples", [20, 50, 199])
def test_few_examples_are_told_in_whole_points_with_the_error_of_drawing_them(examples: int) -> None:
    drawn = np.random.default_rng(0).binomial(examples, 0.7, 100_000) / examples
    error = f"{100 * drawn.std():.0f}"
    assert standard_error(0.7, examples) == pytest.approx(100 * drawn.std(), rel=0.02)
    few = {
        **GAP,
        "examples": examples,
        "validation": {"loss": 0.6, "top1": 0.7},
        "augmented": {"loss": 0, "top1": 0.952},
    }
    assert gap_sentence(few) == (
        "train top-1 is 25 points above validation's: augmentation -4, dropout and norm mode +0, generalisation +29 "
        f"(best weights, {examples} training examples: about ±{error} points)"
    )
    one = line(3, 0.9, 0.7, clean=0.95)
    one["train"]["examples"], one["validation"]["examples"], one["clean"]["examples"] = 10_000, examples, 5000
    assert split_of_line(one).endswith(
        f"validation 70 %, clean train 95 %; gap +20 points: augmentation, dropout, norm mode, averaging -5, "
        f"generalisation +25 ({examples} examples: about ±{error} points)"
    )
    assert "±" not in gap_sentence({**few, "examples": 200})


def test_a_perfect_score_on_few_examples_is_not_certain() -> None:
    assert standard_error(1.0, 20) == pytest.approx(100 * math.sqrt(0.05 * 0.95 / 20))
    assert standard_error(0.0, 20) == pytest.approx(standard_error(1.0, 20))


@pytest.mark.parametrize(
    ("examples", "parts"), [(1000, ("-7.00", "-2.00", "+14.00", "+5.00")), (50, ("-7", "-2", "+14", "+5"))]
)
def test_the_gap_of_a_page_has_the_signs_and_digits_of_the_sentence(examples: int, parts: tuple[str, ...]) -> None:
    figures = (("training", 0.9, 0.5), ("augmented", 0.92, 0.4), ("clean", 0.99, 0.1), ("validation", 0.85, 0.7))
    gap = {name: {"top1": top1, "loss": loss} for name, top1, loss in figures}
    record = RunRecord("run", Path("run"), {}, [], {"gap": {"examples": examples, **gap}}, Diagnosis("healthy", ""))
    text = Outline(gap_section(record)).text
    for part, cause in zip(parts, ("augmentation", "dropout and norm mode", "generalisation", "the gap"), strict=True):
        nats = {"augmentation": -0.3, "dropout and norm mode": -0.1, "generalisation": 0.6, "the gap": 0.2}[cause]
        assert f"{part}{nats:+.4f}{cause}" in text
    assert ("±" in text) == (examples < 200)
