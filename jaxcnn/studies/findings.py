"""What a study found: tables, a figure, and claims that the numbers support or not."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

Cell = str | int | float | None
"""Of a table; a float is written with four significant digits, none as a dash."""


@dataclass(frozen=True)
class Table:
    """Rows under a head.

    Attributes:
      name: of its CSV file: the study's first table is STUDY.csv, another STUDY_NAME.csv.
      caption: a sentence: what a row is, and in which units its numbers are.
      head: names of the columns.
      rows: as long as the head.
    """

    name: str
    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.head):
                raise ValueError(f"table {self.name}: {row} does not fit {self.head}")


@dataclass(frozen=True)
class Claim:
    """A statement, held against the numbers of this run.

    Attributes:
      statement: what is said to be so, in general.
      numbers: what this run measured of it, with spread.
      supported: whether they support it; none: this run cannot tell, and `numbers` says why.
    """

    statement: str
    numbers: str
    supported: bool | None

    @property
    def verdict(self) -> str:
        return {True: "supported", False: "not supported", None: "undecided"}[self.supported]


@dataclass(frozen=True)
class Findings:
    """The result of a study.

    Attributes:
      study: its name.
      question: what is asked, in a sentence.
      setup: what was run, and what was cut from the published experiment; Markdown.
      tables: the first is the main one.
      claims: the statements.
      draw: draws on an empty matplotlib figure, with `figure.subplots`.
      size: of the figure, inches (width, height).
      description: of the figure: what to see in it.
      details: what the JSON has beside the tables.
    """

    study: str
    question: str
    setup: str
    tables: tuple[Table, ...]
    claims: tuple[Claim, ...]
    draw: Callable[[Any], None]
    size: tuple[float, float] = (11.0, 4.4)
    description: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Returns all but the figure, as JSON takes it: a number that is not finite is null."""
        whole = {
            "study": self.study,
            "question": self.question,
            "setup": self.setup,
            "tables": {
                table.name: [dict(zip(table.head, row, strict=True)) for row in table.rows] for table in self.tables
            },
            "claims": [{**asdict(claim), "verdict": claim.verdict} for claim in self.claims],
            **self.details,
        }
        return _plain(json.loads(json.dumps(whole, default=float)))  # numbers of numpy


def _plain(value: Any) -> Any:
    """The same with null for numbers that are not finite, which JSON has no word for."""
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def as_text(cell: Cell) -> str:
    """Returns a cell as tables in Markdown show it."""
    if cell is None:
        return "-"
    if isinstance(cell, bool | str | int):
        return str(cell).replace("|", "\\|")
    return f"{float(cell):.4g}"


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    """Returns a table in Markdown: the first column to the left, all others to the right."""
    lines = [list(head), ["---", *["---:"] * (len(head) - 1)], *([as_text(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
