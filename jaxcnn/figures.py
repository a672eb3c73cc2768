"""The figures of a run: measured at its boundaries, and the result at its end."""

import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxcnn.evaluation import evaluate
from jaxcnn.gap_measurement import measure_gap
from jaxcnn.job import Job
from jaxcnn.runtime import environment
from jaxcnn.training.state import TrainState


class Figures:
    """Measures states of a run."""

    def __init__(self, job: Job):
        self._job = job
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
                figures[name] = evaluate(job.measured, state.variables, split, size, job.mesh)
        confusion = {name: found.pop("confusion") for name, found in figures.items()}
        self.confusion = {name: matrix for name, matrix in confusion.items() if name in job.splits}
        return figures

    def result(
        self,
        state: TrainState,
        best_step: int,
        figures: dict[str, Any],
        last_step: int,
        final: dict[str, Any],
        lines: Sequence[dict[str, Any]],
    ) -> dict[str, Any]:
        """Returns what result.json says of the weights.

        Args:
          state: the best, of step best_step.
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
            "gap": measure_gap(job, state, figures["validation"]),
            "examples": {"train": job.num_train, **{name: len(split) for name, split in job.splits.items()}},
            "parameters": job.network.num_parameters,
            "images_per_second": statistics.median(line["images_per_second"] for line in lines) if lines else None,
            **environment(),
        }


def short(figures: dict[str, Any]) -> dict[str, Any]:
    """Returns the part of a split's figures that a line of metrics.jsonl has."""
    return {name: figures[name] for name in ("loss", "top1", "top5", "balanced_accuracy", "examples")}
