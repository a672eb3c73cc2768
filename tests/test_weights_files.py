"""Reading files of weights: formats, wrappers, and bad files, each of which is told in one line."""

import io
import json
import os
import pickle
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxcnn.config import DataConfig, ModelConfig
from jaxcnn.errors import InputError
from jaxcnn.paths import flatten
from jaxcnn.weights.exporter import to_torch
from jaxcnn.weights.files import Hints, Weights, read_weights, unwrap_names
from jaxcnn.weights.imported_run import class_names_of
from jaxcnn.weights.importer import filled, fit, preprocessing_for, statistics_told
from jaxcnn.weights.report import Report
from jaxcnn.weights.torch_files import pickled_names
from tests.golden.rebuild import imported, network_of, state_dict


class Command:
    """Unpickled without care, it runs a command."""

    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self):
        return os.system, (f"touch {self.trace}",)


@pytest.fixture(scope="module")
def resnet20() -> dict[str, np.ndarray]:
    return state_dict("resnet20", "akamaster")


def bad_file(kind: str, folder: Path, good: dict[str, np.ndarray]) -> Path:
    file = folder / f"{kind}.{'pth' if 'pickle' in kind or 'zip' in kind else 'safetensors'}"
    if kind == "truncated":
        save_file(good, file)
        file.write_bytes(file.read_bytes()[:100_000])
    elif kind in ("text", "text_pickle"):
        file.write_text("these are not weights\n" * 10)
    elif kind == "empty":
        file.write_bytes(b"")
    elif kind == "pickle_truncated":
        file.write_bytes(pickle.dumps({"conv1.weight": list(range(1000))}, protocol=2)[:500])
    elif kind == "zip_truncated":
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps({}))
        file.write_bytes(file.read_bytes()[:-30])
    elif kind == "folder":
        file.mkdir()
    return file


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("truncated", "truncated or not a safetensors file"),
        ("text", "truncated or not a safetensors file"),
        ("empty", "truncated or not a safetensors file"),
        ("text_pickle", "not a PyTorch checkpoint"),
        ("pickle_truncated", "truncated or not a PyTorch checkpoint"),
        ("zip_truncated", "truncated or not a PyTorch checkpoint"),
        ("folder", "is a folder"),
        ("missing", "no file of weights"),
    ],
)
def test_a_bad_file_is_told_in_one_line(kind: str, message: str, tmp_path: Path, resnet20: dict) -> None:
    file = bad_file(kind, tmp_path, resnet20)
    with pytest.raises(InputError, match=message) as caught:
        read_weights(str(file))
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("zipped", [False, True])
def test_a_pickle_with_foreign_globals_is_refused_and_nothing_runs(zipped: bool, protocol: int, tmp_path: Path) -> None:
    trace, file = tmp_path / "executed", tmp_path / "evil.pth"
    payload = pickle.dumps({"conv1.weight": Command(trace)}, protocol=protocol)
    if zipped:
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("archive/data.pkl", payload)
    else:
        file.write_bytes(payload)
    with pytest.raises(InputError, match=r"refused, its pickle names \w+\.system.*nothing was executed"):
        read_weights(str(file))
    assert not trace.exists()


def test_names_in_several_pickles_of_one_file_are_all_found(tmp_path: Path) -> None:
    stream = io.BytesIO()
    for content in (1, {"a": 2}, io.StringIO):
        pickle.dump(content, stream, protocol=2)
    (tmp_path / "legacy.pth").write_bytes(stream.getvalue())
    assert pickled_names(tmp_path / "legacy.pth") == ["_io.StringIO"]


def test_without_torch_a_checkpoint_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    (tmp_path / "model.pth").write_bytes(pickle.dumps({}, protocol=2))
    with pytest.raises(InputError, match=r'pip install "jaxcnn\[torch\]"'):
        read_weights(str(tmp_path / "model.pth"))


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
def test_wrapped_and_prefixed_checkpoints_are_read(wrapper: str | None, tmp_path: Path, resnet20: dict) -> None:
    torch = pytest.importorskip("torch", reason="needs the extra 'torch'")
    content = {f"module.{name}": torch.from_numpy(array) for name, array in resnet20.items()}
    file = tmp_path / "model.th"
    torch.save({wrapper: content, "epoch": 3} if wrapper else content, file, _use_new_zipfile_serialization=not wrapper)
    tensors = read_weights(str(file)).tensors
    assert tensors.keys() == resnet20.keys()
    assert all(np.array_equal(tensors[name], array) for name, array in resnet20.items())
    file.write_bytes(file.read_bytes()[:-2000])
    with pytest.raises(InputError, match="truncated"):
        read_weights(str(file))


