"""A table as text for a terminal, as CSV and as JSON."""

import csv
import io
import math
from collections.abc import Sequence
from typing import Any

from jaxcnn.inspection.table import Column, Row

_GAP = "  "


def as_text(rows: Sequence[Row], columns: Sequence[Column], width: int | None = None, kept: Sequence[str] = ()) -> str:
    """Returns a table in aligned columns.

    Args:
      rows: its rows.
      columns: its columns.
      width: of the terminal in characters; columns that do not fit are left out, and named below. None: all are shown.
      kept: names of columns in the order in which they are kept where not all fit; the first stays in any case.
    """
    cells = {column.name: [column.name, *(column.shown(row) for row in rows)] for column in columns}
    widths = {name: max(map(len, texts)) for name, texts in cells.items()}
    shown = list(columns) if width is None else _that_fit(columns, widths, width, kept)
    lines = []
    for place in range(len(rows) + 1):
        texts = []
        for column in shown:
            text, size = cells[column.name][place], widths[column.name]
            texts.append(text.ljust(size) if column.is_text else text.rjust(size))
        lines.append(_GAP.join(texts).rstrip())
    left_out = [column.name for column in columns if column not in shown]
    if left_out:
        lines.append(f"({', '.join(left_out)}: not shown, for want of width; --columns all, or some of them by name)")
    return "\n".join(lines)


def _that_fit(columns: Sequence[Column], widths: dict[str, int], width: int, kept: Sequence[str]) -> list[Column]:
    """The columns that are kept in so many characters, in their own order."""
    by_rank = sorted(columns, key=lambda one: kept.index(one.name) if one.name in kept else len(kept))
    taken: set[str] = set()
    left = width + len(_GAP)
    for column in by_rank:
        wanted = widths[column.name] + len(_GAP)
        if wanted <= left or not taken:
            taken.add(column.name)
            left -= wanted
        elif not column.is_text:  # texts may be long where what is kept next is not
            break
    return [column for column in columns if column.name in taken]


def as_csv(rows: Sequence[Row], columns: Sequence[Column]) -> str:
    """Returns the table as CSV: the names of the columns, then values as they are; nothing for what does not apply."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([column.name for column in columns])
    writer.writerows([["" if (value := column.of(row)) is None else value for column in columns] for row in rows])
    return out.getvalue()


def as_records(rows: Sequence[Row], columns: Sequence[Column]) -> list[dict[str, Any]]:
    """Returns the rows as JSON has them: by name of column; none for what does not apply or is not finite."""
    return [{column.name: _plain(column.of(row)) for column in columns} for row in rows]


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
