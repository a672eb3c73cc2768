"""Pictures of what is inside a network: first filters, histograms of weights and activations, feature maps."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxcnn.curves import save
from jaxcnn.models.taps import tapped, unscanned
from jaxcnn.network import Network
from jaxcnn.paths import flatten
from jaxcnn.runtime import compiler_options
from jaxcnn.sheets import draw_grid

_COLUMNS, _MOST = 6, 60  # histograms beside each other, and in one picture
_BINS = 61
_COLOUR, _BACK = "#4477aa", "#ee6677"


def draw_filters(network: Network, variables: Any, path: Path, most: int = 96) -> str:
    """Draws the kernels of the first convolution to a PNG, and returns the path of that layer.

    Each is scaled by itself: middle grey is a weight of 0, black and white are its largest weight, negative and
    positive; of three channels the weights of red, green and blue are the colours.

    Args:
      network, variables: the network.
      path: file to write.
      most: kernels to draw, the first ones.
    """
    layer, kernel = next(
        (layer, kernel) for layer, kernel in kernels_of(network, variables).items() if kernel.ndim == 4
    )
    kernel = kernel[..., :most]  # [K, K, C, O]
    shown = 127.5 * (1 + kernel / np.maximum(np.abs(kernel).max(axis=(0, 1, 2)), 1e-12))
    if kernel.shape[2] not in (1, 3):
        shown = shown.mean(axis=2, keepdims=True)
    tiles = list(np.moveaxis(np.rint(shown).astype(np.uint8), -1, 0))
    columns = min(16, len(tiles))
    rows = [tiles[first : first + columns] for first in range(0, len(tiles), columns)]
    side, _, channels, _ = kernel.shape
    title = f"{layer}: {len(tiles)} kernels {side}x{side}x{channels}, each scaled to its largest weight"
    draw_grid(rows, [str(columns * place) for place in range(len(rows))], None, path, title, tile_px=48)
    return layer


def kernels_of(network: Network, variables: Any) -> dict[str, np.ndarray]:
    """Returns the kernels by the path of their layer, in the order in which they are applied."""
    image = jax.ShapeDtypeStruct((1, *network.preprocessing.image_shape), "float32")
    model = unscanned(network.model)
    order = jax.eval_shape(lambda variables, x: tapped(model, variables, x), variables, image).inputs
    leaves = flatten(variables["params"])
    return {layer: np.asarray(leaves[f"{layer}/kernel"]) for layer in order}


def draw_weights(network: Network, variables: Any, path: Path) -> None:
    """Draws a histogram of the kernel of each layer to a PNG, with its standard deviation and number of weights."""
    kernels = {layer: kernel.ravel() for layer, kernel in kernels_of(network, variables).items()}
    notes = {layer: f"std {values.std():.2g}, {values.size:,}" for layer, values in kernels.items()}
    _draw_histograms(kernels, notes, path, "weights of each layer: std and how many", "weight")


def draw_activations(network: Network, variables: Any, images: np.ndarray, path: Path) -> None:
    """Draws a histogram of the input of each layer to a PNG, with its standard deviation and share of zeros.

    The input of a layer is what the activation before it gave. Zeros are not drawn, which after ReLU are half of it.

    Args:
      network, variables: the network, in evaluation mode.
      images: uint8 [N, H, W, C], as it sees them.
      path: file to write.
    """
    model = unscanned(network.model)

    def inputs(variables: Any, images: jax.Array) -> Any:
        return tapped(model, variables, network.normalise(images)).inputs

    found = jax.device_get(jax.jit(inputs, compiler_options=compiler_options())(variables, images))
    values = {layer: np.asarray(array, np.float32).ravel() for layer, array in found.items()}
    notes = {layer: f"std {of.std():.2g}, {100 * np.mean(of == 0):.0f} % zeros" for layer, of in values.items()}
    seen = {layer: of[of != 0] for layer, of in values.items()}
    title = f"input of each layer on {len(images)} images, without its zeros: std and share of zeros"
    _draw_histograms(seen, notes, path, title, "activation")


def _draw_histograms(
    values: Mapping[str, np.ndarray], notes: Mapping[str, str], path: Path, title: str, axis: str
) -> None:
    """One small histogram a layer, counts on a logarithmic axis, each with its own range."""
    from matplotlib.figure import Figure

    layers = list(values)
    if len(layers) > _MOST:
        layers = [layers[place] for place in np.linspace(0, len(layers) - 1, _MOST).round().astype(int)]
        title += f" ({_MOST} of {len(values)} layers)"
    columns = min(_COLUMNS, len(layers))
    rows = -(-len(layers) // columns)
    figure = Figure(figsize=(2.15 * columns, 1.45 * rows + 0.5), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.ravel()[len(layers) :]:
        axes.set_axis_off()
    for axes, layer in zip(grid.ravel(), layers, strict=False):
        of = values[layer][np.isfinite(values[layer])]
        if of.size:
            counts, edges = np.histogram(of, bins=_BINS)
            axes.fill_between(edges[:-1], counts, step="post", color=_COLOUR, linewidth=0, alpha=0.85)
            axes.axvline(0, color=_BACK, linewidth=0.8)
            axes.set_yscale("log")
            axes.set_ylim(bottom=0.8)
        axes.set_title(f"{_short(layer)}\n{notes[layer]}", fontsize=6.5)
        axes.tick_params(labelsize=6, length=2)
        axes.set_yticks([])
        axes.minorticks_off()
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.locator_params(axis="x", nbins=4)
    figure.suptitle(title, fontsize=9)
    figure.supxlabel(f"{axis}; counts on a logarithmic axis", fontsize=8)
    save(figure, path)


def _short(layer: str) -> str:
    return layer.removeprefix("backbone/")


def draw_feature_maps(network: Network, variables: Any, image: np.ndarray, path: Path, channels: int = 8) -> None:
    """Draws the strongest channels of each part of the backbone for one image to a PNG.

    The strongest are those with the largest mean magnitude. Each tile is scaled by itself, dark 0 or its lowest value,
    bright its highest, which its caption says.

    Args:
      network, variables: the network, in evaluation mode.
      image: uint8 [H, W, C], as it sees it.
      path: file to write.
      channels: tiles a part.
    """
    from matplotlib import colormaps

    parts = network.model.backbone.part_names
    cut: Any = network.model.clone(features=parts)

    def maps(variables: Any, image: jax.Array) -> Any:
        return cut.apply(variables, network.normalise(image[None]), train=False)

    found = jax.device_get(jax.jit(maps, compiler_options=compiler_options())(variables, image))
    rows, labels, captions = [], [], []
    for part in parts:
        of = np.asarray(found[part][0], np.float32)  # [H', W', F]
        strongest = np.argsort(-np.abs(of).mean(axis=(0, 1)), kind="stable")[:channels]
        tiles = [_scaled(of[..., channel]) for channel in strongest]
        rows.append([image, *((colormaps["viridis"](tile)[..., :3] * 255).astype(np.uint8) for tile in tiles)])
        labels.append(f"{part} {'x'.join(map(str, of.shape))}")
        captions.append(["", *(f"{channel}: to {of[..., channel].max():.2g}" for channel in strongest)])
    title = f"the {channels} strongest channels of each part: number of the channel, and its highest value"
    draw_grid(rows, labels, None, path, title, captions=captions)


def _scaled(values: np.ndarray) -> np.ndarray:
    low, high = min(float(values.min()), 0.0), float(values.max())
    return (values - low) / (high - low) if high > low else np.zeros_like(values)


def draw_pictures(network: Network, variables: Any, images: Sequence[np.ndarray], folder: Path) -> list[Path]:
    """Draws all pictures into a folder, which is made if it is not there, and returns their files.

    Args:
      network, variables: the network.
      images: uint8 [H, W, C] each, as it sees them; none: only what needs no images. Feature maps are of the first.
      folder: for filters.png, weights.png, activations.png, features.png.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / "filters.png", folder / "weights.png"]
    draw_filters(network, variables, files[0])
    draw_weights(network, variables, files[1])
    if len(images):
        files += [folder / "activations.png", folder / "features.png"]
        draw_activations(network, variables, np.stack(images), files[2])
        draw_feature_maps(network, variables, images[0], files[3])
    return files
