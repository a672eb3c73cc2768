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
    names = _run(path, lambda: runpy.run_path(str(path)))
    get_config = names.get("get_config")
    if not callable(get_config):
        raise InputError(f"{path} has no function get_config(); it must return a jaxcnn.TrainConfig")
    config = _run(path, get_config)
    if not isinstance(config, TrainConfig):
        raise InputError(f"{path}: get_config() returned {type(config).__name__}, not a jaxcnn.TrainConfig")
    return check(config, str(path))


def check(config: T, where: str) -> T:
    """Returns the config, or raises InputError for a value of the wrong type or range."""
    return from_dict(type(config), dataclasses.asdict(config), where)  # type: ignore[call-overload]


def from_json(kind: type[T], path: Path) -> T:
    """Returns the dataclass `kind` from a JSON file, or raises InputError with the file and the field."""
    try:
        text = path.read_text()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    return _validate(kind, path.name, lambda adapter: adapter.validate_json(text))


def from_dict(kind: type[T], values: dict[str, Any], where: str) -> T:
    """Returns the dataclass `kind` from nested dicts, or raises InputError with `where` and the field."""
    return _validate(kind, where, lambda adapter: adapter.validate_python(values))


def to_json(config: Any) -> str:
    """Returns a config as indented JSON, which `from_json` reads back to an equal config."""
    return json.dumps(dataclasses.asdict(config), indent=2) + "\n"


def _validate(kind: type[T], where: str, read: Callable[[Any], T]) -> T:
    import pydantic

    try:
        return read(pydantic.TypeAdapter(kind))
    except pydantic.ValidationError as failure:
        problem = failure.errors()[0]
        raise InputError(f"{where}: {_one_line(kind, dict(problem))}") from None


def _one_line(kind: type, problem: dict[str, Any]) -> str:
    """One pydantic error as `field=value: what would be right`."""
    *parents, name = [str(part) for part in problem["loc"]] or [""]
    dotted = ".".join([*parents, name])
    if problem["type"] == "unexpected_keyword_argument":
        for parent in parents:
            kind = next(field.type for field in dataclasses.fields(kind) if field.name == parent)  # type: ignore[assignment]
        return f"unknown field {dotted}; {did_you_mean(name, [field.name for field in dataclasses.fields(kind)])}"
    message = problem["msg"][0].lower() + problem["msg"][1:]
    if problem["type"] == "literal_error":
        message += "; " + did_you_mean(str(problem["input"]), re.findall(r"'([^']*)'", problem["ctx"]["expected"]))
    if problem["type"] == "json_invalid":
        return message
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
