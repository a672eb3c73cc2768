"""How much each pixel counts for an output: the effective receptive field, by gradients (Luo et al. 2016).

The theoretical field says which pixels can reach an output, and a gradient that is not zero where they do. How large it
is says how much they matter: in a stack of layers with random weights the squared gradient is a Gaussian around the
centre, because there are many more paths from there, and its width grows as the square root of the depth, while the
theoretical field grows as the depth (section 2).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn.models.classifier import Classifier

MASS = 0.9545
"""Of a normal distribution within two standard deviations: the share by which Luo et al. cut an effective field."""


@dataclass(frozen=True)
class Gaussian:
    """A Gaussian of equal width along both axes, fitted to a map by least squares.

    Attributes:
      sigma: its standard deviation in pixels.
      centre: (row, column).
      r2: share of the variance of the map that it explains.
    """

    sigma: float
    centre: tuple[float, float]
    r2: float


def influence(
    model: Classifier, variables: Any, images: jax.Array, parts: tuple[str, ...], key: jax.Array
) -> dict[str, jax.Array]:
    """Returns the mean squared gradient [H, W] of the centre of each of some maps with respect to the pixels.

    It is that of a sum of the channels of the unit in the middle of the map with random signs, so that on average
    channels do not cancel; squared, summed over the channels of the image and averaged over images.

    Args:
      model: the network, in evaluation mode.
      variables: {"params", "batch_stats"} of it.
      images: float [N, H, W, C], as the network takes them.
      parts: names of the maps, of `model.backbone.part_names`.
      key: of the signs.
    """
    cut: Any = model.clone(features=parts)
    maps, back = jax.vjp(lambda images: cut.apply(variables, images, train=False), images)
    seeds = {part: jnp.zeros((len(parts), *of.shape), of.dtype) for part, of in maps.items()}
    for place, part in enumerate(parts):
        of = maps[part]
        signs = jax.random.rademacher(jax.random.fold_in(key, place), (of.shape[0], of.shape[3]), of.dtype)
        seeds[part] = seeds[part].at[place, :, centre_of(of.shape[1]), centre_of(of.shape[2])].set(signs)
    (gradients,) = jax.vmap(back)(seeds)  # one pass back for all maps: [P, N, H, W, C]
    heats = jnp.mean(jnp.sum(jnp.square(gradients.astype(jnp.float32)), axis=-1), axis=1)
    return dict(zip(parts, heats, strict=True))


def at_initialisation(
    model: Classifier,
    image_shape: tuple[int, int, int],
    parts: tuple[str, ...],
    seeds: Sequence[int],
    draws: int = 16,
    images: int = 4,
) -> dict[str, np.ndarray]:
    """Returns the mean of `influence` over random weights and, for each, images of N(0, 1): [seeds, H, W] of each map.

    Args:
      model: the network.
      image_shape: height, width and channels.
      parts: names of the maps.
      seeds: of weights, images and signs; one compiled program serves them all.
      draws: of the weights, a seed.
      images: a draw.
    """

    cut: Any = model.clone(features=parts)  # what comes after these maps is not drawn

    def one(key: jax.Array) -> dict[str, jax.Array]:
        of_weights, of_images, of_signs = jax.random.split(key, 3)
        noise = jax.random.normal(of_images, (images, *image_shape))
        return influence(model, cut.init(of_weights, noise[:1]), noise, parts, of_signs)

    @jax.jit
    def mean(keys: jax.Array) -> dict[str, jax.Array]:
        return jax.tree.map(lambda heats: jnp.mean(heats, axis=0), jax.lax.map(one, keys))

    # Keys of this kind compile three times faster where each kernel is drawn by itself.
    keys = [jax.random.split(jax.random.key(seed, impl="rbg"), draws) for seed in seeds]
    heats = [jax.device_get(mean(of_seed)) for of_seed in keys]
    return {part: np.stack([heat[part] for heat in heats]) for part in parts}


def centre_of(size: int) -> int:
    """Returns the place of the middle unit of a map; of an even number the one after the middle."""
    return size // 2


def ends_of(heat: np.ndarray) -> tuple[tuple[int, int], tuple[int, int]]:
    """Returns (first, last) row and (first, last) column of what is not zero in a map [H, W].

    Raises:
      ValueError: all of it is zero.
    """
    if not heat.any():
        raise ValueError("no pixel reaches the unit")
    rows, columns = np.nonzero(heat.any(axis=1))[0], np.nonzero(heat.any(axis=0))[0]
    return (int(rows[0]), int(rows[-1])), (int(columns[0]), int(columns[-1]))


def spread_of(heat: np.ndarray) -> float:
    """Returns the standard deviation in pixels, along one axis, of a map [H, W] taken as a distribution."""
    weights = heat / heat.sum()
    variances = []
    for axis in (0, 1):
        marginal, places = weights.sum(axis=1 - axis), np.arange(heat.shape[axis])
        variances.append(float(marginal @ (places - marginal @ places) ** 2))
    return float(np.sqrt(np.mean(variances)))


def pixels_with(heat: np.ndarray, mass: float = MASS) -> int:
    """Returns how many pixels, the strongest first, hold this share of the sum of a map."""
    ordered = np.sort(heat.ravel().astype(np.float64))[::-1]
    return int(np.searchsorted(np.cumsum(ordered), mass * ordered.sum()) + 1)


def fit_gaussian(heat: np.ndarray) -> Gaussian:
    """Returns the Gaussian that fits a map [H, W] best, by least squares of height, centre and width."""
    from scipy.optimize import curve_fit

    rows, columns = np.indices(heat.shape).reshape(2, -1).astype(np.float64)
    values = heat.ravel().astype(np.float64) / heat.max()
    weights = values / values.sum()

    def gaussian(places: Any, height: float, row: float, column: float, sigma: float) -> Any:
        return height * np.exp(-((places[0] - row) ** 2 + (places[1] - column) ** 2) / (2 * sigma**2))

    start = (1.0, weights @ rows, weights @ columns, max(spread_of(heat), 0.5))
    found, _ = curve_fit(gaussian, (rows, columns), values, p0=start)
    rest = values - gaussian((rows, columns), *found)
    r2 = 1 - float(rest @ rest) / float(np.sum((values - values.mean()) ** 2))
    return Gaussian(float(abs(found[3])), (float(found[1]), float(found[2])), r2)


def random_walk(windows: Sequence[tuple[int, int]]) -> float:
    """Returns the standard deviation in pixels that layers in a row give with independent random weights.

    Each adds the variance (K² - 1) / 12 of a place in its window, times the square of the stride before it, as the
    steps of a random walk add: for n 3x3 convolutions of stride 1 it is sqrt(2 n / 3) (Luo et al. 2016, section 2.2).

    Args:
      windows: of each layer (side of its window, pixels of the image from one of its inputs to the next).
    """
    return math.sqrt(sum((side**2 - 1) / 12 * stride**2 for side, stride in windows))
