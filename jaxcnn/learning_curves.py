"""The lines of metrics.jsonl as arrays, and the questions that rules ask of them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

_RISE, _RISE_LN_K = 1.2, 0.05
_GUESSES = 0.95


@dataclass(frozen=True)
class LearningCurves:
    """The lines as arrays [evaluations], and what the rules of `diagnosis` ask of them; top-1 in shares."""

    lines: Sequence[Mapping[str, Any]]
    num_classes: int
    result: Mapping[str, Any] | None = None
    """That of the run, if it has ended; one of an earlier end does not count."""
    planned: float | None = None
    """Epochs."""

    def of(self, part: str, figure: str) -> np.ndarray:
        """Returns a figure of a part at each evaluation."""
        return np.array([line[part][figure] for line in self.lines], np.float64)

    def late(self, part: str, figure: str = "top1") -> float:
        """Returns the median of a figure over the last 3 evaluations."""
        return float(np.median(self.of(part, figure)[-3:]))

    @property
    def guess(self) -> float:
        """Loss of guessing, ln K."""
        return math.log(max(self.num_classes, 2))

    @cached_property
    def epoch(self) -> np.ndarray:
        return np.array([line["epoch"] for line in self.lines], np.float64)

    @cached_property
    def rate(self) -> np.ndarray:
        return np.array([line["learning_rate"] for line in self.lines], np.float64)

    @property
    def is_high(self) -> np.ndarray:
        """Whether the rate is half of its peak or more."""
        return self.rate >= 0.5 * self.rate.max()

    @cached_property
    def train_loss(self) -> np.ndarray:
        return self.of("train", "loss")

    @cached_property
    def validation_loss(self) -> np.ndarray:
        return self.of("validation", "loss")

    @cached_property
    def has_clean(self) -> bool:
        """A run that was gone on with may lack clean figures in some lines."""
        return all("clean" in line for line in self.lines)

    @property
    def fit_part(self) -> str:
        """Which figures say how well the network fits its examples."""
        return "clean" if self.has_clean else "train"

    @property
    def fit_name(self) -> str:
        return "clean train" if self.has_clean else "train"

    @cached_property
    def fit_loss(self) -> np.ndarray:
        return self.of(self.fit_part, "loss")

    @property
    def learned_part(self) -> str:
        """Clean or train, whichever has the lower late loss.

        Strong augmentation hides in the train figures what is learned; moving averages and statistics that lag behind
        a high rate hide it in the clean ones.
        """
        return min(("train", self.fit_part), key=lambda part: self.late(part, "loss"))

    @cached_property
    def learned_loss(self) -> np.ndarray:
        """The lower of the clean and the train loss at each evaluation."""
        return np.minimum(self.train_loss, self.fit_loss)

    @property
    def guesses(self) -> bool:
        """Whether every late loss, train, clean and validation, is no better than guessing."""
        parts = {"train", self.fit_part, "validation"}
        return all(self.late(part, "loss") > _GUESSES * self.guess for part in parts)

    @cached_property
    def lowest_before(self) -> np.ndarray:
        """The lowest train loss before each evaluation; infinite at the first."""
        return np.concatenate([[np.inf], np.minimum.accumulate(self.train_loss)[:-1]])

    @cached_property
    def risen(self) -> np.ndarray:
        """Where the train loss is clearly above the lowest before."""
        return self.train_loss > _RISE * self.lowest_before + _RISE_LN_K * self.guess

    @property
    def not_finite(self) -> bool:
        return not (math.isfinite(self.train_loss[-1]) and math.isfinite(self.validation_loss[-1]))

    @cached_property
    def has_ended(self) -> bool:
        """Whether the result is that of the last line: a run that is gone on with keeps its last one until it ends."""
        if self.result is None:
            return False
        step = (self.result.get("final") or {}).get("step")
        return step is None or not self.lines or self.lines[-1].get("step", step) == step

    @property
    def done(self) -> bool:
        if self.has_ended:
            return True
        if self.planned is not None:
            return bool(self.epoch[-1] >= self.planned - 1e-6)
        return bool(self.rate[-1] < 0.1 * self.rate.max())

    @property
    def stopped_early(self) -> bool:
        """Whether patience ended the run before its planned epochs; without a flag, what has ended short of them."""
        if not self.has_ended or self.result is None:
            return False
        short = self.planned is not None and bool(self.epoch[-1] < self.planned - 1e-6)
        return bool(self.result.get("stopped_early", short))

    @property
    def longer(self) -> str:
        """The setting that makes the run longer, in words."""
        return "a longer train.patience_epochs" if self.stopped_early else "more train.epochs"

    @property
    def settled(self) -> bool:
        """Whether figures no longer jump with each step of a high rate."""
        return self.done or bool(self.rate[-1] < 0.5 * self.rate.max())

    @property
    def third(self) -> int:
        return max(2, len(self.lines) // 3)

    def thirds(self, values: np.ndarray) -> tuple[float, float]:
        """Returns the medians of the third before the last one, and of the last."""
        return float(np.median(values[-2 * self.third : -self.third])), float(np.median(values[-self.third :]))

    @property
    def progress(self) -> float:
        """What is learned over the last third: the loss there as a part of that of the third before, medians."""
        before, last = self.thirds(self.learned_loss)
        return last / max(before, 1e-12)

    @property
    def validation_progress(self) -> float:
        """Validation errors over the last third as a part of those of the third before: medians.

        No fewer than the errors in training count: where validation is behind, its jumps are no progress.
        """
        before, last = self.thirds(1 - np.maximum(self.of("validation", "top1"), self.of("train", "top1")))
        return last / max(before, 1e-12)

    @property
    def figures(self) -> str:
        return (
            f"{self.fit_name} top-1 {100 * self.late(self.fit_part):.1f} %, "
            f"validation {100 * self.late('validation'):.1f} %"
        )
