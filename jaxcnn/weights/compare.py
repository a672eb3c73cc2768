"""The first layer at which two networks part on the same images, and the likely reason.

Layers are compared in the order in which they run, by the largest difference relative to the largest value. The first
that differs had equal inputs, so the reason lies in it: `reasons.py` names it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from jaxcnn.config import Preprocessing
from jaxcnn.errors import InputError
from jaxcnn.paths import flatten
from jaxcnn.runtime import compiler_options
from jaxcnn.weights.reasons import Layer, likely_reason


@dataclass(frozen=True)
class Side:
    """One of two networks: a Flax module from normalised images, its {"params", "batch_stats"}, and preprocessing."""

    model: nn.Module
    variables: Mapping[str, Any]
    preprocessing: Preprocessing


@dataclass(frozen=True)
class Difference:
    """Where two networks part: `layer` is a module's path, or "input"; `relative` is none where it has no meaning."""

    layer: str
    place: int
    relative: float | None
    reason: str

    def __str__(self) -> str:
        amount = "" if self.relative is None else f", relative difference {self.relative:.1e}"
        where = "the input" if self.layer == "input" else f"{self.layer} (layer {self.place})"
        return f"first difference at {where}{amount}; likely reason: {self.reason}"


def sample_images(preprocessing: Preprocessing, count: int) -> np.ndarray:
    """Returns seeded random images uint8 [N, H, W, C]."""
    return np.random.default_rng(0).integers(0, 256, (count, *preprocessing.image_shape), np.uint8)


def compare(
    a: Side, b: Side, images: np.ndarray, tolerance: float = 1e-3, anew: tuple[str, ...] = ()
) -> tuple[list[Difference], int, float]:
    """Returns the differences, the number of layers compared, and the largest relative difference among equal ones.

    There is at most one difference in the input and one behind it, which is looked for with the input of `a` in both.

    Args:
      a, b: the networks.
      images: uint8 [N, H, W, C].
      tolerance: relative difference from which a layer differs.
      anew: leaves that `b` has no weights of its own for: their layers, and those that hold them, are left out.

    Raises:
      InputError: one of them takes images of other channels.
    """
    channels = [side.preprocessing.image_shape[2] for side in (a, b)]
    if channels != [images.shape[3]] * 2:
        raise InputError(f"A takes images of {channels[0]} channels and B of {channels[1]}: no image fits both")
    inputs = [_normalised(images, side.preprocessing) for side in (a, b)]
    found = _input_differences(a, b, relative_difference(*inputs), tolerance)
    layers_a, layers_b = trace(a, inputs[0]), trace(b, inputs[0])
    largest, count = 0.0, 0
    for place, (path, ours) in enumerate(layers_a.items(), 1):
        if _holds(path, anew):
            continue
        theirs = layers_b.get(path)
        if theirs is None:
            return [*found, Difference(path, place, None, "structure: B has no such layer")], count, largest
        count += 1
        same_shape = ours.output.shape == theirs.output.shape
        relative = relative_difference(ours.output, theirs.output) if same_shape else np.inf
        if not relative <= tolerance:
            reason = likely_reason(path, ours, theirs)
            return [*found, Difference(path, place, relative if same_shape else None, reason)], count, largest
        largest = max(largest, relative)
    for place, path in enumerate(layers_b, 1):
        if path not in layers_a:
            return [*found, Difference(path, place, None, "structure: A has no such layer")], count, largest
    return found, count, largest


def _holds(path: str, leaves: tuple[str, ...]) -> bool:
    """Whether a module, or one inside it, has one of the leaves; the whole network is called "output"."""
    return any(path == "output" or leaf.startswith(f"params/{path}/") for leaf in leaves)


def _input_differences(a: Side, b: Side, relative: float, tolerance: float) -> list[Difference]:
    """The difference in what both make of an image: normalisation, and the size and part of it that they take."""
    ours, theirs = a.preprocessing, b.preprocessing
    reasons = []
    if relative > tolerance:
        told = " and ".join(f"mean {_short(one.mean)}, std {_short(one.std)}" for one in (ours, theirs))
        reasons.append(f"normalisation: {told}")
    if ours.image_shape != theirs.image_shape:
        reasons.append(f"image size: {ours.image_shape[:2]} in one, {theirs.image_shape[:2]} in the other")
    if ours.crop_share != theirs.crop_share:
        reasons.append(f"crop share: {ours.crop_share} in one, {theirs.crop_share} in the other")
    return [Difference("input", 0, relative if relative > tolerance else None, "; ".join(reasons))] if reasons else []


def trace(side: Side, inputs: np.ndarray) -> dict[str, Layer]:
    """Returns what every module of a network gives for normalised images, by path, in the order in which they end."""
    modules: dict[str, nn.Module] = {}

    def run(variables: Any, x: jax.Array) -> list[tuple[jax.Array, jax.Array]]:
        modules.clear()
        values = []

        def record(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
            output = call(*args, **kwargs)
            if context.method_name == "__call__" and isinstance(output, jax.Array):
                modules["/".join(context.module.path) or "output"] = context.module.clone(parent=None)
                values.append((args[0], output))
            return output

        with nn.intercept_methods(record):
            side.model.apply(variables, x, train=False)
        return values

    values = jax.device_get(jax.jit(run, compiler_options=compiler_options())(dict(side.variables), inputs))
    flat = {path: np.asarray(leaf) for path, leaf in flatten(side.variables).items()}
    layers = {}
    for (path, module), (given, output) in zip(modules.items(), values, strict=True):
        leaves = {
            name.removeprefix(f"{kind}/{path}/"): leaf
            for name, leaf in flat.items()
            for kind in ("params", "batch_stats")
            if name.startswith(f"{kind}/{path}/") and "/" not in name.removeprefix(f"{kind}/{path}/")
        }
        layers[path] = Layer(module, given, output, leaves)
    return layers


def relative_difference(a: np.ndarray, b: np.ndarray) -> float:
    """Returns max |a - b| / max |a|; NaN where either has one."""
    return float(np.max(np.abs(a - b)) / max(float(np.max(np.abs(a))), 1e-30))


def _normalised(images: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """(x / 255 - mean) / std, as `augment/normalise.py` does it on the device."""
    mean, std = (np.asarray(values, np.float32) for values in (preprocessing.mean, preprocessing.std))
    return (images.astype(np.float32) / 255 - mean) / std


def _short(values: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{value:.4g}" for value in values) + ")"
