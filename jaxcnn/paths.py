"""Names of the leaves of a parameter tree: '/'-paths, glob rules over them, split and merge.

A path is the interface to a parameter: `backbone/stage2/block1/conv1/kernel`. Trees are nested dicts with string keys.
"""

import difflib
import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from jaxcnn.errors import InputError

Tree = Mapping[str, Any]


def flatten(tree: Tree, prefix: str = "") -> dict[str, Any]:
    """Returns {path: leaf} in the order of the tree."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{path}/"))
        else:
            flat[path] = value
    return flat


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the nested dict of {path: leaf}: the inverse of `flatten` for trees without empty branches."""
    tree: dict[str, Any] = {}
    for path, leaf in flat.items():
        *parents, name = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = leaf
    return tree


@functools.cache
def _compile(pattern: str) -> re.Pattern[str]:
    """`*` and `?` stay inside one segment; `**` is any number of segments, none included."""
    parts = []
    for segment in pattern.split("/"):
        if segment == "**":
            parts.append("(?:[^/]+/)*")
        else:
            literal = re.escape(segment).replace(r"\*", "[^/]*").replace(r"\?", "[^/]")
            parts.append(literal + "/")
    return re.compile("".join(parts))


def _hits(pattern: str, path: str) -> bool:
    return _compile(pattern.removeprefix("!")).fullmatch(path + "/") is not None


class PathSet(Protocol):
    """A set of paths."""

    def matches(self, path: str) -> bool: ...


@dataclass(frozen=True)
class GlobRule:
    """A set of paths, given by globs: hashable, so that a module can hold one.

    `*` stands for one segment, `**` for any number, a leading `!` takes back; the last glob that matches decides.
    `GlobRule(("backbone/**", "!backbone/stage4/**"))` is the backbone without its last stage.
    """

    patterns: tuple[str, ...] = ()

    def matches(self, path: str) -> bool:
        """Returns whether the path of a leaf is in the set."""
        for pattern in reversed(self.patterns):
            if _hits(pattern, path):
                return not pattern.startswith("!")
        return False

    def check(self, paths: Iterable[str], what: str) -> None:
        """Raises InputError for a glob that matches none of `paths`, with the nearest of them."""
        paths = list(paths)
        for pattern in self.patterns:
            if not any(_hits(pattern, path) for path in paths):
                raise InputError(f"{what}: {pattern!r} matches no parameter; {_nearest(pattern, paths)}")


def _nearest(pattern: str, paths: list[str]) -> str:
    """The parameters or branches whose names look most like the glob."""
    branches = {"/".join(path.split("/")[:depth]) for path in paths for depth in range(1, path.count("/") + 2)}
    literal = pattern.removeprefix("!").replace("/**", "").replace("*", "")
    near = difflib.get_close_matches(literal, sorted(branches), n=3, cutoff=0.3) or sorted(branches)[:3]
    if pattern in branches and pattern not in paths:
        return f"{pattern}/** are those below it"
    return "nearest paths: " + ", ".join(near)


def split(tree: Tree, rule: PathSet) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns (leaves outside the rule, leaves in the rule), both as nested dicts; leaves are passed, not copied."""
    outside: dict[str, Any] = {}
    inside: dict[str, Any] = {}
    for path, leaf in flatten(tree).items():
        (inside if rule.matches(path) else outside)[path] = leaf
    return unflatten(outside), unflatten(inside)


def merge(first: Tree, second: Tree) -> dict[str, Any]:
    """Returns the tree that holds the leaves of both, in sorted order: the inverse of `split`."""
    flat = {**flatten(first), **flatten(second)}
    return unflatten({path: flat[path] for path in sorted(flat)})


def select(tree: Tree, like: Tree) -> dict[str, Any]:
    """Returns the leaves of a tree that another tree has too, by path."""
    flat = flatten(tree)
    return unflatten({path: flat[path] for path in flatten(like)})
