"""The table of leaves as a page, with the tree to unfold below it: one file that needs nothing else.

The tree is drawn by treescope (the extra `inspect`): it unfolds, shows each array's figures and, of trees that are not
too large, its numbers as a picture.
"""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn.errors import InputError
from jaxcnn.inspection.leaves import KINDS, Leaf
from jaxcnn.inspection.subject import Subject
from jaxcnn.inspection.table import Column, Row
from jaxcnn.page import Markup, element, page, table
from jaxcnn.paths import flatten, unflatten
from jaxcnn.whole import write_whole

PICTURED = 100
"""Most leaves whose numbers are drawn: a picture takes some 15 kB of the page."""


def check_viewer() -> Any:
    """Returns the module treescope; raises InputError with what to install where it is missing."""
    try:
        import treescope
    except ImportError:
        raise InputError('--html draws the tree with treescope: pip install "jaxcnn[inspect]"') from None
    return treescope


def write_page(
    path: Path, subject: Subject, leaves: Sequence[Leaf], rows: Sequence[Row], columns: Sequence[Column], total: str
) -> None:
    """Writes the page, whole or not at all.

    Args:
      path: of the file.
      subject: what is inspected.
      leaves: those that are shown.
      rows, columns: the table.
      total: a sentence on its totals.

    Raises:
      InputError: treescope is missing, or the file cannot be written.
    """
    texts = [place for place, column in enumerate(columns) if column.is_text]
    body = table([column.name for column in columns], [[one.shown(row) for one in columns] for row in rows], texts)
    tree = tree_of(leaves, arrays_of(subject))
    text = page(
        subject.name,
        *(element("p", note, class_="note") for note in subject.notes),
        element("style", Markup("main { max-width: none; } #tree { background: #fff; padding: 0.5rem; }")),
        element("p", total),
        element("h2", "Leaves"),
        body,
        element("h2", "Tree"),
        element("p", "A click unfolds a branch.", class_="soft"),
        element("div", Markup(drawn_tree(tree, len(leaves))), class_="scroll", id="tree"),
    )
    try:
        write_whole(path, text)
    except OSError as error:
        raise InputError(f"--html {path}: {error.strerror}") from None


def arrays_of(subject: Subject) -> dict[tuple[str, str], np.ndarray]:
    """Returns the arrays of what is inspected by (kind, path); none of shapes alone."""
    if subject.variables is None:
        return {}
    flat = flatten(subject.variables)
    if subject.network is None:
        return {("tensor", name): np.asarray(array) for name, array in flat.items()}
    split = {full: full.partition("/") for full in flat}
    return {(KINDS[name], path): np.asarray(flat[full]) for full, (name, _, path) in split.items()}


def tree_of(leaves: Sequence[Leaf], arrays: Mapping[tuple[str, str], np.ndarray]) -> dict[str, Any]:
    """Returns the leaves as nested dicts, below their kind; shapes where there are no arrays."""
    held = {kind: [leaf for leaf in leaves if leaf.kind == kind] for kind in dict.fromkeys(one.kind for one in leaves)}
    trees: dict[str, Any] = {}
    for kind, group in held.items():
        flat = {
            leaf.path.replace(".", "/"): arrays.get(
                (kind, leaf.path), jax.ShapeDtypeStruct(leaf.shape, jnp.dtype(leaf.dtype))
            )
            for leaf in group
        }
        try:
            trees[f"{kind}s"] = unflatten(flat)
        except TypeError:  # a file in which one name is a branch of another
            trees[f"{kind}s"] = flat
    return trees if len(trees) != 1 else next(iter(trees.values()))


def drawn_tree(tree: Mapping[str, Any], count: int) -> str:
    """Returns a tree of `count` leaves as HTML that needs nothing else."""
    treescope = check_viewer()
    viewer = treescope.ArrayAutovisualizer() if count <= PICTURED else None
    with warnings.catch_warnings(), treescope.active_autovisualizer.set_scoped(viewer):
        warnings.simplefilter("ignore", DeprecationWarning)  # it looks through numpy.core for names
        # Uncompressed, because what unpacks itself in the browser is no text that can be searched.
        return treescope.render_to_html(tree, compressed=False)
