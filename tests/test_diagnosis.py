"""What curves say: recorded runs of each kind, cut short and with noise; constructed ones.

The recordings are the metrics of runs on the digits: `python train.py` with a ResNet-8, batches of 64, 500 images to
validate on; `clean` is on 200 training images. Besides, what is not the default:

    healthy-averaged        2,000 images, width 8, 12 epochs
    healthy-raw             the same with optim.ema_decay=none
    overfit-100-images      100 images, width 8, 30 epochs, batches of 20, no augmentation, decay, smoothing, average
    overfit-no-norm         200 images, the same with model.norm=none and optim.peak_lr=0.02
    underfit-low-rate       1,000 images, width 4, 10 epochs, optim.peak_lr=0.0003
    underfit-narrow         1,000 images, width 1, 15 epochs, optim.peak_lr=0.1
    rate-too-high-10, -5    1,000 images, width 4 and 8, 14 epochs, optim.peak_lr=10 and 5, no average
    rate-too-high-constant  1,000 images, width 2, 25 epochs, optim.peak_lr=2, schedule.name=constant
    diverged-no-norm        1,000 images, width 4, 10 epochs, model.norm=none, optim.peak_lr=1, 4 epochs of warm-up
    diverged-high-rate      600 images, width 4, batches of 60, 12 epochs, no norm, optim.peak_lr=30, 10 of warm-up
    plateau-sigmoid         1,000 images, width 4, 12 epochs, no norm, sigmoid, optim.peak_lr=0.1, constant
    plateau-learnt          1,000 images, width 2, 16 epochs, optim.peak_lr=0.5, constant, optim.weight_decay=0.03
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxcnn.diagnosis import diagnose

RECORDINGS = sorted((Path(__file__).parent / "recordings").glob("*.jsonl"))
KINDS = {"rate": "rate too high"}
ADVICE = {
    "healthy": "",
    "overfit": "augment.",
    "underfit": "optim.peak_lr",
    "rate too high": "optim.peak_lr",
    "diverged": "optim.peak_lr",
    "plateau": "optim.peak_lr",
}
HEALTHY = [path for path in RECORDINGS if path.stem.startswith("healthy")]


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for text in path.read_text().splitlines()]


def without_clean(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in line.items() if key != "clean"} for line in lines]


def kind_of(path: Path) -> str:
    first = path.stem.partition("-")[0]
    return KINDS.get(first, first)


def noisy(lines: list[dict[str, Any]], rng: np.random.Generator, share: float) -> list[dict[str, Any]]:
    """The lines with losses off by a normal share and top-1 by a tenth of it in points."""

    def off(figures: dict[str, float]) -> dict[str, float]:
        top1 = figures["top1"] + rng.normal(0, share / 10)
        return {"loss": figures["loss"] * math.exp(rng.normal(0, share)), "top1": float(np.clip(top1, 0, 1))}

    parts = ("train", "clean", "validation")
    return [{**line, **{part: off(line[part]) for part in parts if part in line}} for line in lines]


def line(epoch: float, train: float, validation: float, rate: float = 0.1, **more: Any) -> dict[str, Any]:
    """A line with these top-1, and the losses -ln of them."""
    figures = {"train": train, "validation": validation, **more}
    return {
        "epoch": epoch,
        "learning_rate": rate,
        **{part: {"top1": top1, "loss": -math.log(max(top1, 1e-6))} for part, top1 in figures.items()},
    }


@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_recorded_runs_are_told_for_what_they_are(path: Path, clean: bool) -> None:
    lines = read(path)
    found = diagnose(lines if clean else without_clean(lines), result={}, num_classes=10)
    assert found.kind == kind_of(path), found.sentence
    assert found.is_alarm == (found.kind != "healthy")
    assert ADVICE[found.kind] in found.sentence
    assert "\n" not in found.sentence


def test_there_are_recordings_of_each_kind() -> None:
    assert {kind_of(path) for path in RECORDINGS} == ADVICE.keys()


@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize("path", HEALTHY, ids=lambda path: path.stem)
def test_a_healthy_run_raises_no_alarm_at_any_point_of_it(path: Path, clean: bool) -> None:
    lines = read(path) if clean else without_clean(read(path))
    for count in range(len(lines) + 1):
        for epochs in (None, lines[-1]["epoch"]):
            found = diagnose(lines[:count], num_classes=10, epochs=epochs)
            assert not found.is_alarm, (count, found.sentence)


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_noise_hardly_ever_changes_a_diagnosis(path: Path) -> None:
    rng = np.random.default_rng(0)
    found = [diagnose(noisy(read(path), rng, 0.02), {}, num_classes=10).kind for _ in range(50)]
    assert found.count(kind_of(path)) >= 45, found


@pytest.mark.parametrize("path", HEALTHY, ids=lambda path: path.stem)
def test_no_noise_makes_an_alarm_of_a_healthy_run(path: Path) -> None:
    rng = np.random.default_rng(1)
    lines = read(path)
    for share in (0.03, 0.1):
        for count in [*range(4, len(lines) + 1)] * 5:
            found = diagnose(noisy(lines[:count], rng, share), num_classes=10, epochs=lines[-1]["epoch"])
            assert not found.is_alarm, (share, count, found.sentence)


def test_the_figures_of_the_sentence_are_those_of_the_recording() -> None:
    lines = read(next(path for path in RECORDINGS if path.stem == "overfit-100-images"))
    sentence = diagnose(lines, {}, num_classes=10).sentence
    late = np.median([one["validation"]["top1"] for one in lines[-3:]])
    assert f"validation {100 * late:.1f} %" in sentence
    assert "clean train top-1 100.0 %" in sentence


def test_a_run_that_stopped_on_a_loss_that_is_not_finite_has_diverged_even_without_a_line() -> None:
    lines = read(HEALTHY[0])[:5]
    assert diagnose([], num_classes=10, failed=True).kind == "diverged"
    assert "before the first evaluation" in diagnose([], num_classes=10, failed=True).sentence
    assert "after epoch 5" in diagnose(lines, num_classes=10, failed=True).sentence
    lines[-1]["validation"]["loss"] = math.nan
    assert diagnose(lines, num_classes=10).kind == "diverged"


def test_few_evaluations_are_too_early_to_judge() -> None:
    assert diagnose([], num_classes=10).kind == "early"
    lines = [line(1, 0.9, 0.2), line(2, 0.95, 0.2), line(3, 0.99, 0.2)]
    assert diagnose(lines, num_classes=10).kind == "early"
    assert diagnose([*lines, line(4, 0.999, 0.2, rate=0.0)], num_classes=10).kind == "overfit"


def test_a_run_that_still_learns_is_underfit_only_once_it_is_done() -> None:
    lines = [line(epoch, 0.05 * epoch, 0.05 * epoch) for epoch in range(1, 11)]
    assert diagnose(lines, num_classes=1000, epochs=90).kind == "early"
    found = diagnose(lines, num_classes=1000, epochs=10)
    assert found.kind == "underfit"
    assert "still falls" in found.sentence


def test_a_rising_validation_loss_is_overfitting_before_the_accuracies_part() -> None:
    lines = [line(epoch, 0.95, 0.9, rate=0.1 if epoch < 5 else 0.01) for epoch in range(1, 13)]
    assert diagnose(lines, {}, num_classes=10).kind == "healthy"
    for place, one in enumerate(lines):
        one["validation"]["loss"] = 0.3 + 0.02 * max(0, place - 4)
    assert diagnose(lines, {}, num_classes=10).kind == "overfit"
    for one in lines:
        one["validation"]["top1"] = 0.94  # less than 3 points apart: confidence, not accuracy
    assert diagnose(lines, {}, num_classes=10).kind == "healthy"


def test_clean_figures_decide_where_augmentation_hides_what_is_learned() -> None:
    lines = [line(epoch, 0.6, 0.8, clean=0.99) for epoch in range(1, 11)]
    assert diagnose(lines, {}, num_classes=100).kind != "underfit"
    falling = [line(epoch, 0.4 + 0.02 * epoch, 0.8, clean=0.99) for epoch in range(1, 11)]
    assert diagnose(falling, {}, num_classes=100).kind == "overfit"
    assert diagnose(without_clean(falling), {}, num_classes=100).kind == "underfit"


def curve(
    losses: list[float], num_classes: int, *, clean: list[float] | None = None, rates: list[float] | None = None
) -> list[dict[str, Any]]:
    """Lines with these train losses, the same for validation unless clean ones are given; top-1 is exp(-loss), which
    at the loss of guessing is that of guessing; a cosine of the rate without warm-up unless rates are given."""
    count = len(losses)
    rates = rates or [0.05 * (1 + math.cos(math.pi * place / count)) for place in range(1, count + 1)]

    def figures(loss: float) -> dict[str, float]:
        return {"loss": loss, "top1": max(1 / num_classes, math.exp(-loss))}

    lines = []
    for place, (loss, rate) in enumerate(zip(losses, rates, strict=True)):
        seen = {"train": figures(loss), "validation": figures(loss if clean is None else clean[place])}
        if clean is not None:
            seen["clean"] = figures(clean[place])
        lines.append({"epoch": place + 1.0, "learning_rate": rate, **seen})
    return lines


CONSTANT = [0.1] * 10


@pytest.mark.parametrize("rates", [None, CONSTANT])
@pytest.mark.parametrize("num_classes", [2, 10, 100])
@pytest.mark.parametrize(
    "shares", [(21.7, 3.5, 1.13, 1.01, 1.003), (1.0, 0.98, 30.0, 1.1, 1.003), (1.01, 1.9, 1.02, 1.002, 1.001)]
)
def test_a_step_that_kills_a_network_is_a_rate_too_high(
    shares: tuple[float, ...], num_classes: int, rates: list[float] | None
) -> None:
    losses = [share * math.log(num_classes) for share in (*shares, *[1.0] * 5)]
    for end in (6, 10):
        found = diagnose(curve(losses[:end], num_classes, rates=rates and rates[:end]), {}, num_classes=num_classes)
        assert found.kind == "rate too high"
        assert "lower optim.peak_lr" in found.sentence
        assert "model.norm" in found.sentence
        assert "optim.clip_norm" in found.sentence
        assert "raise" not in found.sentence


@pytest.mark.parametrize("num_classes", [2, 10, 100])
def test_a_loss_at_guessing_from_the_start_is_told_without_a_guess_at_its_cause(num_classes: int) -> None:
    losses = [share * math.log(num_classes) for share in (1.08, 1.03, 1.01, *[1.0] * 7)]
    found = diagnose(curve(losses, num_classes), {}, num_classes=num_classes)
    assert found.kind == "underfit"
    for cause in ("nothing was learned", "optim.peak_lr may be far too low", "dead", "freeze", "labels", "preflight"):
        assert cause in found.sentence


@pytest.mark.parametrize("power", [0.7, 1.0, 2.0])
@pytest.mark.parametrize("count", [4, 6, 12, 40])
@pytest.mark.parametrize("num_classes", [2, 10, 100])
def test_slow_steady_learning_is_not_a_rate_too_high(num_classes: int, count: int, power: float) -> None:
    losses = [math.log(num_classes) * (1 - 0.16 * (place / (count - 1)) ** power) for place in range(count)]
    found = diagnose(curve(losses, num_classes), {}, num_classes=num_classes)
    assert found.kind == "underfit", found.sentence
    assert "higher optim.peak_lr" in found.sentence


@pytest.mark.parametrize("first", [1.0, 1.3])
@pytest.mark.parametrize("num_classes", [2, 10, 100])
def test_what_learns_only_once_the_rate_falls_has_a_rate_too_high(num_classes: int, first: float) -> None:
    shares = [first, 1.001, 0.999, 1.0, 0.998, 0.999, 0.96, 0.9, 0.85, 0.82]
    found = diagnose(
        curve([share * math.log(num_classes) for share in shares], num_classes), {}, num_classes=num_classes
    )
    assert found.kind == "rate too high", found.sentence
    assert "while the rate was high" in found.sentence


@pytest.mark.parametrize("rates", [None, CONSTANT])
def test_an_evaluation_that_lags_behind_training_is_told_as_such(rates: list[float] | None) -> None:
    losses = [2.08, 2.0, 1.94, 1.9, 1.86, 1.82, 1.79, 1.76, 1.73, 1.71]
    lines = curve(losses, 10, clean=[5.04] * 10, rates=rates)
    for one in lines:
        one["train"]["top1"] = 0.36
    found = diagnose(lines, {}, num_classes=10)
    assert found.kind == "evaluation lags"
    assert found.is_alarm
    assert "36.0 %" in found.sentence
    assert "5.04" in found.sentence
    assert "optim.ema_decay" in found.sentence
    assert "nothing was learned" not in found.sentence
    lines[-1]["clean"] = {"loss": 1.7, "top1": 0.37}  # it has caught up
    assert diagnose(lines, {}, num_classes=10).kind == "underfit" if rates is None else "plateau"


@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize("count", [12, 30])
def test_mixed_images_that_stay_hard_are_no_plateau_while_validation_rises(count: int, clean: bool) -> None:
    lines = [
        {
            "epoch": place + 1.0,
            "learning_rate": 0.1,
            "train": {"loss": 1.4, "top1": 0.55},
            "clean": {"loss": 0.6 - 0.3 * place / (count - 1), "top1": 0.82 + 0.12 * place / (count - 1)},
            "validation": {"loss": 0.65 - 0.3 * place / (count - 1), "top1": 0.8 + 0.12 * place / (count - 1)},
        }
        for place in range(count)
    ]
    lines = lines if clean else without_clean(lines)
    for end in range(9, count + 1):
        found = diagnose(lines[:end], num_classes=10, epochs=2 * count)
        assert found.kind in ("early", "healthy"), found.sentence
    still = [{**one, "clean": lines[0].get("clean"), "validation": lines[0]["validation"]} for one in lines]
    still = still if clean else without_clean(still)
    assert diagnose(still, num_classes=10, epochs=2 * count).kind == "plateau"


def test_patience_is_told_where_it_ended_a_run() -> None:
    lines = [{**line(epoch, 0.95, 0.94), "step": 10 * epoch} for epoch in range(1, 9)]
    ended = {"final": {"step": 80}}
    assert "more train.epochs may gain" in diagnose(lines, ended, num_classes=10, epochs=8).sentence
    for result in ({}, {**ended, "stopped_early": True}):  # the result while it is made, and as it is written
        sentence = diagnose(lines, result, num_classes=10, epochs=20).sentence
        assert "stopped early at epoch 8 of 20" in sentence
        assert "train.patience_epochs" in sentence
        assert "more train.epochs" not in sentence
    low = [{**line(epoch, 0.3 + 0.02 * epoch, 0.4), "step": 10 * epoch} for epoch in range(1, 9)]
    assert "more train.epochs" in diagnose(low, ended, num_classes=10, epochs=8).sentence
    assert "train.patience_epochs" in diagnose(low, {}, num_classes=10, epochs=20).sentence


def test_the_result_of_an_earlier_end_does_not_count() -> None:
    lines = [{**line(epoch, 0.95, 0.94), "step": 10 * epoch} for epoch in range(1, 9)]
    found = diagnose(lines, {"final": {"step": 60}, "stopped_early": True}, num_classes=10, epochs=20)
    assert found.sentence.startswith("healthy so far")
