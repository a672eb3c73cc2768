"""`jaxcnn weights import|export|compare` and `init_from` a file, from end to end on a ResNet-8."""

import dataclasses
import json
import logging
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from jaxcnn.build import build_job
from jaxcnn.cli import main
from jaxcnn.config import Preprocessing, TrainConfig
from jaxcnn.data.decode import resize_and_centre_crop
from jaxcnn.network import build_network
from jaxcnn.predict import load_run
from jaxcnn.run_folder import RunFolder
from jaxcnn.start import initial_variables
from jaxcnn.weights.imported_run import numbered
from tests.golden.rebuild import state_dict

MEAN, STD = [0.5, 0.4, 0.3], [0.25, 0.25, 0.25]


@pytest.fixture(scope="module")
def tensors() -> dict[str, np.ndarray]:
    return state_dict("resnet8", "akamaster")


@pytest.fixture
def file(tmp_path: Path, tensors: dict) -> Path:
    save_file(tensors, tmp_path / "resnet8.safetensors", {"mean": json.dumps(MEAN), "std": json.dumps(STD)})
    return tmp_path / "resnet8.safetensors"


def imported(file: Path, out: Path, *more: str) -> Path:
    assert main(["weights", "import", str(file), "--arch", "resnet8", "--out", str(out), *more]) == 0
    return out


