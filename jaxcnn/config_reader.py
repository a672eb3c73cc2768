"""Configs from files: `get_config()` of a Python file, and the JSON that a run folder holds. Both are read strictly."""

import dataclasses
import inspect
import json
import re
import runpy
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from jaxcnn import config as config_module
from jaxcnn.config import TrainConfig
from jaxcnn.errors import InputError, did_you_mean

T = TypeVar("T")

_RENAMED = {"mesh": {"devices": "data"}}
"""Fields, by section, that the runs of older versions have under another name."""


def load_config(path: str | Path) -> TrainConfig:
    """Returns what `get_config()` of a Python file returns, checked.

    Raises:
      InputError: no such file (the nearest names are offered), a Python error in it (file and line), no
        `get_config`, or a value of the wrong type or range.
    """
    path = Path(path)
    if not path.is_file():
        siblings = [str(file) for file in (path.parent if path.parent.is_dir() else Path("configs")).glob("*.py")]
        raise InputError(f"no config file {path}; {did_you_mean(str(path), siblings)}")
    if path.suffix == ".json":
        raise InputError(f"{path}: a config is a Python file with get_config(); of a run, name its folder instead")
    names = _run(path, lambda: runpy.run_path(str(path)))
    get_config = names.get("get_config")
    if not callable(get_config):
        raise InputError(f"{path} has no function get_config(); it must return a jaxcnn.TrainConfig")
    config = _run(path, get_config)
    if not isinstance(config, TrainConfig):
        raise InputError(f"{path}: get_config() returned {type(config).__name__}, not a jaxcnn.TrainConfig")
    return check(config, str(path))


def check(config: T, where: str) -> T:
    """Returns the config (lists as tuples), or raises InputError for a value of the wrong type or range."""
    return parse_json(type(config), to_json(config), where)


def read_json(kind: type[T], path: Path) -> T:
    """Returns the dataclass `kind` from a JSON file, or raises InputError with the file and the field."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from None
    return parse_json(kind, _as_named_now(text) if kind is TrainConfig else text, str(path))


def _as_named_now(text: str) -> str:
    """The JSON of a config with the names that its fields have in this version."""
    try:
        held = json.loads(text)
        for section, names in _RENAMED.items():
            held[section] = {names.get(name, name): value for name, value in held[section].items()}
    except (ValueError, KeyError, AttributeError, TypeError):
        return text  # what is wrong with it is told by whoever checks it
    return json.dumps(held)


def parse_json(kind: type[T], text: str, where: str) -> T:
    """Returns the dataclass `kind` from JSON, or raises InputError with `where` and the field."""
    import pydantic

    try:
        return pydantic.TypeAdapter(kind).validate_json(text)
    except pydantic.ValidationError as failure:
        raise InputError(f"{where}: {_one_line(kind, dict(failure.errors()[0]))}") from None


def to_json(config: Any) -> str:
    """Returns a config as indented JSON, which `parse_json` reads back to an equal config."""
    return json.dumps(dataclasses.asdict(config), indent=2, default=repr) + "\n"


def _one_line(kind: type, problem: dict[str, Any]) -> str:
    """One pydantic error as `field=value: what would be right`."""
    if problem["type"] == "json_invalid":
        return problem["msg"]
    *parents, name = [str(part) for part in problem["loc"]] or [""]
    dotted = ".".join([*parents, name])
    if problem["type"] == "unexpected_keyword_argument":
        for parent in parents:
            kind = next(field.type for field in dataclasses.fields(kind) if field.name == parent)  # type: ignore[assignment]
        return f"unknown field {dotted}; {did_you_mean(name, [field.name for field in dataclasses.fields(kind)])}"
    message = problem["msg"][0].lower() + problem["msg"][1:]
    if problem["type"] == "literal_error":
        message += "; " + did_you_mean(str(problem["input"]), re.findall(r"'([^']*)'", problem["ctx"]["expected"]))
    return f"{dotted}={problem['input']!r}: {message}"


def _run(path: Path, action: Callable[[], T]) -> T:
    """Returns action(); any Python error inside becomes one line with the file and the line it arose at."""
    try:
        return action()
    except InputError:
        raise
    except SyntaxError as error:
        raise InputError(f"{error.filename or path}:{error.lineno}: {error.msg}") from None
    except (Exception, SystemExit) as error:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == path]
        line = f":{frames[-1].lineno}" if frames else ""
        raise InputError(f"{path}{line}: {type(error).__name__}: {error}{_nearest_keyword(error)}") from None


def _nearest_keyword(error: BaseException) -> str:
    """The nearest field, where the error is a mistyped keyword of one of the config classes."""
    found = re.match(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'", str(error))
    kind = getattr(config_module, found[1], None) if found else None
    if found is None or not inspect.isclass(kind) or not dataclasses.is_dataclass(kind):
        return ""
    return "; " + did_you_mean(found[2], [field.name for field in dataclasses.fields(kind)])
