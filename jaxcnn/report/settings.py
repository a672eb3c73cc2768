"""The sections of a report on how a run was made: config, parameters, environment, the command."""

import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from jaxcnn.comparison import dotted, shown
from jaxcnn.config import TrainConfig
from jaxcnn.config_reader import to_json
from jaxcnn.network import Network
from jaxcnn.page import Markup, element, folded, joined, table
from jaxcnn.paths import flatten
from jaxcnn.training.partition import phase_rules


def config_section(config: TrainConfig) -> Markup:
    """Returns what the config has other than the defaults, and all of it folded."""
    ours, defaults = dotted(config), dotted(TrainConfig())
    rows = [(name, shown(value), shown(defaults[name])) for name, value in ours.items() if value != defaults[name]]
    changed: Any = (
        table(("", "this run", "default"), rows, text=(0, 1, 2)) if rows else element("p", "All of it as by default.")
    )
    whole = folded("whole config", element("pre", to_json(config)))
    return element("section", element("h2", "Config"), changed, whole)


def command_of(config: TrainConfig) -> str:
    """Returns the command that trains this config: each field that is not as by default as a flag."""
    defaults = dotted(TrainConfig())
    words = ["jaxcnn", "train"]
    for name, value in dotted(config).items():
        if value != defaults[name]:
            words += _flag(name.replace("_", "-"), value, defaults[name])
    return " ".join(shlex.quote(word) for word in words)


def _flag(name: str, value: Any, default: Any) -> Sequence[str]:
    if isinstance(value, bool) and isinstance(default, bool):  # a switch; a bool that may be none takes a word
        group, _, field = name.rpartition(".")
        return [f"--{name}" if value else f"--{group}.no-{field}" if group else f"--no-{field}"]
    if isinstance(value, tuple):
        flat = [item for one in value for item in (one if isinstance(one, tuple) else (one,))]
        return [f"--{name}", *map(str, flat)]
    return [f"--{name}", str(value)]


def parameters_section(network: Network, config: TrainConfig) -> Markup:
    """Returns the parameters by part of the network, and each leaf folded."""
    leaves = flatten(network.shapes["params"])
    numbers = {path: math.prod(leaf.shape) for path, leaf in leaves.items()}
    total = max(sum(numbers.values()), 1)
    trains = trained_from(list(leaves), config)
    parts: dict[str, list[str]] = {}
    for path in leaves:
        parts.setdefault(_part(path), []).append(path)
    head = ("", "numbers", "share", "")
    rows = []
    for part, paths in parts.items():
        count = sum(numbers[path] for path in paths)
        kinds = list(dict.fromkeys(trains[path] for path in paths))
        rows.append((part, f"{count:,}", f"{100 * count / total:.1f} %", kinds[0] if len(kinds) == 1 else "in part"))
    rows.append(("all", f"{total:,}", "100.0 %", ""))
    each = [
        (path, _shape(leaf.shape), f"{numbers[path]:,}", f"{100 * numbers[path] / total:.2f} %", trains[path])
        for path, leaf in leaves.items()
    ]
    whole = folded(f"each of {len(leaves)} leaves", table(("", "shape", "numbers", "share", ""), each, text=(0, 4)))
    return element("section", element("h2", "Parameters"), table(head, rows, text=(0, 3)), whole)


def trained_from(paths: Sequence[str], config: TrainConfig) -> dict[str, str]:
    """Returns of each leaf "trains", "frozen", or from which epoch on it trains."""
    found = dict.fromkeys(paths, "frozen")
    for epoch, rule in reversed(phase_rules(config.freeze, config.unfreeze)):
        for path in paths:
            if not rule.matches(path):
                found[path] = f"from epoch {epoch:g}" if epoch else "trains"
    return found


def _part(path: str) -> str:
    """backbone/stage2/block1/conv1/kernel -> backbone/stage2."""
    first, *rest = path.split("/")
    return f"{first}/{rest[0]}" if first == "backbone" and len(rest) > 1 else first


def _shape(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape)) or "1"


def environment_section(environment: Mapping[str, Any], config: TrainConfig) -> Markup:
    """Returns versions and device, and the command to train the same again."""
    rows = [
        (name.replace("_", " "), ", ".join(f"{key} {one}" for key, one in value.items()) if isinstance(value, Mapping)
         else str(value))
        for name, value in environment.items()
    ]  # fmt: skip
    command = joined(element("p", "Again:"), element("pre", command_of(config), class_="wrapped"))
    title = element("h2", "Environment and command")
    return element("section", title, table(("", ""), rows, text=(0, 1)), command)
