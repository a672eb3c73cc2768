"""Convolutional image classifiers in JAX and Flax.

    import jaxcnn
    run = jaxcnn.load_run("runs/quickstart-20260101-120000")
    probabilities = run.predict(images)   # images: uint8 [N, H, W, C]

Nothing heavy is imported here: what is asked for is loaded when it is asked for.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["InputError", "TrainConfig", "__version__", "export_run", "load_run"]

if TYPE_CHECKING:
    from jaxcnn.config import TrainConfig
    from jaxcnn.errors import InputError
    from jaxcnn.export import export_run
    from jaxcnn.predict import load_run

_HOME = {
    "InputError": "jaxcnn.errors",
    "TrainConfig": "jaxcnn.config",
    "export_run": "jaxcnn.export",
    "load_run": "jaxcnn.predict",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'jaxcnn' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)
