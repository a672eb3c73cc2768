"""What each norm normalises together: found by perturbing the input of the modules of `models/norms.py`; by formula.

Where one value x_j of the input changes, so do mean and variance of all that are normalised together with it, and with
them the outputs (x_i - mean) / std there: these are the set S_i of Wu & He 2018, equations 2 to 6 and figure 2.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn.models.norms import BatchNorm, GroupNorm, InstanceNorm, LayerNorm, NoNorm, Norm

DRAWS = 4
"""Inputs that are perturbed: for one, an output may happen to stay as it was, where shifts of mean and std cancel."""
STEP = 8.0
"""Standard deviations of the input by which a value is perturbed."""
THRESHOLD = 1e-4
"""Of outputs, which have a standard deviation of 1: above the rounding of float32, where sums may be in another order,
and far below what a perturbation does to a few thousand values."""

Shape = tuple[int, int, int, int]


def measured_sets(norm: Norm, shape: Shape, *, train: bool = True, seed: int = 0) -> np.ndarray:
    """Returns bool [N·H·W·C, N, H, W, C]: which outputs change with each of the values of the input.

    Args:
      norm: a factory of `models/norms.py`.
      shape: of the input, (N, H, W, C); a few hundred values, since each is perturbed.
      train: whether batch norm uses the statistics of the batch.
      seed: of the inputs.
    """
    module = norm(name="norm", train=train)
    variables = module.init(jax.random.key(0), jnp.zeros(shape))
    size = int(np.prod(shape))

    def output(x: jax.Array) -> jax.Array:
        return module.apply(variables, x, mutable=["batch_stats"])[0]

    @jax.jit
    def changes(x: jax.Array) -> jax.Array:
        kicks = STEP * jnp.eye(size).reshape(size, *shape)
        return jnp.abs(jax.vmap(lambda kick: output(x + kick))(kicks) - output(x))

    keys = jax.random.split(jax.random.key(seed), DRAWS)
    return np.any([np.asarray(changes(jax.random.normal(key, shape)) > THRESHOLD) for key in keys], axis=0)


def formula_sets(norm: Norm, shape: Shape, *, train: bool = True) -> np.ndarray:
    """Returns the same by the index sets of the papers: which values have each value's example, channel or group.

    Batch norm: the same channel, of the same part of the batch if that is cut; in inference, which uses constants, and
    without norm: the value alone. Layer norm: the same example. Instance norm: the same example and channel. Group
    norm: the same example and group of channels.
    """
    n, _, _, c = np.unravel_index(np.arange(int(np.prod(shape))), shape)
    same = _shared(norm, shape, train)
    if same is None:
        return np.eye(len(n), dtype=bool).reshape(-1, *shape)
    return (same(n[:, None], c[:, None]) == same(n[None], c[None])).reshape(-1, *shape)


def _shared(norm: Norm, shape: Shape, train: bool) -> Callable | None:
    """(n, c) -> a number which all that are normalised together have in common; none: nothing is."""
    num, *_, channels = shape
    match norm:
        case BatchNorm(virtual_batch_size=part):
            return (lambda n, c: n // (part or num) * channels + c) if train else None
        case LayerNorm():
            return lambda n, c: n + 0 * c
        case InstanceNorm():
            return lambda n, c: n * channels + c
        case GroupNorm(num_groups=groups):
            return lambda n, c: n * groups + c // (channels // groups)
        case NoNorm():
            return None
    raise ValueError(f"no formula for {norm}")


def draw_cube(axes: Any, cells: np.ndarray, element: tuple[int, int, int, int], title: str) -> None:
    """Draws which cells [N, H, W, C] change with one of them as a cube of N, C and (H, W), as Wu & He's figure 2.

    Args:
      axes: three-dimensional ones of matplotlib.
      cells: bool.
      element: the cell that is perturbed, drawn darker.
      title: above the cube.
    """
    num, height, width, channels = cells.shape
    cube = cells.reshape(num, height * width, channels).transpose(2, 0, 1)  # [C, N, H·W]
    n, h, w, c = element
    place = (c, n, h * width + w)
    colours = np.where(cube, "#4477aa", "#eeeeee").astype(object)
    colours[place] = "#ee6677"
    # Two calls: in one, faces between a cell that is seen through and one that is not would be left out.
    axes.voxels(~cube, facecolors="#eeeeee18", edgecolors="#88888855", linewidth=0.4)
    axes.voxels(cube, facecolors=colours, edgecolors="#ffffff88", linewidth=0.4)
    axes.set(xticks=(), yticks=(), zticks=(), title=title)
    axes.set_xlabel("C", labelpad=-12)
    axes.set_ylabel("N", labelpad=-12)
    axes.set_zlabel("H, W", labelpad=-12)
    axes.set_box_aspect(cube.shape, zoom=0.8)