def test_half_precision_is_widened_and_metadata_kept(tmp_path: Path) -> None:
    kernel = np.arange(8, dtype=np.float16)
    told = {"mean": "[127.5, 0, 51]", "std": "[255, 255, 255]", "pixel_range": "0-255", "input_order": "BGR"}
    save_file({"module.x": kernel}, tmp_path / "half.safetensors", {**told, "class_names": '["a", "b"]'})
    weights = read_weights(str(tmp_path / "half.safetensors"))
    assert weights.tensors["x"].dtype == np.float32
    assert weights.hints == Hints((0.5, 0.0, 0.2), (1.0, 1.0, 1.0), "BGR")
    assert weights.class_names == ("a", "b")
    assert preprocessing_for(weights.hints, (8, 8, 3)).mean == (0.2, 0.0, 0.5)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("class_names", "5"),
        ("class_names", '["a", 3]'),
        ("class_names", '["a", "a"]'),
        ("mean", '"abc"'),
        ("mean", '[0.5, "x", 1]'),
        ("std", "[true]"),
        ("mean", "[0.5"),
        ("image_size", "0"),
        ("crop_share", "1.5"),
    ],
)
def test_metadata_of_another_kind_is_told_in_one_line(name: str, value: str, tmp_path: Path) -> None:
    save_file({"x": np.zeros(2, np.float32)}, tmp_path / "told.safetensors", {name: value})
    with pytest.raises(InputError, match=f"its metadata has {name}") as caught:
        read_weights(str(tmp_path / "told.safetensors"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "hints",
    [
        Hints(std=(0.0, 0.1, 0.1)),
        Hints(std=(-0.1, 0.1, 0.1)),
        Hints(std=(float("nan"), 0.1, 0.1)),
        Hints(mean=(float("inf"), 0.1, 0.1)),
    ],
)
def test_statistics_that_no_image_can_be_divided_by_are_refused(hints: Hints) -> None:
    with pytest.raises(InputError, match="a std above 0"):
        preprocessing_for(hints, (8, 8, 3))


def test_whose_mean_and_std_are_taken_is_told_of_each() -> None:
    three = (0.5, 0.5, 0.5)
    assert statistics_told(Hints(three, three)) == "the source's own"
    assert "own mean, ImageNet's std" in statistics_told(Hints(mean=three))
    assert "own std, ImageNet's mean" in statistics_told(Hints(std=three))
    assert "ImageNet's, the source" in statistics_told(Hints())


def test_a_parameter_that_asks_for_its_gradient_is_read(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="needs the extra 'torch'")
    torch.save({"x": torch.nn.Parameter(torch.ones(2))}, tmp_path / "model.pth")
    assert np.array_equal(read_weights(str(tmp_path / "model.pth")).tensors["x"], np.ones(2, np.float32))


def test_another_architecture_is_told_with_both_sides_of_the_names(tmp_path: Path, resnet20: dict) -> None:
    save_file(resnet20, tmp_path / "resnet20.safetensors")
    with pytest.raises(InputError) as caught:
        imported(tmp_path / "resnet20.safetensors", "resnet32", 32)
    assert "missing: layer1.3" in str(caught.value)
    assert "(params/backbone/stage1/block4/" in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"unexpected: layer1\.1\.") as caught:
        imported(tmp_path / "resnet20.safetensors", "resnet8", 32)
    with pytest.raises(InputError, match=r"mismatched: layer1\.0\.conv1\.weight is \(16, 16, 3, 3\), exp"):
        imported(tmp_path / "resnet20.safetensors", "resnet18", 32)


@pytest.mark.parametrize("name", ["resnet50", "timm/", "timm/resnet 50", "timm/a/b", "timm/a..b"])
def test_a_malformed_hub_name_is_told_as_such(name: str) -> None:
    with pytest.raises(InputError, match=f"hf-hub:{name} is no hub name: expected hf-hub:OWNER/NAME"):
        read_weights(f"hf-hub:{name}")


def test_prefixes_of_wrappers_are_taken_off_one_after_the_other() -> None:
    assert unwrap_names({"module.model.a": 1, "module.model.b": 2}) == {"a": 1, "b": 2}
    assert unwrap_names({"model.module.a": 1}) == {"a": 1}
    assert unwrap_names({"model.a": 1, "b": 2}) == {"model.a": 1, "b": 2}


def test_pth_tar_is_a_checkpoint(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="needs the extra 'torch'")
    torch.save({"state_dict": {"x": torch.ones(2)}}, tmp_path / "model.pth.tar")
    assert read_weights(str(tmp_path / "model.pth.tar")).tensors["x"].shape == (2,)


