"""Slices of the loss around trained weights, along directions that are scaled filter by filter (Li et al. 2018).

The loss of a network with batch norm does not change with the scale of a filter, so a step of a given length means
little for large weights and much for small ones. Directions are therefore scaled so that each filter has the norm of
the network's own: d <- d / |d| · |w| (section 4). Then 1 is the same way out in each network, and slices compare.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn.paths import flatten, unflatten

Loss = Callable[[Any], jax.Array]


def filter_normalised_direction(key: jax.Array, params: Any) -> Any:
    """Returns a random direction of the shapes of `params`, each filter with the norm of the network's own.

    Args:
      key: of its normal draws.
      params: kernels are [..., inputs, outputs], of which each output has a filter. Biases and the scales of norms
        stay as they are: their direction is 0, as in the authors' code.
    """
    flat = flatten(params)
    keys = jax.random.split(key, len(flat))
    return unflatten({path: _direction(one, leaf) for one, (path, leaf) in zip(keys, flat.items(), strict=True)})


def _direction(key: jax.Array, leaf: jax.Array) -> jax.Array:
    if leaf.ndim < 2:
        return jnp.zeros_like(leaf)
    drawn, axes = jax.random.normal(key, leaf.shape, leaf.dtype), tuple(range(leaf.ndim - 1))
    norms = [jnp.sqrt(jnp.sum(jnp.square(each), axis=axes)) for each in (drawn, leaf)]
    return drawn * (norms[1] / norms[0])


def losses_at(loss: Loss, params: Any, directions: Any, points: jax.Array) -> jax.Array:
    """Returns the losses [P] at params + the sum over k of points[:, k] · direction k, one point after the other.

    Args:
      loss: (parameters) -> [].
      params: in the middle.
      directions: as params, each leaf with a leading axis [D].
      points: coordinates [P, D].
    """

    def at(point: jax.Array) -> jax.Array:
        return loss(jax.tree.map(lambda w, d: w + jnp.tensordot(point, d, 1).astype(w.dtype), params, directions))

    return jax.lax.map(at, points)


def half_width(places: np.ndarray, losses: np.ndarray, chance: float) -> float:
    """Returns how far from 0 the loss has come half of the way from its value there to that of chance.

    The mean of both sides, each by linear interpolation up to the first crossing; a side without one counts as far as
    it was measured. Not a number where the loss at 0 is no better than chance.

    Args:
      places: [G], ascending, with 0 among them.
      losses: [G], of these.
      chance: loss of a guess: log K.
    """
    middle = int(np.argmin(np.abs(places)))
    if not losses[middle] < chance:
        return math.nan
    level = (losses[middle] + chance) / 2
    right = _first_crossing(places[middle:] - places[middle], losses[middle:], level)
    left = _first_crossing(places[middle] - places[middle::-1], losses[middle::-1], level)
    return (left + right) / 2


def _first_crossing(distances: np.ndarray, losses: np.ndarray, level: float) -> float:
    above = np.flatnonzero(~(losses < level))  # what is not a number is above
    if not len(above):
        return float(distances[-1])
    end = int(above[0])
    if not np.isfinite(losses[end]):
        return float(distances[end])
    share = (level - losses[end - 1]) / (losses[end] - losses[end - 1])
    return float(distances[end - 1] + share * (distances[end] - distances[end - 1]))


def curvatures(losses: np.ndarray, spacing: float) -> np.ndarray:
    """Returns the principal curvatures [G - 2, G - 2, 2] of a slice at its inner points, the lower one first.

    Of central differences. They are weighted means of those of the whole loss, so where a slice curves downwards the
    loss is not convex (Li et al. 2018, section 6).

    Args:
      losses: [G, G] on a square grid.
      spacing: of its points.
    """
    inner = losses[1:-1, 1:-1]
    rows = losses[2:, 1:-1] - 2 * inner + losses[:-2, 1:-1]
    columns = losses[1:-1, 2:] - 2 * inner + losses[1:-1, :-2]
    mixed = (losses[2:, 2:] - losses[2:, :-2] - losses[:-2, 2:] + losses[:-2, :-2]) / 4
    hessian = np.stack([np.stack([rows, mixed], -1), np.stack([mixed, columns], -1)], -1) / spacing**2
    return np.linalg.eigvalsh(hessian)