def test_an_imported_run_is_evaluated_on_a_data_set_with_as_many_classes(
    file: Path, tmp_path: Path, digits_dir: str, capsys: pytest.CaptureFixture
) -> None:
    run = imported(file, tmp_path / "run", "--channels", "1", "--image-size", "28")
    told = RunFolder(run)
    assert told.preprocessing.mean == pytest.approx((0.4,))
    assert told.class_names[3] == "class 3"
    data = ["--data.data-dir", digits_dir, "--data.test-split", "test[:50]"]
    capsys.readouterr()
    assert main(["evaluate", str(run), *data]) == 2
    told = f"error: {run} was imported without a data set: give --data.name NAME, or --data.source\n"
    assert capsys.readouterr().err == told
    data += ["--data.name", "mnist5k"]
    assert main(["evaluate", str(run), *data, "--evaluation.batch-size", "25", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["examples"], figures["step"]) == (50, 0)


def test_a_run_with_the_classes_of_a_data_set_is_evaluated_on_it(
    file: Path, tmp_path: Path, digits_dir: str, capsys: pytest.CaptureFixture
) -> None:
    grey = ["--channels", "1", "--image-size", "28"]
    run = imported(file, tmp_path / "run", *grey, "--classes", "mnist5k", "--data-dir", digits_dir)
    assert RunFolder(run).has_data
    assert main(["evaluate", str(run), "--data.test-split", "test[:50]", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["examples"] == 50


def test_what_was_imported_is_not_resumed(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run = imported(file, tmp_path / "run")
    assert main(["train", "--workdir", str(run), "--resume"]) == 2
    assert "--init-from" in capsys.readouterr().err
    assert main(["weights", "import", str(file), "--arch", "resnet8", "--out", str(run)]) == 2
    assert capsys.readouterr().err == f"error: --out {run} already holds a run: choose another\n"


@pytest.mark.parametrize("arch", ["resnet20", "resnet-8"])
def test_a_failed_import_leaves_nothing(arch: str, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    before = sorted(tmp_path.iterdir())
    assert main(["weights", "import", str(file), "--arch", arch, "--out", str(tmp_path / "run")]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert sorted(tmp_path.iterdir()) == before


def test_class_names_come_from_a_file_and_travel_with_an_export(file: Path, tmp_path: Path, tensors: dict) -> None:
    names = [f"thing {label}" for label in range(10)]
    (tmp_path / "names.txt").write_text("\n".join(names) + "\n")
    run = imported(file, tmp_path / "run", "--classes", str(tmp_path / "names.txt"))
    target = tmp_path / "out.safetensors"
    assert main(["weights", "export", str(run), str(target), "--format", "torchvision"]) == 0
    back = load_file(target)
    assert back.keys() == tensors.keys()
    assert all(np.array_equal(back[name], array) for name, array in tensors.items())
    again = imported(target, tmp_path / "again")
    assert RunFolder(again).class_names == tuple(names)
    assert RunFolder(again).preprocessing == RunFolder(run).preprocessing
    with safe_open(target, "np") as opened:
        assert opened.metadata()["architecture"] == "resnet8"
    assert main(["weights", "export", str(run), str(target)]) == 2  # never overwritten


def test_an_imported_run_predicts_as_the_network_with_its_statistics(file: Path, tmp_path: Path) -> None:
    run = load_run(imported(file, tmp_path / "run"))
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    x = (images.astype(np.float32) / 255 - np.float32(MEAN)) / np.float32(STD)
    wanted = jax.nn.softmax(run.model.apply(run.variables, x))
    assert np.allclose(run.predict(images), wanted, atol=1e-5)


def test_init_from_a_file_takes_its_weights_and_statistics(
    file: Path, tiny_config: TrainConfig, tensors: dict, caplog: pytest.LogCaptureFixture
) -> None:
    model = dataclasses.replace(tiny_config.model, width=16)
    config = dataclasses.replace(tiny_config, model=model, init_from=str(file))
    job = build_job(config)
    assert job.network.preprocessing.mean == pytest.approx((0.4,))
    kernel = job.initial_state().params["backbone"]["stem"]["conv"]["kernel"]
    assert np.allclose(kernel[:, :, 0], tensors["conv1.weight"].sum(axis=1).transpose(1, 2, 0))
    colour = dataclasses.replace(config, data=dataclasses.replace(config.data, channels=3))
    job = build_job(colour)
    assert job.network.preprocessing.mean == pytest.approx(MEAN)
    assert job.feed.image_shape == (28, 28, 3)
    kernel = job.initial_state().params["backbone"]["stem"]["conv"]["kernel"]
    assert np.array_equal(kernel, tensors["conv1.weight"].transpose(2, 3, 1, 0))


def test_init_from_tells_that_a_kept_head_was_for_other_classes(
    file: Path,
    tmp_path: Path,
    tiny_config: TrainConfig,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "names.txt").write_text("\n".join(f"thing {label}" for label in range(10)))
    run = imported(file, tmp_path / "run", "--classes", str(tmp_path / "names.txt"))
    model = dataclasses.replace(tiny_config.model, width=16)
    config = dataclasses.replace(tiny_config, model=model, init_from=str(run))
    network = build_network(config, Preprocessing((28, 28, 1), (0.5,), (0.5,)), numbered(10))
    monkeypatch.setattr(logging.getLogger("jaxcnn"), "propagate", True)
    with caplog.at_level("INFO", logger="jaxcnn"):
        variables = initial_variables(config, network)
    assert "the head is kept, but its class 0 was 'thing 0' and is 'class 0' now" in caplog.text  # ours have no names
    assert np.array_equal(variables["params"]["head"]["kernel"], load_run(run).variables["params"]["head"]["kernel"])


def test_compare_names_the_first_layer_and_the_reason(
    file: Path, tmp_path: Path, tensors: dict, capsys: pytest.CaptureFixture
) -> None:
    run = imported(file, tmp_path / "run")

    def compared(changed: dict, metadata: dict[str, str]) -> str:
        save_file({**tensors, **changed}, tmp_path / "other.safetensors", metadata)
        capsys.readouterr()
        assert main(["weights", "compare", str(run), str(tmp_path / "other.safetensors")]) == 0
        return capsys.readouterr().out

    assert "no difference: " in compared({}, {})
    told = {"mean": json.dumps(MEAN), "std": json.dumps([0.5] * 3)}
    out = compared({}, told)
    assert "the input" in out
    assert "normalisation" in out
    assert "with equal inputs there is no difference" in out
    assert "channel order" in compared({"conv1.weight": tensors["conv1.weight"][:, ::-1].copy()}, {})
    out = compared({"layer2.0.bn1.running_mean": tensors["layer2.0.bn1.running_mean"] + 1}, {})
    assert "backbone/stage2/block1/norm1" in out
    assert "momentum" in out
    seven = {"linear.weight": np.ones((7, 64), np.float32), "linear.bias": np.ones(7, np.float32)}
    out = compared(seven, {"image_size": "40"})
    assert "not compared, since" in out
    assert "params/head/kernel" in out
    assert "image size: (32, 32) in one, (40, 40) in the other" in out
    assert "with equal inputs there is no difference" in out
    compared({"layer2.0.bn1.running_mean": tensors["layer2.0.bn1.running_mean"] + 1}, {})
    assert main(["weights", "compare", str(run), str(tmp_path / "other.safetensors"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["differences"][0]["layer"] == "backbone/stage2/block1/norm1"


def test_an_imported_run_is_itself_a_source(file: Path, tmp_path: Path) -> None:
    run = imported(file, tmp_path / "run", "--image-size", "40", "--crop-share", "0.8")
    again = imported(run, tmp_path / "again")
    assert RunFolder(again).preprocessing == RunFolder(run).preprocessing
    assert RunFolder(again).config == RunFolder(run).config
    same = jax.tree.map(np.array_equal, load_run(run).variables, load_run(again).variables)
    assert all(jax.tree.leaves(same))


@pytest.mark.parametrize("name", ["text.safetensors", "text.pth", "folder", "missing.pth", "model.onnx"])
def test_a_bad_file_is_one_line_and_exit_code_2(name: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    bad = tmp_path / name
    if name == "folder":
        bad.mkdir()
    elif name != "missing.pth":
        bad.write_text("not weights, but text")
    assert main(["weights", "import", str(bad), "--arch", "resnet8", "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert str(bad) in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "more",
    [
        ["--std", "0", "0", "0", "--mean", "0", "0", "0"],
        ["--image-size", "0"],
        ["--model.stem", "deep", "--model.width", "1"],
    ],
)
def test_a_bad_value_is_one_line_and_exit_code_2(
    more: list[str], file: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(["weights", "import", str(file), "--arch", "resnet8", "--out", str(tmp_path / "run"), *more]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    "more",
    [["--images", "0"], ["--images", "-1"], ["--tolerance", "nan"], ["--tolerance", "0"], ["--tolerance", "inf"]],
)
def test_compare_refuses_what_compares_nothing(more: list[str], capsys: pytest.CaptureFixture) -> None:
    assert main(["weights", "compare", "a", "b", *more]) == 2
    assert capsys.readouterr().err.startswith(f"error: {more[0]}")


@pytest.mark.parametrize("text", ['{"a": 0}', '["a", 1]', "cat\ncat", "", "[]"])
def test_class_names_that_are_none_are_told_in_one_line(
    text: str, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    names = tmp_path / "names"
    names.write_text(text)
    more = ["--arch", "resnet8", "--out", str(tmp_path / "run"), "--classes", str(names)]
    assert main(["weights", "import", str(file), *more]) == 2
    assert f"--classes {names}: what it holds is not" in capsys.readouterr().err


def test_the_crop_keeps_its_share_of_the_resized_image() -> None:
    image = np.random.default_rng(0).integers(0, 256, (96, 64, 3), np.uint8)
    cropped = resize_and_centre_crop(image, 56, 56, crop_share=0.875)
    assert np.array_equal(cropped, image[20:76, 4:60])  # the short side is 56 / 0.875 = 64 already


def test_a_hub_name_is_read_from_the_cache_without_a_network(
    tmp_path: Path, tensors: dict, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    constants = pytest.importorskip("huggingface_hub.constants", reason="needs the extra 'hub'")
    repository = tmp_path / "hub" / "models--timm--resnet8.test"
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    save_file(tensors, snapshot / "model.safetensors")
    told = {"mean": MEAN, "std": STD, "input_size": [3, 40, 40], "crop_pct": 0.8}
    (snapshot / "config.json").write_text(json.dumps({"architecture": "resnet8", "pretrained_cfg": told}))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    run = imported(Path("hf-hub:timm/resnet8.test"), tmp_path / "run")
    preprocessing = RunFolder(run).preprocessing
    assert preprocessing.image_shape == (40, 40, 3)
    assert (preprocessing.mean, preprocessing.crop_share) == (tuple(MEAN), 0.8)
    assert main(["weights", "import", "hf-hub:timm/none", "--arch", "resnet8", "--out", str(tmp_path / "x")]) == 2
    assert "neither in the cache nor reachable" in capsys.readouterr().err
