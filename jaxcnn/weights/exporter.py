"""The variables of a network -> a safetensors file under PyTorch's names, which `load_state_dict` takes strictly."""

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jaxcnn.config import ModelConfig, Preprocessing
from jaxcnn.errors import InputError
from jaxcnn.models.classifier import Classifier
from jaxcnn.paths import flatten
from jaxcnn.weights.counterparts import owner_of
from jaxcnn.weights.layouts import to_theirs
from jaxcnn.weights.names import leaf_names

Format = Literal["torchvision", "timm"]


def to_torch(
    variables: Mapping[str, Any], form: Format, config: ModelConfig, model: Classifier
) -> dict[str, np.ndarray]:
    """Returns the state dict of a network: float32 by PyTorch's names, and a zero batch counter for each norm.

    Args:
      variables: {"params", "batch_stats"}.
      form: whose names. CIFAR ResNets, which neither has, get those of akamaster's (the head is `linear`).
      config: of the network.
      model: the network.

    Raises:
      InputError: that library has no such network, or one of that name which would give other logits.
    """
    flat = {path: np.asarray(leaf) for path, leaf in flatten(variables).items()}
    entries = leaf_names({path: leaf.ndim for path, leaf in flat.items()}, owner_of(config, model, form))
    if entries is None:
        raise InputError(f"--format {form}: it has no network of the layers of {config.name}")
    tensors = {}
    for path, entry in entries.items():
        tensors[entry.name] = to_theirs(flat[path], entry.layout)
        if entry.name.endswith(".running_var"):
            tensors[entry.name.replace("running_var", "num_batches_tracked")] = np.zeros((), np.int64)
    return tensors


def metadata_of(preprocessing: Preprocessing, class_names: tuple[str, ...], arch: str) -> dict[str, str]:
    """Returns what a file says about its images, as `files.hints_of` reads it."""
    return {
        "format": "pt",
        "architecture": arch,
        "mean": json.dumps(preprocessing.mean),
        "std": json.dumps(preprocessing.std),
        "pixel_range": "0-1",
        "input_order": preprocessing.channel_order,
        "image_size": json.dumps(preprocessing.image_shape[0]),
        "crop_share": json.dumps(preprocessing.crop_share),
        "class_names": json.dumps(class_names),
    }


def write_safetensors(path: Path, tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    """Writes a file whole or not at all.

    Raises:
      InputError: its name does not end in .safetensors, it is there already, or it cannot be written.
    """
    from safetensors.numpy import save_file

    check_target(path)
    part = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        os.close(handle)
        save_file(tensors, part, metadata)
        os.chmod(part, 0o644)
        os.replace(part, path)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from None
    finally:
        if part is not None:
            Path(part).unlink(missing_ok=True)


def check_target(path: Path) -> None:
    """Raises InputError where `write_safetensors` would, as far as one can tell beforehand."""
    if path.suffix != ".safetensors":
        raise InputError(f"{path}: exported weights are a .safetensors file")
    if path.exists():
        raise InputError(f"{path} exists already: choose another name, or remove it")
