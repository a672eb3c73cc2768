"""What a sweep varies: a command line into fields with several values, and overrides of the rest.

Whether `0.1,0.3` is a list or a value is decided by the field's type in TrainConfig, never by the text alone.
"""

import dataclasses
import functools
import math
import shlex
import types
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from jaxcnn.config import TrainConfig
from jaxcnn.errors import InputError, did_you_mean


@dataclass(frozen=True)
class Range:
    """An interval to draw from, ends included; of an int field its whole numbers."""

    low: float
    high: float
    log: bool

    def __str__(self) -> str:
        return f"{self.low!r}:{self.high!r}{':log' * self.log}"


@dataclass(frozen=True)
class Axis:
    """A field of the config with what it takes in a sweep: some values, or an interval."""

    field: str
    values: tuple[Any, ...] = ()
    range: Range | None = None

    @property
    def label(self) -> str:
        """The flag without its dashes; the section is left out where the name is that of no other field."""
        last = self.field.rpartition(".")[2]
        same = [name for name in fields_of(TrainConfig) if name.rpartition(".")[2] == last]
        return (last if len(same) == 1 else self.field).replace("_", "-")


def read_flags(arguments: Sequence[str], *, search: bool) -> tuple[dict[str, Any], list[Axis]]:
    """Returns the fields with one value, by dotted name, and those with several.

    Args:
      arguments: flags as `jaxcnn train` takes them, `--optim.peak-lr 0.1` or `--optim.peak_lr=0.1`, with lists.
      search: whether intervals may be given.

    Raises:
      InputError: an unknown flag (the nearest are named), a value that the field cannot take, a field given twice.
    """
    overrides: dict[str, Any] = {}
    axes: dict[str, Axis] = {}
    for field, tokens in _flags(arguments):
        if field in overrides or field in axes:
            raise InputError(f"{flag_of(field)} is given twice: write its values as one list")
        axis = _axis(field, tokens)
        if axis.range is not None and not search:
            raise InputError(f"{flag_of(field)} {tokens[0]} is an interval: it needs --search N; or give a list")
        if axis.range is not None or len(axis.values) > 1:
            axes[field] = axis
        else:
            overrides[field] = axis.values[0]
    return overrides, list(axes.values())


def _flags(arguments: Sequence[str]) -> list[tuple[str, list[str]]]:
    """(field, its tokens) in order."""
    known = fields_of(TrainConfig)
    found: list[tuple[str, list[str]]] = []
    for argument in arguments:
        if not argument.startswith("--"):
            if not found:
                raise InputError(f"{argument!r}: expected a flag, such as --optim.peak-lr 0.1,0.3")
            found[-1][1].append(argument)
            continue
        name, equals, text = argument[2:].partition("=")
        field = name.replace("-", "_")
        section, _, last = field.rpartition(".")
        positive = f"{section}.{last.removeprefix('no_')}" if section else last.removeprefix("no_")
        if field in known:
            found.append((field, [text] if equals else []))
        elif positive != field and known.get(positive) is bool and not equals:
            found.append((positive, ["false"]))
        else:
            raise InputError(f"no flag --{name}; {did_you_mean('--' + name, [flag_of(field) for field in known])}")
    return found


def _axis(field: str, tokens: list[str]) -> Axis:
    """The values that the tokens of a flag give; one value where they are no list."""
    kind = fields_of(TrainConfig)[field]
    if _is_sequence(kind):
        settings = _settings(field, tokens)
        return Axis(field, tuple(dict.fromkeys(value_of(field, one) for one in settings)))
    if not tokens and kind is bool:
        return Axis(field, (True,))
    if len(tokens) != 1:
        what = f"one value or a list without spaces, not {shlex.join(tokens)}" if tokens else "a value is missing"
        raise InputError(f"{flag_of(field)}: {what}")
    if ":" in tokens[0] and _number_kind(kind) is not None:
        return Axis(field, range=_range(field, tokens[0]))
    texts = _split(tokens[0], ",")
    if len(texts) > 1 and "" in texts:
        raise InputError(f"{flag_of(field)} {tokens[0]}: a value of the list is empty (a comma in a value is \\,)")
    return Axis(field, tuple(dict.fromkeys(value_of(field, [text]) for text in texts)))  # each once, in order


def _settings(field: str, tokens: list[str]) -> list[list[str]]:
    """Of a field of several values: the values of each setting; settings are parted by `;`."""
    if all(len(_split(token, ";")) == 1 for token in tokens):
        return [[_split(token, ";")[0] for token in tokens]]
    try:
        return [shlex.split(text) for text in _split(" ".join(tokens), ";")]
    except ValueError as error:
        raise InputError(f"{flag_of(field)} {' '.join(tokens)}: {error}") from None


def _split(text: str, separator: str) -> list[str]:
    r"""Splits at the separator, but not at `\` + separator, which stands for it."""
    hidden = "\0"
    return [part.replace(hidden, separator) for part in text.replace("\\" + separator, hidden).split(separator)]