def test_a_report_lists_twenty_names_and_counts_the_others() -> None:
    names = [f"layer{number}" for number in range(25)]
    assert str(Report(missing=names[:20])) == f"20 missing: {', '.join(names[:20])}"
    assert str(Report(missing=names)) == f"25 missing: {', '.join(names[:20])} and 5 more"


def test_weights_that_are_not_finite_are_named(tmp_path: Path, resnet20: dict) -> None:
    broken = dict(resnet20)
    broken["layer2.0.conv1.weight"] = resnet20["layer2.0.conv1.weight"].copy()
    broken["layer2.0.conv1.weight"][0, 0, 0, :2] = np.nan
    save_file(broken, tmp_path / "nan.safetensors")
    with pytest.raises(InputError, match=r"NaN or infinite weights: layer2\.0\.conv1\.weight \(2 of 4,608 values\)"):
        imported(tmp_path / "nan.safetensors", "resnet20", 32)


def test_a_head_of_other_classes_starts_anew_and_the_rest_is_kept(tmp_path: Path, resnet20: dict) -> None:
    other = {**resnet20, "linear.weight": np.ones((7, 64), np.float32), "linear.bias": np.ones(7, np.float32)}
    save_file(other, tmp_path / "seven.safetensors")
    network, fitted = imported(tmp_path / "seven.safetensors", "resnet20", 32)
    assert set(fitted.anew) == {"params/head/kernel", "params/head/bias"}
    assert "10 classes" in fitted.notes[0]
    drawn = jax.tree.map(lambda leaf: np.full(leaf.shape, 5.0, np.float32), network.shapes)
    leaves = flatten(filled(drawn, fitted))
    assert (leaves["params/head/kernel"] == 5).all()
    assert np.array_equal(leaves["params/backbone/stem/conv/kernel"], resnet20["conv1.weight"].transpose(2, 3, 1, 0))


@pytest.mark.parametrize("left_out", ["linear.bias", "linear.weight"])
def test_an_incomplete_head_is_missing_and_not_drawn_anew(left_out: str, tmp_path: Path, resnet20: dict) -> None:
    partial = {name: array for name, array in resnet20.items() if name != left_out}
    save_file(partial, tmp_path / "partial.safetensors")
    with pytest.raises(InputError, match=f"1 missing: {left_out}"):
        imported(tmp_path / "partial.safetensors", "resnet20", 32)
    assert len(class_names_of(read_weights(str(tmp_path / "partial.safetensors")), None, DataConfig())) == 10


def test_a_file_without_a_head_gives_a_backbone(tmp_path: Path, resnet20: dict) -> None:
    save_file({n: a for n, a in resnet20.items() if not n.startswith("linear.")}, tmp_path / "body.safetensors")
    assert set(imported(tmp_path / "body.safetensors", "resnet20", 32)[1].anew) == {
        "params/head/kernel",
        "params/head/bias",
    }


def test_an_incomplete_neck_is_missing(tmp_path: Path) -> None:
    shapes = flatten(network_of("vgg11", 224, given=ModelConfig(neck="dense", width=8)).shapes)
    tensors = {path: np.ones(leaf.shape, np.float32) for path, leaf in shapes.items()}
    del tensors["params/neck/fc2/bias"]
    with pytest.raises(InputError, match="1 missing: params/neck/fc2/bias"):
        fit(Weights("here", tensors), shapes, "vgg11")


def test_colour_weights_are_summed_for_grey_images(tmp_path: Path, resnet20: dict) -> None:
    save_file(resnet20, tmp_path / "resnet20.safetensors")
    weights = read_weights(str(tmp_path / "resnet20.safetensors"))
    shapes = flatten(network_of("resnet20", 32, weights).shapes)
    path = "params/backbone/stem/conv/kernel"
    fitted = fit(weights, {**shapes, path: jax.ShapeDtypeStruct((3, 3, 1, 16), np.float32)}, "resnet20")
    assert np.allclose(fitted.leaves[path][:, :, 0], resnet20["conv1.weight"].sum(axis=1).transpose(1, 2, 0))
    assert "summed" in fitted.notes[0]


@pytest.mark.parametrize("arch", ["resnet18", "resnet18d", "seresnet18", "resnetv2_18", "resnet20"])
def test_export_is_the_inverse_of_import(arch: str, tmp_path: Path) -> None:
    dialect = "akamaster" if arch == "resnet20" else "timm"
    tensors = state_dict(arch, dialect)
    save_file(tensors, tmp_path / "there.safetensors", {"mean": json.dumps([0.5] * 3)})
    network, fitted = imported(tmp_path / "there.safetensors", arch, 64)
    back = to_torch(filled(network.shapes, fitted), "timm", ModelConfig(arch), network.model)
    assert back.keys() == tensors.keys()
    assert all(np.array_equal(back[name], array) for name, array in tensors.items())
