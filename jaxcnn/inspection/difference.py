"""What differs between two sets of weights, leaf by leaf: runs, checkpoints of one run, or files."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxcnn.inspection.columns import count_text, figure_text
from jaxcnn.inspection.leaves import KINDS
from jaxcnn.inspection.subject import at_checkpoint, weights_of_run
from jaxcnn.inspection.table import Column, Row, folded
from jaxcnn.paths import flatten
from jaxcnn.run_folder import is_run
from jaxcnn.weights.files import Weights, read_weights
from jaxcnn.weights.importer import fit
from jaxcnn.weights.layouts import to_ours
from jaxcnn.weights.names import IGNORED, leaf_names

STATES = ("only in A", "only in B", "other shape", "changed", "identical")
Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Change:
    """A leaf in A and in B.

    Attributes:
      path, kind: as in the table of leaves.
      shapes: in A and in B; none where it is not there.
      state: one of STATES; identical is bit for bit.
      squares: the sum of squared differences; of what is in both with one shape, else none.
      norm_squares: the sum of squares in A, likewise.
      largest: the largest absolute difference, likewise.
    """

    path: str
    kind: str
    shapes: tuple[tuple[int, ...] | None, tuple[int, ...] | None]
    state: str
    squares: float | None = None
    norm_squares: float | None = None
    largest: float | None = None

    @property
    def size(self) -> int:
        """Numbers in A, or in B where A lacks it."""
        return math.prod(self.shapes[1] if self.shapes[0] is None else self.shapes[0])  # type: ignore[arg-type]


@dataclass(frozen=True)
class Difference:
    """What A and B are, in a line each, their leaves, and what has to be known to read the figures."""

    a: str
    b: str
    leaves: list[Change]
    notes: tuple[str, ...] = ()


def difference(a: str, b: str, checkpoint: str = "best") -> Difference:
    """Returns what differs between two places, each a run, RUN@CHECKPOINT or a file of weights.

    A file beside a run is read under the run's names and with its axes, so that weights of PyTorch, timm and Keras can
    be compared with what was trained from them. Two files are compared under their own names.

    Raises:
      InputError: nothing at one of the places, or a file that is of another network than the run.
    """
    names: list[str] = []
    sides: list[Weights | Arrays] = []
    for place in (a, b):
        if is_run(at_checkpoint(place, checkpoint)[0]):
            name, variables = weights_of_run(place, checkpoint)
            sides.append({path: np.asarray(leaf) for path, leaf in flatten(variables).items()})
        else:
            weights = read_weights(place)
            name = f"{place}: {len(weights.tensors)} tensors"
            sides.append(weights)
        names.append(name)
    first, second, notes = _beside_each_other(*sides)
    if not first.keys() & second.keys():
        notes = (*notes, "no name is in both: of files from two libraries, import one as a run (jaxcnn weights import)")
    return Difference(names[0], names[1], changes(first, second), notes)


def _beside_each_other(a: Weights | Arrays, b: Weights | Arrays) -> tuple[Arrays, Arrays, tuple[str, ...]]:
    """Both under the same names, and what was done for it."""
    if isinstance(a, Weights) and isinstance(b, Weights):
        return a.tensors, b.tensors, ()
    if isinstance(a, Weights):
        assert not isinstance(b, Weights)
        ours, notes = in_names_of(a, b)
        return ours, b, notes
    if isinstance(b, Weights):
        theirs, notes = in_names_of(b, a)
        return a, theirs, notes
    return a, b, ()


def in_names_of(weights: Weights, run: Arrays) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Returns the tensors of a file by the paths of a run's leaves and with its axes, and what was done to them.

    A head of another shape is among them, as it is; what the run has no leaf for keeps its own name.

    Raises:
      InputError: the file is of another network; both sides of what does not fit are in the message.
    """
    fitted = fit(weights, run, "the run it is compared with")
    entries = leaf_names({path: leaf.ndim for path, leaf in run.items()}, fitted.dialect) or {}
    arrays = dict(fitted.leaves)
    for path in fitted.anew:
        tensor = weights.tensors.get(entries[path].name)
        if tensor is not None and (turned := to_ours(tensor, entries[path].layout)) is not None:
            arrays[path] = turned
    taken = {entry.name for entry in entries.values()}
    others = {name: tensor for name, tensor in weights.tensors.items() if name not in taken}
    arrays |= {name: tensor for name, tensor in others.items() if name.rpartition(".")[2] not in IGNORED}
    named = f"{weights.place} has the names of {fitted.dialect}; they are shown as those of the run"
    notes = tuple(note for note in fitted.notes if "anew" not in note)  # the heads are in the table
    return arrays, (*notes, *(() if fitted.dialect == "jaxcnn" else (named,)))


