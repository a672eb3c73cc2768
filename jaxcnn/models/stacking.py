"""Trees of equal shapes put into one tree with a leading axis, and taken apart again: what `scan.py` loops over.

XLA compiles each slice at a constant place into a program of its own, on CPU in 20 ms, so taking apart the leaves of a
hundred blocks took most of the compilation of a network whose body compiled in two seconds. Slices at a place that is
only known when the program runs are one program for all places.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


@jax.custom_vjp
def stack(trees: Sequence[Any]) -> Any:
    """Returns one tree whose leaves are those of the given ones, stacked along a new first axis."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def unstack(tree: Any) -> list[Any]:
    """Returns the trees of which `tree` is the stack: the inverse of `stack`, and its gradient."""
    leaves, structure = jax.tree.flatten(tree)
    slices = lax.platform_dependent(leaves, cpu=_at_places_told_late, default=_at_constant_places)
    return [jax.tree.unflatten(structure, parts) for parts in slices]


Slices = list[list[jax.Array]]


def _at_constant_places(leaves: list[jax.Array]) -> Slices:
    return [[leaf[place] for leaf in leaves] for place in range(len(leaves[0]))]


def _at_places_told_late(leaves: list[jax.Array]) -> Slices:
    places = _places(len(leaves[0]))
    return [[lax.dynamic_index_in_dim(leaf, place, keepdims=False) for leaf in leaves] for place in places]


def _places(count: int) -> tuple[jax.Array, ...]:
    """The numbers 0 to count - 1, out of a loop: XLA sees through constants, but not through this."""
    zeros = (jnp.int32(0),) * count
    return lax.fori_loop(0, count, lambda place, last: (*last[1:], jnp.int32(place)), zeros)


def _forward(trees: Sequence[Any]) -> tuple[Any, None]:
    return stack(trees), None


def _backward(_: None, gradient: Any) -> tuple[list[Any]]:
    return (unstack(gradient),)


stack.defvjp(_forward, _backward)
