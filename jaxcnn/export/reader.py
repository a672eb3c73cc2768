"""Runs an exported file where nothing of jaxcnn can be imported: `python -P reader.py FORM FILE IMAGES.npz OUT.npz`.

A program of its own, started by `fresh.py`. What is not part of the form's runtime is not found on import, as if it
were not installed: for `stablehlo` that leaves jax with what it needs, and flatbuffers; for `onnx` onnxruntime.
"""

import sys
from collections.abc import Callable
from typing import Any

RUNTIME = {
    "stablehlo": {"jax", "jaxlib", "numpy", "scipy", "ml_dtypes", "opt_einsum", "flatbuffers"},
    "onnx": {"onnxruntime", "numpy", "google", "flatbuffers", "packaging", "coloredlogs", "humanfriendly", "sympy"},
}


class Only:
    """A finder of modules that finds those of some packages and Python's own, as if no other were installed."""

    def __init__(self, finder: Any, packages: set[str]):
        self._finder = finder
        self._packages = packages | set(sys.stdlib_module_names)

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> Any:
        """Returns what the finder finds, or none for a package that is not among them."""
        package = fullname.partition(".")[0]
        own = package.startswith("_sysconfigdata")  # Python's, with a name for each platform, in no list
        return self._finder.find_spec(fullname, path, target) if own or package in self._packages else None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._finder, name)


def main(form: str, file: str, images: str, out: str) -> None:
    """Writes the probabilities of each batch of images in an .npz under the name of that batch."""
    sys.meta_path[:] = [Only(finder, RUNTIME[form]) for finder in sys.meta_path]
    import numpy as np

    apply = {"stablehlo": _stablehlo, "onnx": _onnx}[form](file)
    with np.load(images) as batches:
        found = {name: np.asarray(apply(batch)) for name, batch in batches.items()}
    np.savez(out, **found)  # type: ignore[arg-type]


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
