"""Files as PyTorch would save them, with rebuilt weights, made without PyTorch."""

from pathlib import Path

import numpy as np

from jaxcnn.config import ModelConfig, Preprocessing, TrainConfig
from jaxcnn.network import Network, build_network
from jaxcnn.paths import flatten
from jaxcnn.weights.files import Weights, read_weights
from jaxcnn.weights.imported_run import import_config, model_config, numbered
from jaxcnn.weights.importer import Fitted, fit
from jaxcnn.weights.layouts import to_theirs
from jaxcnn.weights.names import leaf_names
from tests.golden.filling import fill

CLASSES = 10


def network_of(arch: str, size: int, weights: Weights | None = None, given: ModelConfig | None = None) -> Network:
    """Returns a registered network for images [size, size, 3] and 10 classes, as an import would build it."""
    config: TrainConfig = import_config(
        model_config(arch, weights or Weights("", {}), given or ModelConfig()), TrainConfig().data
    )
    return build_network(config, Preprocessing((size, size, 3), (0.0,) * 3, (1.0,) * 3), numbered(CLASSES))


def state_dict(arch: str, dialect: str) -> dict[str, np.ndarray]:
    """Returns rebuilt tensors by the names and in the shapes that we believe PyTorch has."""
    dense = ModelConfig(neck="dense") if arch.startswith("vgg") else ModelConfig()
    shapes = flatten(network_of(arch, 224, given=dense).shapes)
    entries = leaf_names({path: len(leaf.shape) for path, leaf in shapes.items()}, dialect)  # type: ignore[arg-type]
    assert entries is not None
    tensors = {}
    for path, entry in entries.items():
        shape = to_theirs(np.broadcast_to(np.float32(0), shapes[path].shape), entry.layout).shape
        tensors[entry.name] = fill(entry.name, shape)
        if entry.name.endswith("running_mean"):
            tensors[entry.name.replace("running_mean", "num_batches_tracked")] = np.zeros((), np.int64)
    return tensors


def imported(file: Path, arch: str, size: int, given: ModelConfig | None = None) -> tuple[Network, Fitted]:
    """Returns the network for images of `size` and its leaves, by the path that every import takes."""
    weights = read_weights(str(file))
    network = network_of(arch, size, weights, given)
    return network, fit(weights, flatten(network.shapes), arch)
