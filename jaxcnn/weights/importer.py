"""Named tensors -> the variables of a network, strictly: every tensor is used once and every leaf filled.

Three things may differ, and are told: the layers after the backbone (left out, or drawn anew, for another number of
classes or another kind of head), the channels of the image (RGB weights on grey images are summed), and the order of
the channels (BGR weights are turned, so that the network always takes RGB).
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxcnn.config import Preprocessing
from jaxcnn.errors import InputError
from jaxcnn.paths import flatten, unflatten
from jaxcnn.weights.files import Hints, Weights
from jaxcnn.weights.layouts import to_ours, to_theirs
from jaxcnn.weights.names import DIALECTS, IGNORED, TOPS, Dialect, Entry, is_top, leaf_names
from jaxcnn.weights.report import Report, check_finite

IMAGENET_MEAN: tuple[float, ...] = (0.485, 0.456, 0.406)
IMAGENET_STD: tuple[float, ...] = (0.229, 0.224, 0.225)
_FIRST_KERNEL = re.compile(r"params/backbone/(stem/conv1?|stage1/conv1)/kernel")


@dataclass(frozen=True)
class Fitted:
    """Weights in the form of a network.

    Attributes:
      leaves: float32 arrays by path (`params/head/kernel`); the paths of `anew` are not among them.
      anew: paths that the source does not fill and that start at random.
      notes: what was left out, drawn anew or turned, each in a sentence.
      dialect: whose names the source has.
    """

    leaves: dict[str, np.ndarray]
    anew: tuple[str, ...]
    notes: tuple[str, ...]
    dialect: Dialect


def fit(weights: Weights, shapes: Mapping[str, Any], what: str, new_head: str | None = None) -> Fitted:
    """Returns the leaves of a network, taken from named tensors.

    Args:
      weights: where from.
      shapes: of the leaves, by path: `flatten({"params": ..., "batch_stats": ...})`.
      what: the network, for messages.
      new_head: why the head starts anew even where the source has one that fits; none: it does not.

    Raises:
      InputError: names or shapes do not fit, with both sides of those that do not; or weights that are not finite.
    """
    tensors = {name: array for name, array in weights.tensors.items() if name.rpartition(".")[2] not in IGNORED}
    dialect, entries = _nearest_dialect(tensors, shapes)
    found, mismatched = _convert(tensors, entries, shapes)
    taken = {entry.name for entry in entries.values()}
    unexpected = [name for name in tensors if name not in taken]
    anew = _new_top(tensors, entries, shapes)
    if new_head and not anew:
        anew = tuple(path for path in shapes if "/head/" in path)
    else:
        new_head = None
    notes = []
    if anew:
        unexpected = [name for name in unexpected if not name.startswith(TOPS)]
        notes.append(_top_note(anew, shapes, new_head or "the source has none of that shape"))
    report = Report(
        missing=[
            entry.name + _beside(entry.name, path)
            for path, entry in entries.items()
            if path not in anew and entry.name not in tensors
        ],
        unexpected=unexpected,
        mismatched=[line for path, line in mismatched.items() if path not in anew],
    )
    if report:
        raise InputError(f"{weights.place} holds another network than {what}: {report}")
    leaves = {path: array for path, array in found.items() if path not in anew}
    check_finite({entries[path].name: array for path, array in leaves.items()}, weights.place)
    return Fitted(_for_images(leaves, shapes, weights.hints, notes), anew, tuple(notes), dialect)


def _nearest_dialect(tensors: Mapping[str, Any], shapes: Mapping[str, Any]) -> tuple[Dialect, dict[str, Entry]]:
    """The dialect that has most of the tensors' names, with its names for the network's leaves."""
    ranks = {path: len(leaf.shape) for path, leaf in shapes.items()}
    tables = {dialect: leaf_names(ranks, dialect) for dialect in DIALECTS}
    known = {dialect: table for dialect, table in tables.items() if table is not None}
    best = max(known, key=lambda dialect: sum(entry.name in tensors for entry in known[dialect].values()))
    return best, known[best]


def _convert(
    tensors: Mapping[str, np.ndarray], entries: Mapping[str, Entry], shapes: Mapping[str, Any]
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The tensors of the right shape with our axes, and a line on each of another, both by path."""
    found, mismatched = {}, {}
    for path, entry in entries.items():
        if entry.name not in tensors:
            continue
        theirs, want = tensors[entry.name], tuple(shapes[path].shape)
        array = to_ours(theirs, entry.layout)
        if array is not None and (array.shape == want or _is_colour_for_grey(path, array.shape, want)):
            found[path] = array
        else:
            expected = to_theirs(np.broadcast_to(np.float32(0), want), entry.layout).shape
            mismatched[path] = f"{entry.name} is {theirs.shape}, expected {expected}" + _beside(entry.name, path)
    return found, mismatched


