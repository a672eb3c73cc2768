"""The figures of a run: measured at its boundaries, and the result at its end."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from jaxcnn.diagnosis import Diagnosis, diagnose
from jaxcnn.evaluation import evaluate
from jaxcnn.gap_measurement import measure_gap
from jaxcnn.job import Job
from jaxcnn.runtime import environment
from jaxcnn.training.metrics import Sums, divide
from jaxcnn.training.state import TrainState


class Figures:
    """Measures states of a run."""

    def __init__(self, job: Job, between: Callable[[], None] = lambda: None):
        """Args: between: called before each batch that is measured; it may raise, and the figures are given up."""
        self._job, self._between = job, between
        self.confusion: dict[str, np.ndarray] = {}
        """Of the latest evaluation of each split."""

    def measure(self, state: TrainState, names: Sequence[str] | None = None) -> dict[str, Any]:
        """Returns the figures of a state's weights on splits by name, on all by default; "clean" are the training
        examples that are measured beside them, if there are any. The confusion matrices of splits are kept."""
        job, size = self._job, self._job.config.evaluation.batch_size
        places = {**job.splits, "clean": job.clean}
        figures = {}
        for name in job.splits if names is None else names:
            if (split := places[name]) is not None:
                figures[name] = evaluate(job.measured, state.variables, split, size, job.mesh, self._between)
        confusion = {name: found.pop("confusion") for name, found in figures.items()}
        self.confusion = {name: matrix for name, matrix in confusion.items() if name in job.splits}
        return figures

    def line(
        self, step: int, epoch: float, sums: Sums, measured: dict[str, Any], timing: dict[str, float]
    ) -> dict[str, Any]:
        """Returns a line of metrics.jsonl.

        Args:
          step: that was the last.
          epoch: that is complete with it.
          sums: of the training steps since the line before.
          measured: of `measure`.
          timing: of the same steps.
        """
        return {
            "step": step,
            "epoch": epoch,
            "train": _short(divide(sums)),
            **{name: _short(found) for name, found in measured.items()},
            "learning_rate": float(self._job.schedule(step - 1)),
            "grad_norm": float(sums["grad_norm"]) / int(sums["steps"]),
            **timing,
        }

    def result(
        self,
        state: TrainState,
        phase: int,
        best_step: int,
        figures: dict[str, Any],
        last_step: int,
        final: dict[str, Any],
        lines: Sequence[dict[str, Any]],
    ) -> dict[str, Any]:
        """Returns what result.json says of the weights.

        Args:
          state: the best, of step best_step and a phase.
          figures: of it on the splits.
          final: of the last step.
          lines: of metrics.jsonl.
        """
        job = self._job
        return {
            **figures,
            "best_step": best_step,
            "best_epoch": next((line["epoch"] for line in lines if line["step"] == best_step), None),
            "final": {"step": last_step, "train": lines[-1]["train"] if lines else None, **final},
            "gap": measure_gap(job, state, phase, figures["validation"], self._between),
            "diagnosis": asdict(self._diagnosis(lines, figures)),
            "examples": {"train": job.num_train, **{name: len(split) for name, split in job.splits.items()}},
            "parameters": job.network.num_parameters,
            "images_per_second": statistics.median(line["images_per_second"] for line in lines) if lines else None,
            **environment(),
        }

    def _diagnosis(self, lines: Sequence[dict[str, Any]], result: dict[str, Any]) -> Diagnosis:
        epochs = self._job.config.train.epochs
        return diagnose(lines, result, num_classes=len(self._job.network.class_names), epochs=epochs)


def _short(figures: dict[str, Any]) -> dict[str, Any]:
    """The part of a split's figures that a line of metrics.jsonl has."""
    return {name: figures[name] for name in ("loss", "top1", "top5", "balanced_accuracy", "examples")}
