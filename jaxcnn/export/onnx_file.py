"""A run as an ONNX file, by jax2onnx."""

import contextlib
import importlib.metadata
import json
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax import lax

from jaxcnn.errors import InputError, RunFailed
from jaxcnn.export.flattening import Rule, flattened
from jaxcnn.export.serving import Served

OPSET = 23


def check_installed() -> None:
    """Raises InputError where the converter or the runtime is not installed."""
    from importlib.util import find_spec

    missing = [name for name in ("jax2onnx", "onnx", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise InputError(f'--format onnx needs {" and ".join(missing)}: pip install -e ".[onnx]"')


def to_onnx(of: Served) -> tuple[Any, dict[str, Any]]:
    """Returns the model (an `onnx.ModelProto`), for any number of images, and what is to be told of its form.

    Raises:
      RunFailed: the network has an operation that the converter does not know, or not in this form.
    """
    with _quiet():
        import jax2onnx

        images = of.images
        try:
            model = jax2onnx.to_onnx(
                flattened(of.function, images, RULES),
                [images],
                model_name=of.config.model.name,
                opset=OPSET,
                input_names=["images"],
                output_names=["probabilities"],
            )
        except Exception as error:  # whatever the converter meets: it has no errors of its own
            reason = (str(error).splitlines() or [""])[0]
            name, kind = of.config.model.name, type(error).__name__
            raise RunFailed(f"jax2onnx cannot convert {name}: {kind}: {reason}") from None
    told = {
        "format": "onnx",
        "opset": next(each.version for each in model.opset_import if each.domain in ("", "ai.onnx")),
        "ir_version": model.ir_version,
        "converter": f"jax2onnx {importlib.metadata.version('jax2onnx')}",
    }
    return model, told


def with_metadata(model: Any, description: dict[str, Any]) -> bytes:
    """Returns the content of the file: the model with the description, as JSON, in its metadata."""
    entry = model.metadata_props.add()
    entry.key, entry.value = "jaxcnn", json.dumps(description, ensure_ascii=False)
    return model.SerializeToString()


def _pad(x: Any, value: Any, *, padding_config: Any) -> Any:
    """Values beside x, joined to it: the converter's own padding knows no symbolic batch."""
    if isinstance(value, jax.core.Tracer) or any(between or min(ends) < 0 for *ends, between in padding_config):
        return NotImplemented

    def beside(axis: int, size: int) -> list[Any]:
        shape = (*x.shape[:axis], size, *x.shape[axis + 1 :])
        return [lax.broadcast_in_dim(np.asarray(value, x.dtype), shape, ())] if size else []

    for axis, (before, after, _) in enumerate(padding_config):
        parts = [*beside(axis, before), x, *beside(axis, after)]
        x = lax.concatenate(parts, axis) if len(parts) > 1 else x
    return x


def _max_pool(x: Any, *, window_dimensions: Any, window_strides: Any, padding: Any, **others: Any) -> Any:
    """The maximum of windows by flax's function, which the converter knows, though not with padding: it is left out."""
    x = _pad(x, -np.inf, padding_config=[(*ends, 0) for ends in padding])
    return nn.max_pool(x, window_shape=window_dimensions[1:-1], strides=window_strides[1:-1], padding="VALID")


def _subtract(x: Any, y: Any) -> Any:
    """x - y as x + (-y) for a constant y: runtimes join additions, not subtractions, to the convolution before."""
    return NotImplemented if isinstance(y, jax.core.Tracer) else lax.add(x, np.negative(np.asarray(y)))


def _maximum(x: Any, y: Any) -> Any:
    """max(x, 0) by JAX's function, which becomes ONNX's Relu: runtimes join that to the convolution before, too."""
    is_relu = not isinstance(y, jax.core.Tracer) and np.ndim(y) == 0 and y == 0
    return jax.nn.relu(x) if is_relu else NotImplemented


RULES: dict[str, Rule] = {"pad": _pad, "reduce_window_max": _max_pool, "sub": _subtract, "max": _maximum}
"""What jax2onnx converts badly in the program of a network, said in another way; see `flattening.py`."""


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what the converter logs of optional packages, and warns of float64 that it asks for in passing."""
    loggers = [logging.getLogger(name) for name in ("jax2onnx", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
