"""One file of features: NPY with a note beside it, written whole or not at all, known to be whole when it is read."""

import json
import os
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxcnn.whole import part as part_of


@dataclass(frozen=True)
class FeatureFile:
    """The features of one split in one view.

    Attributes:
      path: KEY.npy; the note is KEY.json.
      shape: [N, H, W, F] or [N, F].
      dtype: as the network computes. NPY has no name for bfloat16, which is stored as two bytes without a type.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def gib(self) -> float:
        """Size in GiB."""
        return float(np.prod(self.shape)) * self.dtype.itemsize / 2**30

    def read(self) -> np.ndarray | None:
        """Returns the features, memory-mapped, read once to check their CRC-32; none if they are not there or whole."""
        try:
            held = json.loads(self._note.read_text())
            stored: Any = np.load(self.path, mmap_mode="r")
            if stored.shape != self.shape or stored.dtype.itemsize != self.dtype.itemsize:
                return None
            if held["crc32"] != zlib.crc32(_bytes(stored)):
                return None
        except (OSError, EOFError, ValueError, KeyError, TypeError):
            return None
        return stored.view(self.dtype)

    def write(self, parts: Iterable[np.ndarray], notes: dict[str, Any]) -> np.ndarray:
        """Returns the features, memory-mapped, once all `parts` are written and the file is in its place.

        Args:
          parts: arrays [n, ...] that together have the file's shape.
          notes: what it holds, for whoever finds it.

        Raises:
          OSError: it cannot be written.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        crc, first = 0, 0
        with part_of(self.path.with_name(f".{self.path.stem}.{os.getpid()}.npy")) as part_path:
            kind = np.dtype(f"V{self.dtype.itemsize}") if self.dtype.kind == "V" else self.dtype
            stored = np.lib.format.open_memmap(part_path, "w+", kind, self.shape)
            if hasattr(os, "posix_fallocate"):  # else a full disk ends the process by a signal, not by an error
                with open(part_path, "r+b") as file:
                    os.posix_fallocate(file.fileno(), 0, part_path.stat().st_size)
            features = stored.view(self.dtype)
            for part in parts:
                features[first : first + len(part)] = part
                crc, first = zlib.crc32(_bytes(part), crc), first + len(part)
            assert first == len(features), f"{first} of {len(features)} examples were written"
            stored.flush()
            part_path.replace(self.path)
        with part_of(self._note.with_name(f".{self._note.name}.{os.getpid()}")) as text:
            text.write_text(json.dumps({**notes, "dtype": self.dtype.name, "crc32": crc}, indent=2) + "\n")
            text.replace(self._note)
        whole = self.read()
        if whole is None:
            raise OSError(f"{self.path} is not what was written to it")
        return whole

    @property
    def _note(self) -> Path:
        return self.path.with_suffix(".json")


def _bytes(array: np.ndarray) -> Any:
    """The array's memory, uint8; of a contiguous one no copy."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)