def _range(field: str, text: str) -> Range:
    parts = text.split(":")
    log = parts[2:] == ["log"]
    number = _number_kind(fields_of(TrainConfig)[field])
    assert number is not None
    try:
        low, high = (number(part) for part in parts[:2])
        good = math.isfinite(low) and math.isfinite(high) and low < high and (log or len(parts) == 2)
    except ValueError:
        good = False
    if not good:
        kind = "whole numbers " if number is int else ""
        raise InputError(f"{flag_of(field)} {text}: an interval is {kind}LOW:HIGH or LOW:HIGH:log, LOW below HIGH")
    if log and low <= 0:
        raise InputError(f"{flag_of(field)} {text}: a logarithmic interval begins above 0")
    return Range(low, high, log)


@functools.cache
def fields_of(kind: type) -> dict[str, Any]:
    """Returns the types of a config's fields by dotted name, without their ranges."""
    found: dict[str, Any] = {}
    for name, hint in get_type_hints(kind).items():
        if name.startswith("__"):
            continue
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            found |= {f"{name}.{inner}": one for inner, one in fields_of(hint).items()}
        else:
            found[name] = hint
    return found


def flag_of(field: str) -> str:
    """Returns the flag of a field: `--optim.peak-lr` of `optim.peak_lr`."""
    return "--" + field.replace("_", "-")


def value_of(field: str, tokens: Sequence[str]) -> Any:
    """Returns the value of a field as its type has it; ranges are checked by `config_reader.check`.

    Raises:
      InputError: the tokens are none of the field's values.
    """
    try:
        return _parse(fields_of(TrainConfig)[field], list(tokens))
    except ValueError as error:
        raise InputError(f"{flag_of(field)} {shlex.join(tokens)}: {error}") from None


def tokens_of(field: str, value: Any) -> list[str]:
    """Returns the flags of `jaxcnn train` that give a field this value."""
    if fields_of(TrainConfig)[field] is bool:
        section, dot, last = field.rpartition(".")
        return [flag_of(field if value else f"{section}{dot}no_{last}")]
    if isinstance(value, tuple):
        return [flag_of(field), *map(str, _flat(value))]
    if isinstance(value, str) and value.startswith("-"):
        return [f"{flag_of(field)}={value}"]
    return [flag_of(field), str(value)]


def with_value(config: Any, field: str, value: Any) -> Any:
    """Returns the config with a field, by its dotted name, replaced."""
    name, _, rest = field.partition(".")
    return dataclasses.replace(config, **{name: with_value(getattr(config, name), rest, value) if rest else value})


def _parse(kind: Any, tokens: list[str]) -> Any:
    origin, members = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return _parse_union(members, tokens)
    if origin is tuple:
        return _parse_tuple(members, tokens)
    if len(tokens) != 1:
        raise ValueError("expected one value")
    text = tokens[0]
    if origin is Literal:
        for choice in members:
            if str(choice) == text:
                return choice
        raise ValueError(f"expected one of {', '.join(map(str, members))}; {did_you_mean(text, map(str, members))}")
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError("expected true or false")
        return text.lower() == "true"
    if kind is str:
        return text
    try:
        return kind(text)
    except ValueError:
        raise ValueError(f"expected {'a whole number' if kind is int else 'a number'}") from None


def _parse_union(members: tuple[Any, ...], tokens: list[str]) -> Any:
    """The first member that takes the tokens. `None` is no value; so is `none`, unless a member has that name."""
    others = [member for member in members if member is not type(None)]
    named = any(get_origin(member) is Literal and "none" in get_args(member) for member in others)
    if len(others) < len(members) and (tokens == ["None"] or (tokens == ["none"] and not named)):
        return None
    errors = []
    for member in others:
        try:
            return _parse(member, tokens)
        except ValueError as error:
            errors.append(str(error))
    raise ValueError("; ".join([*errors, "or none"] if len(others) < len(members) else errors))


def _parse_tuple(members: tuple[Any, ...], tokens: list[str]) -> tuple[Any, ...]:
    if members[-1] is Ellipsis:
        width = _width(members[0])
        if len(tokens) % width:
            raise ValueError(f"expected groups of {width} values")
        members = (members[0],) * (len(tokens) // width)
    widths = [_width(member) for member in members]
    if sum(widths) != len(tokens):
        raise ValueError(f"expected {sum(widths)} values with spaces between (settings are parted by ;)")
    starts = [sum(widths[:index]) for index in range(len(widths))]
    return tuple(
        _parse(member, tokens[start : start + width])
        for member, start, width in zip(members, starts, widths, strict=True)
    )


def _width(kind: Any) -> int:
    """How many tokens a value of fixed length takes."""
    return sum(map(_width, get_args(kind))) if get_origin(kind) is tuple else 1


def _flat(value: Any) -> list[Any]:
    return [leaf for one in value for leaf in _flat(one)] if isinstance(value, tuple) else [value]


def _is_sequence(kind: Any) -> bool:
    return get_origin(kind) is tuple or any(get_origin(member) is tuple for member in get_args(kind))


def _number_kind(kind: Any) -> type | None:
    """int or float, of a field of numbers; none of any other."""
    members = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    return next((member for member in members if member in (int, float)), None)
