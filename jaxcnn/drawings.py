"""The figures of a run while it trains: curves, and the confusion matrix of each split. Process 0 only."""

import math
import time
from collections.abc import Sequence

import jax
import numpy as np

from jaxcnn.confusion import plot_confusion, write_confusion
from jaxcnn.curves import plot_curves
from jaxcnn.diagnosis import diagnose
from jaxcnn.run_folder import RunFolder

_SECONDS = 20.0  # between drawings, which take half a second each


class Drawings:
    """Draws into a run folder, not too often."""

    def __init__(self, folder: RunFolder, class_names: Sequence[str]):
        self._folder, self._class_names = folder, class_names
        self._epochs = folder.config.train.epochs
        self._drawn = -math.inf

    @property
    def due(self) -> bool:
        """Whether the last drawing is long enough ago."""
        return time.perf_counter() - self._drawn > _SECONDS

    def record(self, matrices: dict[str, np.ndarray], step: int) -> None:
        """Writes the confusion matrices of splits after a step."""
        if jax.process_index() == 0:
            for split, matrix in matrices.items():
                write_confusion(matrix, self._class_names, self._folder.confusion(split), step)

    def draw(self, matrices: dict[str, np.ndarray], step: int, *, failed: bool = False) -> None:
        """Draws the curves so far with what they say, and the confusion matrices of splits after a step.

        What they say is what result.json says, where it is there: it is written before the last drawing.

        Args:
          matrices: by the name of the split.
          step: of the weights that were measured.
          failed: whether the run stops here on a loss that is not finite.
        """
        if jax.process_index() == 0:
            name, lines = self._folder.path.name, self._folder.metrics()
            found = diagnose(
                lines, self._folder.result(), num_classes=len(self._class_names), epochs=self._epochs, failed=failed
            )
            plot_curves(lines, self._folder.curves, title=name, note=found.sentence)
            for split, matrix in matrices.items():
                place = self._folder.confusion(split).with_suffix(".png")
                plot_confusion(matrix, self._class_names, place, f"{name}, {split}, step {step}")
        self._drawn = time.perf_counter()
