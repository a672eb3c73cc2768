"""Findings as CSV, Markdown, PNG and JSON."""

import csv
import io
import json
from pathlib import Path
from typing import Any

from jaxcnn.curves import save
from jaxcnn.studies.findings import Findings, Table, markdown_table
from jaxcnn.whole import write_whole


def write_findings(findings: Findings, folder: Path, footer: str = "") -> dict[str, str]:
    """Writes STUDY.md, STUDY.png, STUDY.json and a CSV a table, each whole, and returns their paths by file name.

    Args:
      findings: what was found.
      folder: made if it is not there.
      footer: how to repeat it: command, device, seeds.

    Raises:
      OSError: the folder cannot be made or written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    places: list[Path] = []

    def place(name: str) -> Path:
        places.append(folder / name)
        return places[-1]

    for table in findings.tables:
        write_whole(place(csv_name(findings, table)), as_csv(table))
    write_whole(place(f"{findings.study}.json"), json.dumps(findings.as_json(), indent=1) + "\n")
    draw(findings, place(f"{findings.study}.png"))
    write_whole(place(f"{findings.study}.md"), as_markdown(findings, footer))
    return {path.name: str(path) for path in places}


def csv_name(findings: Findings, table: Table) -> str:
    """Returns STUDY.csv for the first table, STUDY_TABLE.csv for others."""
    return f"{findings.study}.csv" if table is findings.tables[0] else f"{findings.study}_{table.name}.csv"


def as_csv(table: Table) -> str:
    """Returns a table as CSV, floats as they are; none is an empty cell."""
    text = io.StringIO()
    rows = [[getattr(cell, "item", lambda cell=cell: cell)() for cell in row] for row in table.rows]
    csv.writer(text, lineterminator="\n").writerows([table.head, *rows])
    return text.getvalue()


def as_markdown(findings: Findings, footer: str = "", *, with_figure: bool = True) -> str:
    """Returns question, claims with their verdicts, figure, tables and what was run."""
    parts = [f"# {findings.study}", findings.question]
    parts += [f"**{claim.statement}** {claim.verdict.capitalize()}: {claim.numbers}" for claim in findings.claims]
    if with_figure:
        parts.append(f"![{findings.description or findings.question}]({findings.study}.png)")
        if findings.description:
            parts.append(findings.description)
    for table in findings.tables:
        parts += [table.caption, markdown_table(table.head, table.rows)]
    parts += ["## What was run", findings.setup]
    return "\n\n".join([*parts, *([footer] if footer else [])]) + "\n"


def draw(findings: Findings, path: Path) -> None:
    """Draws the figure to a PNG."""
    from matplotlib.figure import Figure

    figure: Any = Figure(figsize=findings.size, layout="constrained")
    findings.draw(figure)
    save(figure, path)