def _beside(name: str, path: str) -> str:
    """Our path, to stand beside their name where it is another."""
    return "" if name == path else f" ({path})"


def _is_colour_for_grey(path: str, have: tuple[int, ...], want: tuple[int, ...]) -> bool:
    """Whether a kernel is the first one, for 3 channels where the images have 1."""
    return _FIRST_KERNEL.fullmatch(path) is not None and want[2] == 1 and have == (*want[:2], 3, want[3])


def _new_top(
    tensors: Mapping[str, np.ndarray], entries: Mapping[str, Entry], shapes: Mapping[str, Any]
) -> tuple[str, ...]:
    """The leaves after the backbone that start at random: neck and head where the source has neither, or the head
    where it has none or one for another number of classes. An incomplete head is no reason: it is reported."""
    top = [path for path in shapes if is_top(path)]
    if not any(entries[path].name in tensors for path in top):
        return tuple(top)
    head = [path for path in top if "/head/" in path]
    arrays = [to_ours(tensors[entry.name], entry.layout) for path in head if (entry := entries[path]).name in tensors]
    counts = [array.shape[-1] if array is not None else None for array in arrays]
    classes = shapes["params/head/kernel"].shape[-1]
    return () if any(count in (classes, None) for count in counts) else tuple(head)


def _top_note(anew: tuple[str, ...], shapes: Mapping[str, Any], reason: str) -> str:
    layers = "neck and head start" if any("/neck/" in path for path in anew) else "head starts"
    classes = shapes["params/head/kernel"].shape[1]
    return f"the {layers} anew, for {classes} classes: {reason}"


def _for_images(
    leaves: dict[str, np.ndarray], shapes: Mapping[str, Any], hints: Hints, notes: list[str]
) -> dict[str, np.ndarray]:
    """The leaves, contiguous and float32, with the first kernel for RGB or for grey; what was done goes to `notes`."""
    fitted = {}
    for path, array in leaves.items():
        if _FIRST_KERNEL.fullmatch(path) and array.shape[2] == 3:
            if shapes[path].shape[2] == 1:
                array = array.sum(axis=2, keepdims=True)
                notes.append("its colour weights are summed over the channels, for grey images")
            elif hints.channel_order == "BGR":
                array = array[:, :, ::-1]
                notes.append("its first kernel is turned from BGR to RGB")
        fitted[path] = np.ascontiguousarray(array, np.float32)
    return fitted


def filled(drawn: Mapping[str, Any], fitted: Fitted) -> dict[str, Any]:
    """Returns {"params", "batch_stats"} of the fitted leaves; those that start anew are taken from `drawn`."""
    flat = {path: fitted.leaves.get(path, leaf) for path, leaf in flatten(drawn).items()}
    return {"batch_stats": {}, **unflatten(flat)}


def preprocessing_for(hints: Hints, image_shape: tuple[int, int, int], crop_share: float = 1.0) -> Preprocessing:
    """Returns how images become input for these weights: RGB, or grey with the statistics' means over the channels.

    Args:
      hints: what the source says; ImageNet's mean and std where it does not.
      image_shape: height, width and channels of the input.
      crop_share: of the preprocessing.

    Raises:
      InputError: the source has not one value a channel, or one that is not finite, or a std that is not above 0.
    """
    mean, std = hints.mean or IMAGENET_MEAN, hints.std or IMAGENET_STD
    if hints.channel_order == "BGR":
        mean, std = (mean[::-1] if hints.mean else mean), (std[::-1] if hints.std else std)
    if image_shape[2] == 1 and len(mean) == len(std) == 3:
        mean, std = (sum(mean) / 3,), (sum(std) / 3,)
    if not len(mean) == len(std) == image_shape[2]:
        raise InputError(f"{mean=} and {std=}: one value a channel is needed, and the images have {image_shape[2]}")
    if not all(map(math.isfinite, (*mean, *std))) or min(std) <= 0:
        raise InputError(f"{mean=} and {std=}: finite numbers are needed, and a std above 0")
    return Preprocessing(image_shape, mean, std, "grey" if image_shape[2] == 1 else "RGB", crop_share)


def statistics_told(hints: Hints) -> str:
    """Returns whose mean and std `preprocessing_for` takes, in a few words."""
    if hints.mean and hints.std:
        return "the source's own"
    if hints.mean or hints.std:
        own, other = ("mean", "std") if hints.mean else ("std", "mean")
        return f"the source's own {own}, ImageNet's {other}, of which it says nothing"
    return "ImageNet's, the source says nothing of them"
