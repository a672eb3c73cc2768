"""Weights of keras.applications (`.h5`): VGG16, VGG19 and ResNet50, read by h5py (the extra `keras`).

They differ from ours in more than names, all of which is taken up here so that the network stays as it is:
  - pixels are BGR in 0..255 less the mean (Caffe's preprocessing): told by `CAFFE`, turned by the importer;
  - the convolutions of ResNet50 have biases before their norms: bias b and mean m are the mean m - b;
  - its epsilon is 1.001e-5: added to the running variance less our 1e-5.
ResNet50 has the stride on the first 1x1 of a block ("v1"): that is a choice of the network, not of the weights.
"""

from pathlib import Path
from typing import Any

import numpy as np

from jaxcnn.errors import InputError
from jaxcnn.weights.files import Hints, as_float32

CAFFE = Hints(
    mean=(103.939 / 255, 116.779 / 255, 123.68 / 255),  # keras.applications.imagenet_utils, mode "caffe"
    std=(1 / 255, 1 / 255, 1 / 255),
    channel_order="BGR",
    image_size=224,
)
_EPSILON, _OURS = 1.001e-5, 1e-5  # keras.applications.resnet; `models/norms.py`
_NORM_LEAVES = ("scale", "bias", "mean", "var")  # Keras orders them gamma, beta, moving_mean, moving_variance


def read_keras(path: Path) -> dict[str, np.ndarray]:
    """Returns the tensors as LAYER.kernel, LAYER.bias, LAYER.scale, LAYER.mean, LAYER.var.

    Raises:
      InputError: not such a file, truncated, or h5py is not installed.
    """
    try:
        import h5py
    except ImportError:
        raise InputError(f'{path}: Keras files need h5py: pip install "jaxcnn[keras]"') from None
    try:
        with h5py.File(path, "r") as file:
            root = file.get("model_weights", file)
            layers = {name: _arrays(root[name]) for name in _names(root, "layer_names")}
    except (OSError, KeyError, RuntimeError) as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        raise InputError(f"{path}: truncated or not an .h5 file of keras.applications ({line})") from None
    if "probs" in layers:
        layers["predictions"] = layers.pop("probs")
    tensors = {}
    for layer, arrays in layers.items():
        leaves = _NORM_LEAVES if arrays and arrays[0].ndim == 1 else ("kernel", "bias")
        if len(arrays) not in (0, len(leaves), 1):
            raise InputError(f"{path}: layer {layer!r} has {len(arrays)} tensors, which no layer of VGG or ResNet has")
        tensors.update({f"{layer}.{leaf}": array for leaf, array in zip(leaves, arrays, strict=False)})
    if not tensors:
        raise InputError(f"{path} holds no layers with weights")
    return _folded(tensors)


def _names(group: Any, attribute: str) -> list[str]:
    """A list of names among the attributes; Keras cuts a long one into `NAME0`, `NAME1`, ..."""
    if attribute in group.attrs:
        parts = [group.attrs[attribute]]
    else:
        parts = [group.attrs[key] for key in sorted(group.attrs, key=len) if key.startswith(attribute)]
        if not parts:
            raise KeyError(f"no {attribute}: a newer .weights.h5 is not read, save it as a whole model in .h5")
    return [name.decode() if isinstance(name, bytes) else str(name) for part in parts for name in part]


def _arrays(layer: Any) -> list[np.ndarray]:
    return [as_float32(np.asarray(layer[name])) for name in _names(layer, "weight_names")]


def _folded(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The biases before norms moved into the running means, and the epsilons made equal."""
    folded = dict(tensors)
    for name in tensors:
        layer, _, leaf = name.rpartition(".")
        if leaf != "mean":
            continue
        folded[f"{layer}.var"] = tensors[f"{layer}.var"] + np.float32(_EPSILON - _OURS)
        bias = f"{layer.removesuffix('_bn')}_conv.bias"
        if bias in tensors:
            folded[name] = tensors[name] - folded.pop(bias)
    return folded