def changes(a: Arrays, b: Arrays) -> list[Change]:
    """Returns the leaves of either side, in the order of A and then of B."""
    found = []
    for name in dict.fromkeys([*a, *b]):
        collection, _, path = name.partition("/")
        kind = KINDS.get(collection)
        state: tuple[Any, ...]
        if name not in b or name not in a:
            state = ("only in A" if name in a else "only in B",)
        elif a[name].shape != b[name].shape:
            state = ("other shape",)
        else:
            state = _figures(a[name], b[name])
        found.append(Change(path if kind else name, kind or "tensor", (_shape(a, name), _shape(b, name)), *state))
    return found


def _shape(arrays: Arrays, name: str) -> tuple[int, ...] | None:
    return tuple(arrays[name].shape) if name in arrays else None


def _figures(a: np.ndarray, b: np.ndarray) -> tuple[str, float, float, float]:
    """(state, sum of squared differences, sum of squares of a, largest difference) of arrays of one shape."""
    same = a.dtype == b.dtype and np.ascontiguousarray(a).tobytes() == np.ascontiguousarray(b).tobytes()
    ours = a.astype(np.float64)
    if same:
        return "identical", 0.0, float(np.sum(np.square(ours))), 0.0
    apart = np.abs(ours - b.astype(np.float64))
    return "changed", float(np.sum(np.square(apart))), float(np.sum(np.square(ours))), float(apart.max(initial=0.0))


def _change(row: Row) -> float | None:
    """||a - b|| / ||a|| of the leaves of a row together; infinite where a is 0 or one is not finite."""
    if all(leaf.squares is None for leaf in row.leaves):
        return None
    if all(leaf.state == "identical" for leaf in row.leaves if leaf.squares is not None):
        return 0.0
    squares = sum(leaf.squares for leaf in row.leaves if leaf.squares is not None)
    norm = sum(leaf.norm_squares for leaf in row.leaves if leaf.norm_squares is not None)
    ratio = math.sqrt(squares / norm) if norm and math.isfinite(squares) and math.isfinite(norm) else math.inf
    return 0.0 if not squares else ratio


def _state(row: Row) -> str:
    states = {leaf.state for leaf in row.leaves}
    if len(states) == 1:
        return states.pop()
    return f"{sum(leaf.state == 'identical' for leaf in row.leaves)} of {len(row.leaves)} identical"


def _shapes(row: Row) -> str:
    if len(row.leaves) > 1:
        return f"{len(row.leaves)} leaves"
    told = ["x".join(map(str, shape)) or "scalar" for shape in row.leaves[0].shapes if shape is not None]
    return told[0] if len(set(told)) == 1 else " and ".join(told)


def _largest(row: Row) -> float | None:
    return max((leaf.largest for leaf in row.leaves if leaf.largest is not None), default=None)


COLUMNS = (
    Column("path", lambda row: row.path, is_text=True),
    Column("kind", lambda row: row.kind, is_text=True),
    Column("state", _state, is_text=True),
    Column("shape", _shapes, is_text=True),
    Column("size", lambda row: sum(leaf.size for leaf in row.leaves), count_text),
    Column("change", _change, figure_text),
    Column("largest", _largest, figure_text),
)
KEPT = ("path", "state", "change", "largest", "shape", "kind", "size")


def by_change(rows: Sequence[Row]) -> list[Row]:
    """Returns the rows with what is on one side alone, or of another shape, first; then by relative change, falling."""

    def rank(row: Row) -> tuple[int, float]:
        change = _change(row)
        return (min(STATES.index(leaf.state) for leaf in row.leaves), 0.0) if change is None else (3, -change)

    return sorted(rows, key=rank)


def summary(leaves: Sequence[Change]) -> str:
    """Returns in a sentence how much is identical, what changed most, what is on one side alone, what is untouched."""
    held = {state: [leaf for leaf in leaves if leaf.state == state] for state in STATES}
    parts = [f"{len(held['identical'])} of {len(leaves)} leaves identical, bit for bit"]
    if held["changed"]:
        parts.append(f"{len(held['changed'])} changed{_most(held['changed'])}")
    if held["other shape"]:
        parts.append(f"{len(held['other shape'])} of another shape")
    parts += [f"{len(held[state])} {state}" for state in ("only in A", "only in B") if held[state]]
    modules: dict[str, set[str]] = {}
    for leaf in leaves:
        modules.setdefault(_module(leaf.path), set()).add(leaf.state)
    untouched = [module for module, states in modules.items() if states == {"identical"}]
    if untouched and len(untouched) < len(modules):
        parts.append(f"untouched: {', '.join(untouched)}")
    return "; ".join(parts)


def _most(changed: Sequence[Change]) -> str:
    """Which leaf changed most, by its norm; of those that were 0 there is no such figure."""
    known = [(change, row.path) for row in folded(changed, None) if math.isfinite(change := _change(row) or 0.0)]
    if not known:
        return ""
    change, path = max(known)
    return f", {path} the most, by {figure_text(change)} of its norm"


def _module(path: str) -> str:
    """The part of the network that a leaf belongs to: `backbone/stage2`, `head`, and so in names with dots."""
    separator = "/" if "/" in path else "."
    parts = path.split(separator)[:-1]
    return separator.join(parts[: 2 if parts[:1] == ["backbone"] else 1]) or path
