"""The columns of the table of leaves; each holds for one leaf and for several together."""

import math
from collections.abc import Sequence
from typing import Any

from jaxcnn.inspection.leaves import Leaf
from jaxcnn.inspection.table import Column, Row, common, how_many
from jaxcnn.inspection.values import Values, expected_values, pooled


def count_text(count: float) -> str:
    """A whole number with commas."""
    return f"{count:,}"


def bytes_text(count: float) -> str:
    """Bytes in decimal units, three digits."""
    units = ("B", "kB", "MB", "GB")
    for unit in units[:-1]:
        if float(f"{count:.3g}") < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} {units[-1]}"


def percent_text(part: float) -> str:
    """A part as percent, two digits after the point; what is smaller and not 0 is said to be so."""
    return "<0.01 %" if 0 < part < 5e-5 else f"{100 * part:.2f} %"


def figure_text(value: float) -> str:
    """A figure with four digits."""
    return f"{value:.4g}"


def pooled_values(row: Row) -> Values | None:
    """Returns the figures of all numbers of a row; none where those of a leaf are not known."""
    values = [leaf.values for leaf in row.leaves]
    return None if None in values else pooled(values)


def _of_values(name: str) -> Any:
    def figure(row: Row) -> float | None:
        values = pooled_values(row)
        return None if values is None else _known(getattr(values, name))

    return figure


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _expected_std(row: Row) -> float | None:
    """The deviation that the initialisers give all numbers of a row, about their common mean."""
    parts = []
    for leaf in row.leaves:
        if leaf.drawn is None or leaf.drawn.std is None or leaf.drawn.mean is None:
            return None
        parts.append(expected_values(leaf.size, leaf.drawn.mean, leaf.drawn.std))
    return pooled(parts).std


def _initialiser(row: Row) -> str | None:
    return common(leaf.drawn.name if leaf.drawn else None for leaf in row.leaves)


def _shape(row: Row) -> str:
    if len(row.leaves) > 1:
        return f"{len(row.leaves)} leaves"
    return "x".join(map(str, row.leaves[0].shape)) or "scalar"


def _state(row: Row) -> str | None:
    distinct = {leaf.state for leaf in row.leaves}
    if len(distinct) == 1:
        return distinct.pop()
    runs = sum(leaf.runs for leaf in row.leaves)
    if not runs:
        return "frozen, some until later"
    return f"{runs} of {len(row.leaves)} {'move' if row.kind == 'statistic' else 'train'}"


def _rate(row: Row) -> float | str | None:
    rates = [leaf.rate for leaf in row.leaves if leaf.rate is not None]
    if not rates:
        return None
    return rates[0] if min(rates) == max(rates) else f"{min(rates):.4g}..{max(rates):.4g}"


def _sum(values: Sequence[float | None]) -> Any:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _grad_norm(row: Row) -> float | None:
    """The norm of the gradients together."""
    norms = [leaf.moved.grad_norm for leaf in row.leaves if leaf.moved is not None]
    return math.hypot(*norms) if norms else None


def _update_ratio(row: Row) -> float | None:
    """The norm of the kernels' updates together as a part of that of their weights."""
    moved = [leaf.moved for leaf in row.leaves if leaf.moved is not None and leaf.moved.update_norm is not None]
    weights = math.hypot(*(one.weight_norm for one in moved))
    return math.hypot(*(one.update_norm for one in moved if one.update_norm is not None)) / weights if weights else None


COLUMNS = (
    Column("path", lambda row: row.path, is_text=True),
    Column("kind", lambda row: row.kind, is_text=True),
    Column("leaves", lambda row: len(row.leaves), count_text),
    Column("shape", _shape, is_text=True),
    Column("dtype", lambda row: common(leaf.dtype for leaf in row.leaves), is_text=True),
    Column("size", lambda row: sum(leaf.size for leaf in row.leaves), count_text),
    Column("bytes", lambda row: sum(leaf.bytes for leaf in row.leaves), bytes_text),
    Column("share", lambda row: _sum([leaf.share for leaf in row.leaves]), percent_text),
    Column("init", _initialiser, is_text=True),
    Column("init_std", _expected_std, figure_text),
    Column("std", _of_values("std"), figure_text),
    Column("mean", _of_values("mean"), figure_text),
    Column("min", _of_values("low"), figure_text),
    Column("max", _of_values("high"), figure_text),
    Column("zeros", _of_values("zero_share"), percent_text),
    Column("nonfinite", _of_values("nonfinite"), count_text),
    Column("state", _state, is_text=True),
    Column("decay", lambda row: how_many([leaf.decays for leaf in row.leaves]), is_text=True),
    Column("lr_factor", _rate, figure_text),
    Column("optimizer", lambda row: _sum([leaf.optimizer_bytes for leaf in row.leaves]), bytes_text),
    Column("sharding", lambda row: common(leaf.sharding for leaf in row.leaves), is_text=True),
    Column("grad_norm", _grad_norm, figure_text),
    Column("update_ratio", _update_ratio, figure_text),
)

USUAL = (
    "path", "kind", "shape", "size", "share", "init", "init_std", "std", "state", "decay", "lr_factor", "optimizer",
    "grad_norm", "update_ratio", "mean", "min", "max", "zeros", "nonfinite",
)  # fmt: skip
"""What is shown where no columns are chosen and there is something to show."""

KEPT = (
    "path", "kind", "size", "grad_norm", "update_ratio", "std", "init_std", "state", "shape", "init", "decay", "share",
    "optimizer", "lr_factor", "mean", "zeros", "nonfinite", "min", "max",
)  # fmt: skip
"""The same, by how long it is kept where a terminal is too narrow for all."""


def usual_columns(rows: Sequence[Row]) -> list[Column]:
    """Returns the usual columns that tell something of these rows: none that is all dashes, nor a factor of 1 alone.

    The kind is told where two rows have one path: the parameters and the statistics below it.
    """
    twice = len({row.path for row in rows}) < len(rows)
    found = []
    for column in sorted((one for one in COLUMNS if one.name in USUAL), key=lambda one: USUAL.index(one.name)):
        values = {column.of(row) for row in rows}
        dull = {None, {"lr_factor": 1.0, "nonfinite": 0, "zeros": 0.0}.get(column.name)}
        if not values <= dull and (twice or column.name != "kind"):
            found.append(column)
    return found


def totals_of(leaves: Sequence[Leaf], other_optimizer_bytes: int | None) -> dict[str, Any]:
    """Returns the totals of a table: numbers, and bytes of arrays and optimizer.

    Args:
      leaves: those shown.
      other_optimizer_bytes: what the optimizer holds besides the moments of parameters; none: there is no optimizer.
    """
    kinds = {kind: [leaf for leaf in leaves if leaf.kind == kind] for kind in ("parameter", "statistic", "tensor")}
    totals: dict[str, Any] = {"leaves": len(leaves), "bytes": sum(leaf.bytes for leaf in leaves)}
    for kind, held in kinds.items():
        if held:
            totals[f"{kind}s"] = sum(leaf.size for leaf in held)
    known = [leaf for leaf in kinds["parameter"] if leaf.state is not None]
    if known:
        totals["trainable"] = sum(leaf.size for leaf in known if leaf.runs)
        totals["frozen"] = sum(leaf.size for leaf in known if not leaf.runs)
        totals["decayed"] = sum(leaf.size for leaf in known if leaf.decays)
    if other_optimizer_bytes is not None:
        totals["optimizer_bytes"] = sum(leaf.optimizer_bytes or 0 for leaf in leaves) + other_optimizer_bytes
    return totals
