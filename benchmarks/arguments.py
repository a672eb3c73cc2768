"""The options that the commands share."""

import argparse
import ast
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from benchmarks.machine import gpu_name
from jaxcnn.errors import InputError, did_you_mean

RESULTS = Path(__file__).parent / "results"


class Parser(argparse.ArgumentParser):
    """Tells a mistake in one line, as the rest does."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} ({self.prog} --help)")


def parser_of(command: str, description: str) -> Parser:
    """Returns a parser with the options of all commands that measure."""
    parser = Parser(f"python -m benchmarks {command}", description=description)
    parser.add_argument("--networks", help="names with commas between; default: those of the table", type=names)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="compute type")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the JSON and Markdown files")
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a field of ModelConfig; the peers know width alone; repeatable",
    )
    return parser


def add_timing(parser: Parser) -> None:
    """Adds the options of commands that time turns."""
    parser.add_argument("--candidates", help="names with commas between; default: all for the device", type=names)
    parser.add_argument("--rounds", type=count, default=20, help="turns of each candidate")
    parser.add_argument("--warmup", type=count, default=3, help="turns before those that count")
    parser.add_argument("--batch", type=count, help="images a step; default: that of the table")


def parse(parser: Parser, argv: Sequence[str]) -> argparse.Namespace:
    """Returns the options, checked; `option` as a dictionary.

    Raises:
      InputError: an unknown name, or a GPU is asked for where there is none.
    """
    os.environ["JAX_PLATFORMS"] = "cpu"  # this process looks at shapes alone: a card is for the workers
    found = parser.parse_args(argv)
    found.option = dict(_option(text) for text in found.option)
    if found.device == "gpu" and gpu_name() is None:
        raise InputError("--device gpu: nvidia-smi shows no GPU on this machine")
    return found


def chosen(given: tuple[str, ...] | None, known: Iterable[str], default: Sequence[str], what: str) -> tuple[str, ...]:
    """Returns the names given, or else the default; raises InputError for one that is not known."""
    listed = list(known)
    for name in given or ():
        if name not in listed:
            raise InputError(f"{what} {name!r}: {did_you_mean(name, listed)}")
    return tuple(given or default)


def settings_of(found: argparse.Namespace) -> dict[str, Any]:
    """Returns what the options say of every task; see `task_of`."""
    settings = {"dtype": found.dtype, "device": found.device, "options": found.option}
    batch = getattr(found, "batch", None)
    return settings if batch is None else {**settings, "batch": batch}


def names(text: str) -> tuple[str, ...]:
    """Returns the parts of a text with commas, for argparse."""
    listed = tuple(name.strip() for name in text.split(",") if name.strip())
    if not listed:
        raise argparse.ArgumentTypeError("no name is given")
    return listed


def count(text: str) -> int:
    """Returns a whole number from 1 on, for argparse."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


def _option(text: str) -> tuple[str, Any]:
    """A field and its value: a Python literal, or else the text."""
    key, equals, value = text.partition("=")
    if not equals:
        raise InputError(f"--option {text!r}: KEY=VALUE is meant, for instance width=32")
    try:
        return key, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return key, value
