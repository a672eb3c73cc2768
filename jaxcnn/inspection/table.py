"""Rows of a table from leaves: folded to a depth, filtered by globs, sorted by a column. Of leaves of any kind."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from jaxcnn.errors import InputError, did_you_mean
from jaxcnn.paths import GlobRule


class Named(Protocol):
    """What a row is made of."""

    @property
    def path(self) -> str: ...

    @property
    def kind(self) -> str: ...


@dataclass(frozen=True)
class Row:
    """Leaves that are shown together: one leaf, or all of a kind below a path."""

    path: str
    kind: str
    leaves: tuple[Any, ...]


@dataclass(frozen=True)
class Column:
    """One figure of a row.

    Attributes:
      name: above it in a table, and by which it is chosen and sorted.
      of: its value: a number, a text, or none where it does not apply.
      text: of a number as people read it.
      is_text: texts are to the left, numbers to the right.
    """

    name: str
    of: Callable[[Row], Any]
    text: Callable[[Any], str] = str
    is_text: bool = False

    def shown(self, row: Row) -> str:
        """Returns the cell of a row; a dash for none."""
        value = self.of(row)
        if value is None:
            return "-"
        return value if isinstance(value, str) else self.text(value)


def separator_of(paths: Iterable[str]) -> str:
    """Returns what divides names into segments: "/" of our paths, "." of PyTorch's."""
    return "/" if any("/" in path for path in paths) else "."


def filtered(leaves: Sequence[Any], globs: Sequence[str]) -> list[Any]:
    """Returns the leaves whose path is in a rule of globs; in names with dots these may be written with dots too.

    Raises:
      InputError: a glob that matches nothing, with the nearest paths.
    """
    if not globs:
        return list(leaves)
    dotted = separator_of(leaf.path for leaf in leaves) == "."
    slashed = [leaf.path.replace(".", "/") if dotted else leaf.path for leaf in leaves]
    patterns = tuple(glob.replace(".", "/") if dotted else glob for glob in globs)
    if patterns[0].startswith("!"):  # only takes back: from all
        patterns = ("**", *patterns)
    rule = GlobRule(patterns)
    try:
        rule.check(slashed, "--filter")
    except InputError as error:
        raise InputError(str(error).replace("/", ".") if dotted else str(error)) from None
    return [leaf for leaf, path in zip(leaves, slashed, strict=True) if rule.matches(path)]


def folded(leaves: Sequence[Any], depth: int | None) -> list[Row]:
    """Returns a row for the leaves of one kind that share the first `depth` segments of their path; none: a row a leaf.

    Raises:
      InputError: a depth below 1.
    """
    if depth is None:
        return [Row(leaf.path, leaf.kind, (leaf,)) for leaf in leaves]
    if depth < 1:
        raise InputError(f"--depth {depth}: at least 1")
    separator = separator_of(leaf.path for leaf in leaves)
    groups: dict[tuple[str, str], list[Any]] = {}
    for leaf in leaves:
        prefix = separator.join(leaf.path.split(separator)[:depth])
        groups.setdefault((prefix, leaf.kind), []).append(leaf)
    return [Row(prefix, kind, tuple(group)) for (prefix, kind), group in groups.items()]


def chosen(columns: Sequence[Column], names: Sequence[str]) -> list[Column]:
    """Returns the columns of these names, in this order; raises InputError for an unknown one."""
    return [_named(columns, name, "--columns") for name in names]


def ordered(rows: Sequence[Row], columns: Sequence[Column], key: str | None) -> list[Row]:
    """Returns the rows by a column, rising, or falling after a minus; those without a value last; none: as they are.

    Raises:
      InputError: an unknown column, with the nearest names.
    """
    if key is None:
        return list(rows)
    column = _named(columns, key.removeprefix("-"), "--sort")
    values = [(column.of(row), row) for row in rows]
    known = [(value, row) for value, row in values if not _is_missing(value)]
    known.sort(key=lambda pair: (isinstance(pair[0], str), pair[0]), reverse=key.startswith("-"))
    return [row for _, row in known] + [row for value, row in values if _is_missing(value)]


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _named(columns: Sequence[Column], name: str, flag: str) -> Column:
    for column in columns:
        if column.name == name:
            return column
    raise InputError(f"{flag} {name}: no such column; {did_you_mean(name, [column.name for column in columns])}")


def common(values: Iterable[Any]) -> Any:
    """Returns the value that all share; "N kinds" where they differ; none where none has one."""
    distinct = list(dict.fromkeys(values))
    if len(distinct) == 1:
        return distinct[0]
    return f"{len(distinct)} kinds" if distinct else None


def how_many(flags: Sequence[bool | None]) -> str | None:
    """Returns "yes" or "no" where all agree, else "3 of 5"; those that do not apply are left out."""
    known = [flag for flag in flags if flag is not None]
    if not known:
        return None
    if all(known) or not any(known):
        return "yes" if known[0] else "no"
    return f"{sum(known)} of {len(known)}"
