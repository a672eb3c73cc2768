"""The same weights give the same numbers as PyTorch and Keras: the outputs that `golden/make_golden.py` kept."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from safetensors.numpy import save_file

from jaxcnn.config import ModelConfig
from jaxcnn.paths import flatten, unflatten
from jaxcnn.weights.layouts import to_theirs
from jaxcnn.weights.names import leaf_names
from tests.golden.filling import fingerprint, images, summary
from tests.golden.rebuild import imported, state_dict

FOLDER = Path(__file__).parent / "golden"
GOLDEN = json.loads((FOLDER / "golden.json").read_text())
GRADIENTS = json.loads((FOLDER / "gradients.json").read_text())
ONE_A_FAMILY = {
    "torchvision/vgg11",
    "torchvision/resnet18",
    "torchvision/resnext50_32x4d",
    "timm/resnet18d",
    "timm/seresnet18",
    "timm/resnetv2_18",
    "akamaster/resnet20",
}
TORCH = [name for name in GOLDEN if not name.startswith("keras/")]


def marked(names: list[str], default: set[str]) -> list:
    return [pytest.param(name, marks=() if name in default else pytest.mark.slow) for name in names]


def relative(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.max(np.abs(found - wanted)) / np.max(np.abs(wanted)))


@pytest.fixture
def file(tmp_path: Path):
    path = tmp_path / "model.safetensors"
    yield path
    path.unlink(missing_ok=True)  # up to 560 MB, which pytest would keep


@pytest.mark.parametrize("name", marked(TORCH, ONE_A_FAMILY))
def test_logits_and_stages_are_those_of_pytorch(name: str, file: Path) -> None:
    library, arch = name.split("/")
    tensors = state_dict(arch, library)
    assert fingerprint({key: array.shape for key, array in tensors.items()}) == GOLDEN[name]["names"]
    save_file(tensors, file)
    del tensors
    for size in (64, 75):
        network, fitted = imported(file, arch, size)
        assert not fitted.anew
        stages = tuple(f"stage{index}" for index in range(1, len(GOLDEN[name][str(size)]["stages"]) + 1))

        @jax.jit
        def run(variables, x, model=network.model, stages=stages):
            return model.apply(variables, x), model.clone(features=stages).apply(variables, x)

        logits, maps = run(unflatten(fitted.leaves), images(size).transpose(0, 2, 3, 1))
        means = np.array([np.abs(maps[stage]).mean(dtype=np.float64) for stage in stages])
        assert np.max(np.abs(means / GOLDEN[name][str(size)]["stages"] - 1)) <= 1e-4
        assert relative(np.asarray(logits), np.array(GOLDEN[name][str(size)]["logits"])) <= 1e-4


@pytest.mark.parametrize("arch", marked(list(GRADIENTS), {"resnet18"}))
def test_gradients_and_running_statistics_of_a_step_are_those_of_pytorch(arch: str, file: Path) -> None:
    save_file(state_dict(arch, "torchvision"), file)
    network, fitted = imported(file, arch, 64, ModelConfig(dropout=0.0))
    variables = unflatten(fitted.leaves)

    @jax.jit
    def step(params, batch_stats, x):
        def loss(params):
            both = {"params": params, "batch_stats": batch_stats}
            logits, new = network.model.apply(both, x, train=True, mutable=["batch_stats"])
            labels = jnp.arange(8) % 10
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), new["batch_stats"]

        return jax.value_and_grad(loss, has_aux=True)(params)

    (loss, statistics), gradients = step(
        variables["params"], variables["batch_stats"], images(64, 8).transpose(0, 2, 3, 1)
    )
    golden = dict(GRADIENTS[arch])
    assert abs(float(loss) / golden.pop("loss") - 1) <= 1e-3
    found = flatten({"params": gradients, "batch_stats": statistics})
    entries = leaf_names({path: leaf.ndim for path, leaf in found.items()}, "torchvision")
    assert entries is not None
    largest = max(golden[name][0] for name in golden if not name.endswith(("mean", "var")))
    assert {entry.name for entry in entries.values()} == set(golden)
    for path, entry in entries.items():
        ours = np.array(summary(entry.name, to_theirs(np.asarray(found[path]), entry.layout)))
        theirs = np.array(golden[entry.name])
        # A bias before a batch norm has the gradient 0, up to rounding.
        scale = max(theirs[0], 1e-4 * largest) if path.startswith("params/") else theirs[0]
        assert np.max(np.abs(ours - theirs)) <= 1e-3 * scale, path
