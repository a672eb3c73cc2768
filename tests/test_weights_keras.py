"""Weights of keras.applications: a file in the layout that Keras saves gives the logits that Keras gives."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxcnn.config import ModelConfig
from jaxcnn.errors import InputError
from jaxcnn.paths import flatten, unflatten
from jaxcnn.weights.files import read_weights
from jaxcnn.weights.imported_run import preprocessing_of
from jaxcnn.weights.names import leaf_names
from tests.golden.filling import fill, images
from tests.golden.rebuild import imported, network_of

h5py = pytest.importorskip("h5py", reason="needs the extra 'keras'")
GOLDEN = json.loads((Path(__file__).parent / "golden" / "golden.json").read_text())
ORDER = {"kernel": 0, "scale": 0, "bias": 1, "mean": 2, "var": 3}  # as Keras lists the weights of a layer


def save(file: Path, arch: str) -> None:
    """Writes what `Model.save_weights` of Keras 2 writes; every convolution of its ResNet has a bias."""
    dense = ModelConfig(neck="dense") if arch.startswith("vgg") else ModelConfig()
    shapes = flatten(network_of(arch, 224, given=dense).shapes)
    entries = leaf_names({path: len(leaf.shape) for path, leaf in shapes.items()}, "keras")
    assert entries is not None
    layers: dict[str, dict[str, tuple[int, ...]]] = {}
    for path, entry in entries.items():
        layer, _, leaf = entry.name.rpartition(".")
        layers.setdefault(layer, {})[leaf] = shapes[path].shape
    with h5py.File(file, "w") as h5:
        h5.attrs["layer_names"] = [layer.encode() for layer in layers]
        for layer, leaves in layers.items():
            if layer.endswith("_conv"):
                leaves["bias"] = leaves["kernel"][-1:]
            group = h5.create_group(layer)
            names = sorted(leaves, key=lambda leaf: ORDER[leaf])
            group.attrs["weight_names"] = [f"{layer}/{name}:0".encode() for name in names]
            for name in names:
                group[f"{layer}/{name}:0"] = fill(f"{layer}.{name}", leaves[name], inputs_first=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in GOLDEN if name.startswith("keras/")])
def test_logits_are_those_of_keras(name: str, tmp_path: Path) -> None:
    file, arch = tmp_path / "weights.h5", name.split("/")[1]
    save(file, arch)
    for size, golden in GOLDEN[name].items():
        network, fitted = imported(file, arch, int(size))
        logits = jax.jit(network.model.apply)(unflatten(fitted.leaves), images(int(size)).transpose(0, 2, 3, 1))
        wanted = np.array(golden["logits"])
        assert np.max(np.abs(logits - wanted)) <= 1e-4 * np.max(np.abs(wanted))
    file.unlink()


def test_biases_epsilon_stride_and_channel_order_of_keras_are_taken_up(tmp_path: Path) -> None:
    file = tmp_path / "weights.h5"
    save(file, "resnet50")
    network, fitted = imported(file, "resnet50", 64)
    assert network.model.backbone.stride_first
    bias, mean = (fill(f"conv2_block1_1_{name}", (64,)) for name in ("conv.bias", "bn.mean"))
    assert np.array_equal(fitted.leaves["batch_stats/backbone/stage1/block1/norm1/mean"], mean - bias)
    var = fill("conv2_block1_1_bn.var", (64,))
    assert np.allclose(fitted.leaves["batch_stats/backbone/stage1/block1/norm1/var"] - var, 1e-8, atol=2e-7)
    kernel = fill("conv1_conv.kernel", (7, 7, 3, 64), inputs_first=True)
    assert np.array_equal(fitted.leaves["params/backbone/stem/conv/kernel"], kernel[:, :, ::-1])
    preprocessing = preprocessing_of(read_weights(str(file)), None, 3)
    assert np.allclose(preprocessing.mean, np.array([123.68, 116.779, 103.939]) / 255)
    assert preprocessing.std == (1 / 255,) * 3


def test_a_file_of_no_layers_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as h5:
        h5["x"] = np.zeros(3)
    with pytest.raises(InputError, match="layer_names"):
        read_weights(str(tmp_path / "other.h5"))
