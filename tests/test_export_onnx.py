"""A run as ONNX gives the run's own probabilities in onnxruntime. Needs the extra `onnx`."""

import json
from pathlib import Path

import numpy as np
import pytest

from jaxcnn.cli import main
from jaxcnn.config import ModelConfig
from jaxcnn.export import onnx_file
from jaxcnn.export.serving import largest_difference, own_predictions, sample_batches, served
from tests.test_export import CLASSES, make_run

pytest.importorskip("jax2onnx", reason="needs the extra 'onnx'")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra 'onnx'")


def test_the_command_writes_a_file_with_its_description_inside(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run = make_run(tmp_path / "run", ModelConfig("resnet8", width=4, dtype="bfloat16"))
    assert main(["export", str(run), "--format", "onnx"]) == 0
    told = capsys.readouterr().out
    assert "checked in a process with onnxruntime alone, on batches of 1, 3, 32 images" in told
    session = onnxruntime.InferenceSession(run / "model.onnx")
    (images,), (probabilities,) = session.get_inputs(), session.get_outputs()
    assert (images.name, images.type, images.shape) == ("images", "tensor(uint8)", ["batch", 12, 12, 3])
    assert (probabilities.name, probabilities.type) == ("probabilities", "tensor(float)")
    inside = json.loads(session.get_modelmeta().custom_metadata_map["jaxcnn"])
    beside = json.loads((run / "model.onnx.json").read_text())
    assert inside["class_names"] == list(CLASSES)
    assert {**inside, "checked": beside["checked"]} == beside
    assert beside["compute_dtype"] == "float32"  # though the run's is bfloat16, which onnxruntime lacks on CPU
    assert beside["checked"]["largest_difference"] < 1e-5


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (ModelConfig("resnet18", width=4, stage_sizes=(1, 1), stem="imagenet", activation="tanh"), (19, 16, 3)),
        (ModelConfig("resnet18d", width=4, stage_sizes=(1, 1)), (17, 16, 3)),
        (ModelConfig("vgg11", width=4, stage_sizes=(1, 1), norm="batch"), (13, 13, 1)),
        pytest.param(ModelConfig("vgg11", width=4, neck="dense", stage_sizes=(1,)), (8, 8, 3), marks=pytest.mark.slow),
        (ModelConfig("seresnet18", width=8, stage_sizes=(1, 1), norm="instance", activation="elu"), (8, 8, 3)),
        (
            ModelConfig("resnetv2_50", width=4, stage_sizes=(2,), weight_standardisation=True, activation="gelu"),
            (8, 8, 3),
        ),
        (ModelConfig("resnext50_32x4d", width=32, stage_sizes=(1,), norm="none", activation="hard_swish"), (8, 8, 3)),
    ],
    ids=lambda value: value.name if isinstance(value, ModelConfig) else "",
)
def test_all_kinds_of_networks_give_the_same_probabilities(
    tmp_path: Path, model: ModelConfig, shape: tuple[int, int, int]
) -> None:
    """Padding before a max-pool counts, too: with tanh, zeros in its place would be larger than what is there."""
    of = served(make_run(tmp_path / "run", model, shape), "best", dtype="float32")
    session = onnxruntime.InferenceSession(onnx_file.to_onnx(of)[0].SerializeToString())
    batches = sample_batches(shape)
    found = [session.run(["probabilities"], {"images": batch})[0] for batch in batches]
    ours = own_predictions(of, batches)
    assert np.ptp(ours[2]) > 0.05
    assert largest_difference(ours, found) < 1e-5


def test_what_the_converter_cannot_do_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(onnx_file, "RULES", {})
    run = make_run(tmp_path / "run", ModelConfig("resnet8", width=4))
    assert main(["export", str(run), "--format", "onnx"]) == 1
    told = capsys.readouterr().err
    assert told.startswith("error: jax2onnx cannot convert resnet8: ")
    assert told.count("\n") == 1
    assert not (run / "model.onnx").exists()
