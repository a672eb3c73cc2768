"""Confusion matrices, as JSON and as a figure."""

import json
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxcnn.whole import write_whole

_MOST_NUMBERS = 20  # classes up to which each cell shows its count
_MOST_NAMES = 60  # classes up to which each row has its name


def write_confusion(matrix: np.ndarray, class_names: Sequence[str], path: Path, step: int) -> None:
    """Writes a confusion matrix as JSON: class_names, step, and matrix with a row a true class; replaced whole."""
    path.parent.mkdir(exist_ok=True)
    rows = ",\n".join(f"  {json.dumps(row)}" for row in matrix.tolist())
    head = f'{{"step": {step},\n "class_names": {json.dumps(list(class_names), ensure_ascii=False)},\n'
    write_whole(path, f'{head} "matrix": [\n{rows}\n ]}}\n')


def plot_confusion(matrix: np.ndarray, class_names: Sequence[str], path: Path, title: str) -> None:
    """Draws a confusion matrix to a PNG: colours are shares of a row, numbers are counts.

    Args:
      matrix: int [K, K], how many examples of each class (row) were taken for each class (column).
      class_names: names of the classes.
      path: file to write, replaced whole.
      title: heading.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    count = len(class_names)
    side = float(np.clip(2.2 + 0.5 * count, 4.5, 14))
    figure = Figure(figsize=(side + 1.2, side), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, shrink=0.8, label="share of the class")
    if count <= _MOST_NAMES:
        names = [name if len(name) <= 24 else f"{name[:23]}…" for name in class_names]
        axes.set_xticks(range(count), names, rotation=90 if max(map(len, names)) > 2 else 0, parse_math=False)
        axes.set_yticks(range(count), names, parse_math=False)
    if count <= _MOST_NUMBERS:
        for row, column in zip(*np.nonzero(matrix), strict=True):
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, f"{matrix[row, column]:,}", ha="center", va="center", color=colour, fontsize=8)
    axes.set(xlabel="predicted", ylabel="true class")
    axes.set_title(title, parse_math=False)  # a name may hold a $
    part_file = path.with_name(f".{path.name}")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # drawn as boxes where no font has them
        figure.savefig(part_file, dpi=110, format="png")
    part_file.replace(path)
