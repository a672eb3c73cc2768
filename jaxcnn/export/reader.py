"""Runs an exported file where nothing of jaxcnn can be imported: `python -I reader.py FORM FILE IMAGES.npz OUT.npz`.

A program of its own, started by `fresh.py`. Whatever is not part of the form's runtime is refused on import, as if it
were not installed: for `stablehlo` that leaves jax with what it needs, and flatbuffers; for `onnx` onnxruntime.
"""

import importlib.abc
import sys
from collections.abc import Callable
from typing import Any

RUNTIME = {
    "stablehlo": {"jax", "jaxlib", "numpy", "scipy", "ml_dtypes", "opt_einsum", "flatbuffers"},
    "onnx": {"onnxruntime", "numpy", "google", "flatbuffers", "packaging", "coloredlogs", "humanfriendly", "sympy"},
}


class Others(importlib.abc.MetaPathFinder):
    """Refuses the import of every package but some, and Python's own."""

    def __init__(self, allowed: set[str]):
        self._allowed = allowed | set(sys.stdlib_module_names)

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> None:
        """Raises ModuleNotFoundError for what is not allowed; leaves the finding of the rest to the others."""
        if fullname.partition(".")[0] not in self._allowed:
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)


def main(form: str, file: str, images: str, out: str) -> None:
    """Writes the probabilities of each batch of images in an .npz under the name of that batch."""
    sys.meta_path.insert(0, Others(RUNTIME[form]))
    import numpy as np

    apply = {"stablehlo": _stablehlo, "onnx": _onnx}[form](file)
    with np.load(images) as batches:
        np.savez(out, **{name: np.asarray(apply(batch)) for name, batch in batches.items()})


def _stablehlo(file: str) -> Callable[[Any], Any]:
    import jax

    with open(file, "rb") as opened:
        return jax.jit(jax.export.deserialize(bytearray(opened.read())).call)


def _onnx(file: str) -> Callable[[Any], Any]:
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return lambda images: session.run(["probabilities"], {"images": images})[0]


if __name__ == "__main__":
    main(*sys.argv[1:])
