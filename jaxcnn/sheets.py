"""Sheets of images: a grid with labels, as a PNG."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

_GAP_PX = 4
_PLATE = {"facecolor": "white", "alpha": 0.75, "pad": 0.8, "edgecolor": "none"}


def draw_grid(
    rows: Sequence[Sequence[np.ndarray]],
    row_labels: Sequence[str],
    column_labels: Sequence[str] | None,
    path: str | Path,
    title: str = "",
    tile_px: int = 96,
    captions: Sequence[Sequence[str]] | None = None,
) -> None:
    """Draws rows of images to a PNG, replaced whole.

    Args:
      rows: of uint8 [H, W, 1 or 3], of any sizes and lengths; each image is fitted into a tile, its shape kept.
      row_labels: one a row, written left of it.
      column_labels: one a column, written above it; none: no such labels.
      path: file to write.
      title: heading.
      tile_px: side of a tile.
      captions: one an image, written on its lower edge; none or "": nothing.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = max(map(len, rows), default=1)
    step = tile_px + _GAP_PX
    canvas = np.full((len(rows) * step, columns * step, 3), 255, np.uint8)
    for r, row in enumerate(rows):
        for c, image in enumerate(row):
            canvas[r * step : r * step + tile_px, c * step : c * step + tile_px] = _tile(image, tile_px)
    dpi, left_px, top_px = 100, 20 + 7 * max(map(len, row_labels), default=0), 50 if title or column_labels else 8
    height, width = canvas.shape[0] + top_px, max(canvas.shape[1] + left_px, 20 + 7 * len(title))
    figure = Figure(figsize=(width / dpi, height / dpi), dpi=dpi)
    FigureCanvasAgg(figure)
    figure.figimage(canvas, xo=left_px, yo=0, origin="upper")
    style: dict[str, Any] = {"fontsize": 8, "parse_math": False}  # a name may hold a $
    for r, label in enumerate(row_labels):
        y = 1 - (top_px + r * step + tile_px / 2) / height
        figure.text((left_px - 6) / width, y, label, ha="right", va="center", **style)
    for c, label in enumerate(column_labels or ()):
        figure.text((left_px + c * step + tile_px / 2) / width, 1 - (top_px - 4) / height, label, ha="center", **style)
    small = {**style, "fontsize": 6, "ha": "center", "va": "bottom", "bbox": _PLATE}
    for r, texts in enumerate(captions or ()):
        for c, text in ((c, text) for c, text in enumerate(texts) if text):
            x, y = left_px + c * step + tile_px / 2, top_px + r * step + tile_px - 2
            figure.text(x / width, 1 - y / height, text, **small)
    figure.text(0.5, 1 - 14 / height, title, ha="center", va="center", fontsize=9, parse_math=False)
    part = Path(path).with_name(f".{Path(path).name}")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # drawn as boxes where no font has them
        figure.savefig(part, dpi=dpi, format="png")
    part.replace(path)


def _tile(image: np.ndarray, side: int) -> np.ndarray:
    """The image fitted into a light grey square uint8 [side, side, 3]; small ones are enlarged without smoothing."""
    import cv2

    h, w = image.shape[:2]
    scale = side / max(h, w)
    size = (max(1, round(w * scale)), max(1, round(h * scale)))
    fitted = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST)
    fitted = fitted.reshape(size[1], size[0], -1)
    tile = np.full((side, side, 3), 235, np.uint8)
    top, left = (side - size[1]) // 2, (side - size[0]) // 2
    tile[top : top + size[1], left : left + size[0]] = fitted  # one channel spreads over three
    return tile
