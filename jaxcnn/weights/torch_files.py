"""PyTorch checkpoints, read by torch (the extra `torch`) with `weights_only=True`.

A checkpoint is a pickle, and a pickle can name any function to call. The names are listed first, without running
anything, and a file with one that builds no tensor is refused; torch then checks again by its own list.
"""

import io
import pickletools
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxcnn.errors import InputError
from jaxcnn.weights.files import as_float32, unwrap_names

_HARMLESS = ("torch.", "numpy.", "collections.OrderedDict", "collections.defaultdict", "_codecs.encode")
_WRAPPERS = ("state_dict", "model")


def read_torch(path: Path) -> dict[str, np.ndarray]:
    """Returns the tensors of a checkpoint: a state dict, or one inside `state_dict` or `model`.

    Raises:
      InputError: not a checkpoint, truncated, foreign names in its pickle, no tensors, or torch is not installed.
    """
    if foreign := [name for name in pickled_names(path) if not name.startswith(_HARMLESS)]:
        raise InputError(
            f"{path}: refused, its pickle names {', '.join(foreign[:3])}, which is not a tensor; nothing was executed"
        )
    try:
        import torch
    except ImportError:
        raise InputError(f'{path}: PyTorch checkpoints need torch: pip install "jaxcnn[torch]"') from None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        raise InputError(f"{path}: truncated, damaged, or more than tensors ({line})") from None
    return unwrap_names({name: _array(tensor, torch) for name, tensor in _state_dict(content, path, torch).items()})


def _state_dict(content: Any, path: Path, torch: Any) -> Mapping[str, Any]:
    """The dict of tensors inside what was read."""
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            return _state_dict(content[wrapper], path, torch)
    if not isinstance(content, Mapping) or not content:
        raise InputError(f"{path} holds {type(content).__name__}, not a state dict of tensors")
    for name, value in content.items():
        if not isinstance(value, torch.Tensor):
            raise InputError(f"{path} is not a state dict: {name!r} is {type(value).__name__}, not a tensor")
    return content


def _array(tensor: Any, torch: Any) -> np.ndarray:
    tensor = tensor.detach()  # an nn.Parameter, as an optimizer's or a whole model's dict holds
    return as_float32((tensor.float() if tensor.is_floating_point() else tensor).numpy())


def pickled_names(path: Path) -> list[str]:
    """Returns the functions and classes that the pickles of a checkpoint name; nothing is executed.

    Raises:
      InputError: the file is neither of PyTorch's formats (a zip archive, or pickles one after another), or truncated.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(4)
            file.seek(0)
            if start[:2] == b"PK":
                with zipfile.ZipFile(file) as archive:
                    pickles = [name for name in archive.namelist() if name.endswith(".pkl")]
                    names = [name for inner in pickles for name in _names_in(io.BytesIO(archive.read(inner)))]
            elif start[:1] == b"\x80":
                names = _names_in(file)
            else:
                raise InputError(f"{path} is not a PyTorch checkpoint: it begins with {start!r}")
    except InputError:
        raise
    except Exception as error:  # pickletools and zipfile raise many kinds
        raise InputError(f"{path}: truncated or not a PyTorch checkpoint ({type(error).__name__}: {error})") from None
    return list(dict.fromkeys(names))


def _names_in(stream: Any) -> list[str]:
    """`module.name` of every global in the pickles that follow one another in a stream."""
    names = []
    while stream.read(1) == b"\x80":
        stream.seek(-1, io.SEEK_CUR)
        strings: list[str] = []
        memo: list[str] = []
        for opcode, argument, _ in pickletools.genops(stream):
            if opcode.name in ("GLOBAL", "INST"):
                names.append(str(argument).replace(" ", "."))
            elif opcode.name == "STACK_GLOBAL":
                names.append(".".join(strings[-2:]))
            elif "UNICODE" in opcode.name:
                strings.append(str(argument))
            elif opcode.name == "MEMOIZE":
                memo.append(strings[-1] if strings else "")
            elif opcode.name in ("BINGET", "LONG_BINGET") and isinstance(argument, int) and argument < len(memo):
                strings.append(memo[argument])
    return names
