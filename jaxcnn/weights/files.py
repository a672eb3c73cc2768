"""Weights from a file or a hub: named tensors in float32, with what the source says about its images."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jaxcnn.errors import InputError

TORCH_SUFFIXES = (".pth", ".pt", ".th", ".bin")
KERAS_SUFFIXES = (".h5", ".hdf5")
HUB_PREFIX = "hf-hub:"


@dataclass(frozen=True)
class Hints:
    """What a source says about the images it is for; none where it says nothing. Statistics in units of 0..1."""

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    channel_order: Literal["RGB", "BGR"] = "RGB"
    """Order of the channels of the first kernel, and of mean and std."""
    image_size: int | None = None
    crop_share: float | None = None


@dataclass(frozen=True)
class Weights:
    """Tensors from elsewhere.

    Attributes:
      place: where they came from, for messages.
      tensors: float32 arrays by the source's names, in the source's layout.
      hints: what it says about images.
      class_names: names in the order of the head's outputs, if it has them.
    """

    place: str
    tensors: dict[str, np.ndarray]
    hints: Hints = field(default_factory=Hints)
    class_names: tuple[str, ...] | None = None


def read_weights(place: str) -> Weights:
    """Returns the weights in a file (by its suffix) or at `hf-hub:OWNER/NAME`.

    Raises:
      InputError: not there, not readable, truncated, not a file of weights, or a package that it needs is missing.
    """
    if place.startswith(HUB_PREFIX):
        from jaxcnn.weights.hub import read_hub

        return read_hub(place)
    path = Path(place)
    suffix = ".pth" if path.name.lower().endswith(".pth.tar") else path.suffix.lower()  # a name, not an archive
    if path.is_dir():
        raise InputError(f"{place} is a folder, neither a run nor a file of weights")
    if not path.is_file():
        known = suffix in (".safetensors", *TORCH_SUFFIXES, *KERAS_SUFFIXES)
        raise InputError(f"no {'file of weights' if known else 'run folder'} {place}")
    if suffix == ".safetensors":
        return read_safetensors(path, place)
    if suffix in TORCH_SUFFIXES:
        from jaxcnn.weights.torch_files import read_torch

        return Weights(place, read_torch(path))
    if suffix in KERAS_SUFFIXES:
        from jaxcnn.weights.keras_files import CAFFE, read_keras

        return Weights(place, read_keras(path), CAFFE)
    raise InputError(
        f"{place}: a file of weights ends in .safetensors, {', '.join(TORCH_SUFFIXES)} or {', '.join(KERAS_SUFFIXES)}"
    )


def read_safetensors(path: Path, place: str) -> Weights:
    """Returns the tensors of a safetensors file; its metadata may hold mean, std, pixel range, sizes, class names."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            tensors = {name: as_float32(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise InputError(f"{place}: truncated or not a safetensors file ({_first_line(error)})") from None
    names = _json(metadata, "class_names", place)
    checked = None if names is None else checked_names(names, f"{place}: its metadata has class_names that are")
    return Weights(place, unwrap_names(tensors), hints_of(metadata, place), checked)


def checked_names(names: Any, where: str) -> tuple[str, ...]:
    """Returns the names of classes; raises InputError unless they are a list of strings, none empty or twice."""
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name.strip() for name in names):
        raise InputError(f"{where} not a list of names")
    stripped = tuple(name.strip() for name in names)
    if len(set(stripped)) != len(stripped):
        twice = next(name for place, name in enumerate(stripped) if name in stripped[:place])
        raise InputError(f"{where} not distinct: {twice!r} is there twice")
    return stripped


def hints_of(metadata: Mapping[str, str], place: str) -> Hints:
    """Returns what the metadata of a safetensors file says about images.

    `mean` and `std` are JSON lists in the unit of `pixel_range` ("0-1" unless it says "0-255"); `input_order` is RGB
    or BGR; `image_size` pixels; `crop_share` a number.
    """
    unit = 255.0 if metadata.get("pixel_range", "0-1") == "0-255" else 1.0
    mean, std = (_json(metadata, name, place) for name in ("mean", "std"))
    size, share = (_json(metadata, name, place) for name in ("image_size", "crop_share"))
    for name, value in (("mean", mean), ("std", std)):
        if value is not None and not (isinstance(value, list) and all(map(_is_number, value))):
            raise InputError(f"{place}: its metadata has {name}={metadata[name]!r}, which is no list of numbers")
    if size is not None and not (isinstance(size, int) and size > 0):
        raise InputError(
            f"{place}: its metadata has image_size={metadata['image_size']!r}, which is no count of pixels"
        )
    if share is not None and not (_is_number(share) and 0 < share <= 1):
        raise InputError(f"{place}: its metadata has crop_share={metadata['crop_share']!r}, which is not in (0, 1]")
    return Hints(
        mean=None if mean is None else tuple(value / unit for value in mean),
        std=None if std is None else tuple(value / unit for value in std),
        channel_order="BGR" if metadata.get("input_order", "RGB").upper() == "BGR" else "RGB",
        image_size=size,
        crop_share=share,
    )


def _is_number(value: Any) -> bool:
    """Whether a value of JSON is a number of the size of a float; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


def unwrap_names(tensors: dict[str, Any]) -> dict[str, Any]:
    """Returns the tensors without `module.` (DataParallel) or `model.` (Lightning) where each name begins with it."""
    for prefix in ("module.", "model.", "module."):
        if tensors and all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def as_float32(array: np.ndarray) -> np.ndarray:
    """Returns floating arrays of any width as float32; others as they are."""
    return array if array.dtype.kind in "iub" else array.astype(np.float32, copy=False)


def _json(metadata: Mapping[str, str], name: str, place: str) -> Any:
    if name not in metadata:
        return None
    try:
        return json.loads(metadata[name])
    except json.JSONDecodeError:
        raise InputError(f"{place}: its metadata has {name}={metadata[name]!r}, which is no JSON") from None


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
