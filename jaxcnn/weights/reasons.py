"""Why a layer gives different outputs for equal inputs: what usually goes wrong between two frameworks."""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

_EQUAL = 1e-5  # relative
_SETTINGS = {
    "stride": ("stride",),
    "padding": ("padding",),
    "weight standardisation": ("standardise",),
    "groups": ("groups",),
    "groups of the norm": ("groups_of",),
    "epsilon": ("spec", "epsilon"),
    "activation": ("activation",),
}
"""Settings of a module that its weights do not tell, each with the attributes that lead to it."""


@dataclass(frozen=True)
class Layer:
    """What one module did: its own leaves by name (kernel, bias, scale, mean, var), input and output [N, ...]."""

    module: Any
    given: np.ndarray
    output: np.ndarray
    leaves: dict[str, np.ndarray]


def likely_reason(path: str, a: Layer, b: Layer) -> str:
    """Returns the likely reason in a few words, with the leaf or the setting that differs."""
    if a.output.shape != b.output.shape:
        return _of_shapes(path, a, b)
    wrong = [name for name in a.leaves if name not in b.leaves or not _equal(a.leaves[name], b.leaves[name])]
    if wrong:
        return _of_leaves(path, wrong, a, b)
    if settings := _settings(a, b):
        return settings
    if a.output.ndim == 4 and _equal(a.output[:, 2:-2, 2:-2], b.output[:, 2:-2, 2:-2]):
        return "padding: only the border differs"
    if a.output.ndim == 4 and "kernel" in a.leaves:
        return "padding: kernel, stride and input are equal ('SAME' pads the far side alone at stride 2, PyTorch both)"
    if type(a.module) is not type(b.module):
        return f"structure: {type(a.module).__name__} in one, {type(b.module).__name__} in the other"
    return "activation, or the order of the layers inside: the weights are equal"


def _of_shapes(path: str, a: Layer, b: Layer) -> str:
    shapes = f"{a.output.shape[1:]} and {b.output.shape[1:]}"
    if re.search(r"/block\d+/conv[12]$", path) and _strides(a) != _strides(b):
        return f"v1 or v1.5: the stride of this bottleneck is on its 1x1 in one, on its 3x3 in the other ({shapes})"
    if a.output.shape[-1] != b.output.shape[-1]:
        return f"another width: {shapes}"
    return f"stride or padding: {shapes}"


def _strides(layer: Layer) -> Any:
    return getattr(layer.module, "stride", None)


def _of_leaves(path: str, wrong: list[str], a: Layer, b: Layer) -> str:
    """The leaves differ: whether by an order that can be named."""
    name = wrong[0]
    ours, theirs = a.leaves[name], b.leaves.get(name)
    if theirs is None or ours.shape != theirs.shape:
        return f"structure: {path}/{name} is {ours.shape} in one, {'missing' if theirs is None else theirs.shape} there"
    if ours.ndim == 4 and _equal(ours, theirs[:, :, ::-1]):
        return f"channel order: {path}/{name} is the other's with its inputs reversed (RGB and BGR)"
    if ours.ndim == 4 and (_equal(ours, theirs.swapaxes(0, 1)) or _equal(ours, theirs[::-1, ::-1])):
        return f"layout: {path}/{name} is the other's with H and W exchanged or reversed"
    if set(wrong) == {"var"} and np.ptp(theirs - ours) <= 1e-3 * np.abs(theirs - ours).max():
        return f"epsilon: {path}/var differs by {np.mean(theirs - ours):.2g} in every channel"
    if set(wrong) <= {"mean", "var"}:
        return (
            f"momentum or data: {path} has equal scale and bias, but other running statistics "
            "(0.9 here is 0.1 in PyTorch), or they were not imported"
        )
    amount = np.max(np.abs(ours - theirs)) / max(np.max(np.abs(ours)), 1e-30)
    return f"weights: {path}/{name} differs by {amount:.1e} of its largest value"


def _settings(a: Layer, b: Layer) -> str:
    """What two modules of equal weights were told differently."""
    for title, names in _SETTINGS.items():
        ours, theirs = (_attribute(layer.module, names) for layer in (a, b))
        if ours != theirs:
            return f"{title}: {_short(ours)} in one, {_short(theirs)} in the other"
    return ""


def _attribute(module: Any, names: tuple[str, ...]) -> Any:
    """`spec.epsilon` of a batch norm, `epsilon` of the others; none where a module has no such setting."""
    for name in names:
        value = getattr(module, name, None)
        module = value if name == "spec" and value is not None else module
    return value


def _short(value: Any) -> str:
    """A function by its name, a partial by that of its function."""
    return str(getattr(getattr(value, "func", value), "__name__", value))


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and a.size > 0 and float(np.max(np.abs(a - b))) <= _EQUAL * float(np.max(np.abs(a)))
