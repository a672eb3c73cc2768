"""Real weights from PyTorch users: accuracy as published, and the way back into PyTorch. Needs JAXCNN_TEST_DATA."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from jaxcnn.cli import main
from jaxcnn.predict import load_run
from jaxcnn.run_folder import RunFolder
from jaxcnn.weights.exporter import to_torch

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        "JAXCNN_TEST_DATA" not in os.environ, reason="JAXCNN_TEST_DATA (folder of real data) is not set"
    ),
]
FOLDER = Path(os.environ.get("JAXCNN_TEST_DATA", "."))


@pytest.mark.parametrize(
    ("arch", "file", "percent"),
    [("resnet20", "resnet20-12fca82f.th", 91.73), ("resnet56", "resnet56-4bfd9763.th", 93.39)],
)
def test_cifar_resnets_reach_their_published_accuracy(
    arch: str, file: str, percent: float, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    pytest.importorskip("torch", reason="needs the extra 'torch'")
    run = tmp_path / "run"
    source = str(FOLDER / "weights" / file)
    assert main(["weights", "import", source, "--arch", arch, "--out", str(run)]) == 0
    capsys.readouterr()
    data = ["--data.name", "cifar10", "--data.data-dir", str(FOLDER / "data" / "tfds"), "--split", "test"]
    assert main(["evaluate", str(run), *data, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["examples"] == 10_000
    assert round(100 * figures["top1"], 2) == percent


def test_an_exported_network_loads_strictly_in_pytorch_with_the_same_logits(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="needs the extra 'torch'")
    make_golden = pytest.importorskip("tests.golden.make_golden", reason="needs torchvision and timm")
    run, target = tmp_path / "run", tmp_path / "back.safetensors"
    source = str(FOLDER / "weights" / "resnet20-12fca82f.th")
    assert main(["weights", "import", source, "--arch", "resnet20", "--out", str(run)]) == 0
    assert main(["weights", "export", str(run), str(target), "--format", "torchvision"]) == 0
    model = make_golden.CifarResNet(20).eval()
    model.load_state_dict({name: torch.from_numpy(array) for name, array in load_file(target).items()}, strict=True)
    loaded = load_run(run)
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), np.uint8)
    ours = np.asarray(loaded.model.apply(loaded.variables, loaded.network.normalise(images)))
    x = np.asarray(loaded.network.normalise(images)).transpose(0, 3, 1, 2)
    with torch.no_grad():
        theirs = model(torch.from_numpy(x.copy())).numpy()
    assert np.max(np.abs(ours - theirs)) <= 1e-4 * np.max(np.abs(theirs))


def test_vgg16_without_its_dense_layers_is_imported_with_its_own_statistics(tmp_path: Path) -> None:
    run, source = tmp_path / "run", FOLDER / "weights" / "vgg16_caffe_notop.safetensors"
    more = ["--image-size", "128", "--classes", "10"]
    assert main(["weights", "import", str(source), "--arch", "vgg16", "--out", str(run), *more]) == 0
    preprocessing = RunFolder(run).preprocessing
    assert preprocessing.std == pytest.approx((1 / 255,) * 3)
    assert preprocessing.mean == pytest.approx((0.48502, 0.457957, 0.407604), abs=1e-5)
    loaded = load_run(run)
    assert loaded.variables["params"]["head"]["kernel"].shape == (512, 10)
    back = to_torch(loaded.variables, "torchvision", RunFolder(run).config.model, loaded.model)
    assert all(np.array_equal(back[name], array) for name, array in load_file(source).items())
