"""What a file of features is known by: all that its numbers follow from."""

import dataclasses
import hashlib
import json
from typing import Any

import jax
import numpy as np

from jaxcnn.config import TrainConfig
from jaxcnn.data.loader import Arrays
from jaxcnn.data.source import Source
from jaxcnn.errors import InputError
from jaxcnn.feature_cache.points import leaves_before, random_operations
from jaxcnn.network import Network
from jaxcnn.paths import flatten

_VERSION = 1  # of what the files hold
_WITHOUT_EFFECT = (
    "num_classes", "init", "init_std", "head_init", "zero_last_scale", "dropout", "block_dropout", "block_dropout_kind",
    "stochastic_depth", "scan_blocks", "remat", "virtual_batch_size",
)  # fmt: skip
"""Options of the model that change nothing before a frozen point, once the weights are known."""


def frozen_digest(network: Network, variables: dict[str, Any], point: str) -> str:
    """Returns the SHA-256 of names, shapes, types and bytes of all leaves and statistics before a point."""
    digest = hashlib.sha256()
    for collection in ("params", "batch_stats"):
        leaves = flatten(variables[collection])
        for path in sorted(leaves_before(network.model, point, leaves)):
            value = np.asarray(leaves[path])
            digest.update(repr((collection, path, value.shape, value.dtype.name)).encode())
            digest.update(value.tobytes())
    return digest.hexdigest()


def content_digest(split: Arrays | Source) -> str:
    """Returns a key of a split's images: its fingerprint, or the SHA-256 of its pixels where they are in memory.

    Raises:
      InputError: a source whose content has no fingerprint.
    """
    if isinstance(split, Arrays):
        pixels = np.ascontiguousarray(split.images)
        digest = hashlib.sha256(repr((pixels.shape, pixels.dtype.name)).encode())
        digest.update(pixels.data)
        return digest.hexdigest()
    if not split.fingerprint:
        raise InputError(
            f"features.cache: {split.name} has no fingerprint, by which its features would be known; set "
            "data.loader=resident, or features.cache=off"
        )
    return split.fingerprint


def pass_key(
    config: TrainConfig, network: Network, point: str, frozen: str, content: str, view: int | None, kind: str
) -> str:
    """Returns the key of one split's features, hex [40].

    Args:
      config: says how the network computes and, for a view, how images are changed.
      network: says how images are normalised.
      point: where the features are taken.
      frozen: of `frozen_digest`.
      content: of `content_digest`.
      view: number of the view; none: the images as evaluation sees them.
      kind: of the loader, which takes random crops in its own way.
    """
    model = {name: value for name, value in _fields(config.model).items() if name not in _WITHOUT_EFFECT}
    changes = None
    if view is not None:
        changes = {
            "operations": {name: _fields(getattr(config.augment, name)) for name in random_operations(config.augment)},
            "seed": config.features.seed,
            "view": view,
            "loader": kind,
            "batch_size": config.evaluation.batch_size,  # an image's draw follows from its place in the batch
        }
    parts = {
        "version": _VERSION,
        "jax": jax.__version__,
        "device": jax.devices()[0].device_kind,
        "frozen": frozen,
        "point": point,
        "model": model,
        "preprocessing": _fields(network.preprocessing),
        "content": content,
        "changes": changes,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:40]


def _fields(config: Any) -> dict[str, Any]:
    return dataclasses.asdict(config)
