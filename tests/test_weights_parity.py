"""The same weights give the same numbers as PyTorch and Keras: the outputs that `golden/make_golden.py` kept."""

import functools
import json
from pathlib import Path
from typing import Any

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
    "torchvision/wide_resnet50_2",
    "timm/resnet18d",
    "timm/seresnet18",
    "timm/resnetv2_18",
    "timm/resnet50_gn",
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


def one_step(model: Any, variables: dict[str, Any], x: np.ndarray) -> tuple[Any, Any]:
    """((loss, new running statistics), gradients) for images [8, H, W, 3] of the classes 0 to 7."""

    def loss(params):
        both = {"params": params, "batch_stats": variables["batch_stats"]}
        logits, new = model.apply(both, x, train=True, mutable=["batch_stats"])
        labels = jnp.arange(8) % 10
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), new["batch_stats"]

    return jax.jit(jax.value_and_grad(loss, has_aux=True))(variables["params"])


# For ResNet-50 on these 8 images PyTorch's own float32 gradients are 2.9e-3 from its float64 ones: rounding, by ReLUs
# that switch. In float64 the agreement shows.
@pytest.mark.parametrize(
    ("arch", "dtype", "tolerance"),
    [
        ("resnet18", jnp.float32, 1e-3),
        pytest.param("vgg11_bn", jnp.float32, 1e-3, marks=pytest.mark.slow),
        pytest.param("resnet18", jnp.float64, 1e-5, marks=pytest.mark.slow),
        pytest.param("resnet50", jnp.float64, 1e-5, marks=pytest.mark.slow),
        pytest.param("vgg11_bn", jnp.float64, 1e-5, marks=pytest.mark.slow),
    ],
)
def test_gradients_and_running_statistics_of_a_step_are_those_of_pytorch(
    arch: str, dtype: Any, tolerance: float, file: Path
) -> None:
    save_file(state_dict(arch, "torchvision"), file)
    network, fitted = imported(file, arch, 64, ModelConfig(dropout=0.0))
    with jax.enable_x64(dtype == jnp.float64):
        backbone = network.model.backbone
        conv = functools.partial(backbone.conv, dtype=dtype)
        neck = network.model.neck and network.model.neck.clone(dtype=dtype)
        model = network.model.clone(backbone=backbone.clone(conv=conv), neck=neck)
        variables = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), unflatten(fitted.leaves))
        x = jnp.asarray(images(64, 8).transpose(0, 2, 3, 1), dtype)
        (loss, statistics), gradients = jax.device_get(one_step(model, variables, x))
    golden = dict(GRADIENTS[arch])
    assert abs(float(loss) / golden.pop("loss") - 1) <= tolerance
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
        assert np.max(np.abs(ours - theirs)) <= tolerance * scale, path
