"""Figures as JSON, and as a Markdown table beside it and on the screen."""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import machine
from jaxcnn.errors import InputError

VERSION = 1  # of the form of the JSON files


def write(folder: Path, name: str, argv: Sequence[str], rows: list[dict[str, Any]], table: str) -> None:
    """Prints a table, and writes NAME.json and NAME.md.

    Args:
      folder: where to.
      name: of the command.
      argv: its arguments, so that the figures can be had again.
      rows: the figures.
      table: the same in Markdown.

    Raises:
      InputError: the folder cannot be written.
    """
    said = ["DIR" if Path(argument).is_absolute() else argument for argument in argv]  # no place of one machine
    command = shlex.join(["python", "-m", "benchmarks", name, *said])
    where = machine.describe()
    found = {"version": VERSION, "benchmark": name, "command": command, "machine": where, "rows": rows}
    text = f"{table}\n\n`{command}`: {machine.one_line(where)}\n"
    print(text)
    check_folder(folder)
    (folder / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")
    (folder / f"{name}.md").write_text(text)


def check_folder(folder: Path, what: str = "--out") -> None:
    """Makes a folder; raises InputError where that cannot be done, before hours are spent on figures."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".write-test").touch()
        (folder / ".write-test").unlink()
    except OSError as error:
        raise InputError(f"{what} {folder}: {error.strerror}") from None


def read(folder: Path, name: str) -> dict[str, Any] | None:
    """Returns what `write` wrote; none where there is no such file."""
    file = folder / f"{name}.json"
    try:
        return json.loads(file.read_text()) if file.exists() else None
    except ValueError as error:
        raise InputError(f"{file} is not JSON: {error}; measure it again") from None


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
