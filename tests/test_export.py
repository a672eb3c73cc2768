"""An exported file gives the run's own probabilities where nothing of jaxcnn can be imported."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.cli import main
from jaxcnn.config import ModelConfig, OptimConfig, Preprocessing, TrainConfig
from jaxcnn.data.decode import resize_and_centre_crop
from jaxcnn.errors import InputError, RunFailed
from jaxcnn.export import export_run, fresh
from jaxcnn.export.flattening import flattened
from jaxcnn.export.serving import largest_difference, own_predictions, sample_batches, served
from jaxcnn.export.stablehlo import to_stablehlo
from jaxcnn.network import build_network
from jaxcnn.predict import load_run
from jaxcnn.weights.imported_run import write_run

CLASSES = ("ant", "bee", "cow")


def make_run(folder: Path, model: ModelConfig, shape: tuple[int, int, int] = (12, 12, 3)) -> Path:
    """A run whose variables are all random, norms' scales and statistics too, so that each of them counts."""
    mean, std = (0.5, 0.4, 0.3)[: shape[2]], (0.2, 0.25, 0.3)[: shape[2]]
    preprocessing = Preprocessing(shape, mean, std, "RGB" if shape[2] == 3 else "grey", crop_share=0.75)
    config = TrainConfig(model=model, optim=OptimConfig(ema_decay=None))
    random = np.random.default_rng(0)

    def drawn(path: tuple, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        spread = 0.5 * random.standard_normal(leaf.shape, np.float32) / max(1, np.prod(leaf.shape[:-1])) ** 0.5
        return np.float32(1 + np.abs(spread) if path[-1].key in ("var", "scale") else spread * 3)

    shapes = build_network(config, preprocessing, CLASSES).shapes
    write_run(folder, config, CLASSES, preprocessing, jax.tree_util.tree_map_with_path(drawn, shapes), {"data": None})
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("export") / "run", ModelConfig("resnet8", width=4))


@pytest.fixture(scope="module")
def exported(run: Path) -> Path:
    assert main(["export", str(run)]) == 0
    return run / "model.stablehlo"


def test_the_file_runs_by_jax_alone_for_any_number_of_images(run: Path, exported: Path) -> None:
    program = jax.export.deserialize(bytearray(exported.read_bytes()))
    assert program.platforms == ("cpu", "cuda", "tpu")
    loaded = load_run(run)
    for count in (1, 5):
        images = np.random.default_rng(count).integers(0, 256, (count, 16, 16, 3), np.uint8)
        found = np.asarray(program.call(images[:, 2:14, 2:14]))  # predict keeps 0.75 of the side
        assert found.dtype == np.float32
        np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)
        np.testing.assert_allclose(found, loaded.predict(images), atol=1e-6)
        assert np.ptp(loaded.predict(images)) > 0.05  # not all the same, or this would show nothing


def test_the_program_has_no_code_of_ours_in_it(exported: Path) -> None:
    """All its calls are its own functions: nothing is looked up where it runs."""
    text = jax.export.deserialize(bytearray(exported.read_bytes())).mlir_module()
    assert "custom_call" not in text.replace("custom_call @shape_assertion", "")
    assert text.count("stablehlo.convolution(") == 3 * 7  # those of a ResNet-8, in a branch for each platform


def test_what_a_reader_has_to_know_is_beside_the_file(run: Path, exported: Path) -> None:
    told = json.loads(exported.with_name("model.stablehlo.json").read_text())
    assert told["class_names"] == list(CLASSES)
    assert told["input"]["shape"] == ["batch", 12, 12, 3]
    assert told["input"]["channel_order"] == "RGB"
    assert told["resize"]["cover"] == [16, 16]  # 12 / 0.75
    assert told["inside"]["std"] == [0.2, 0.25, 0.3]
    assert told["step"] == 0
    assert told["checked"]["batch_sizes"] == [1, 3, 32]
    assert told["checked"]["largest_difference"] < 1e-6
    assert told["versions"]["jax"] == jax.__version__


def test_a_file_is_not_overwritten_unasked(
    run: Path, exported: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    before = exported.read_bytes()
    monkeypatch.setattr("jaxcnn.export._made", lambda *_: pytest.fail("work was done"))
    assert main(["export", str(run)]) == 2
    assert "model.stablehlo exists already: choose another by --out, or replace it by --overwrite" in (
        capsys.readouterr().err
    )
    assert exported.read_bytes() == before


def test_a_file_that_computes_something_else_is_told_and_left(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def shifted(form: str, file: Path, batches: list[np.ndarray]) -> list[np.ndarray]:
        return [np.roll(load_run(run).predict(batch), 1, axis=1) for batch in batches]

    monkeypatch.setattr("jaxcnn.export.fresh.run_fresh", shifted)
    out = tmp_path / "wrong.stablehlo"
    assert main(["export", str(run), "--out", str(out)]) == 1
    assert "differs from the run's own predictions by" in capsys.readouterr().err
    assert out.is_file()


def test_other_shapes_types_and_numbers_are_never_a_small_difference() -> None:
    right = [np.full((2, 3), 1 / 3, np.float32)]
    assert largest_difference(right, right) == 0
    for wrong in (right[0][:1], right[0].astype(np.float64), np.full((2, 3), np.nan, np.float32)):
        assert largest_difference(right, [wrong]) == float("inf")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "no run folder nowhere"),
        (["RUN", "--checkpoint", "7", "--out", "OUT/a.stablehlo"], "7"),
        (
            ["RUN", "--checkpoint", "new", "--out", "OUT/a.stablehlo"],
            "--checkpoint 'new': best, latest or one of",
        ),
        (["RUN", "--out", "OUT/a.onnx"], "a file of --format stablehlo ends in .stablehlo"),
        (
            ["RUN", "--out", "OUT/a.stablehlo", "--platforms", "cpu,gpu"],
            "no platform 'gpu'; did you mean 'tpu'",
        ),
        (["RUN", "--out", "OUT/a.stablehlo", "--platforms", "cuda"], "cpu must be among them"),
        (["RUN", "--out", "OUT/a.stablehlo", "--platforms", "cpu,cpu"], "name each once"),
        (["RUN", "--out", "OUT/file/a.stablehlo"], "--out"),
    ],
)
def test_mistakes_are_told_in_one_line_and_nothing_is_written(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture, arguments: list[str], message: str
) -> None:
    (tmp_path / "file").write_text("")
    filled = [word.replace("RUN", str(run)).replace("OUT", str(tmp_path)) for word in arguments]
    assert main(["export", *filled]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(("form", "package"), [("stablehlo", "flatbuffers"), ("onnx", "jax2onnx")])
def test_a_missing_package_is_told_with_how_to_get_it(
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    form: str,
    package: str,
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    assert main(["export", str(run), "--format", form, "--out", str(tmp_path / f"a.{form}")]) == 2
    told = capsys.readouterr().err
    assert package in told
    assert f'pip install -e ".[{"export" if form == "stablehlo" else "onnx"}]"' in told


@pytest.mark.parametrize("package", ["jaxcnn", "flax", "optax", "orbax", "cv2"])
def test_the_fresh_process_has_only_the_packages_of_the_form(package: str) -> None:
    code = (
        "import runpy, sys; reader = runpy.run_path(sys.argv[1]);"
        "sys.meta_path[:] = [reader['Only'](each, reader['RUNTIME']['stablehlo']) for each in sys.meta_path];"
        "import numpy;"
        "__import__(sys.argv[2])"
    )
    reader = Path(fresh.__file__).with_name("reader.py")
    command = [sys.executable, "-I", "-c", code, str(reader), package]
    said = subprocess.run(command, capture_output=True, text=True).stderr
    assert f"No module named '{package}'" in said


def test_packages_outside_of_the_interpreter_are_found_in_the_fresh_process(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as those of `pip install --user`, or on PYTHONPATH; here the interpreter itself has none."""
    import venv

    venv.create(tmp_path / "bare", with_pip=False)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bare" / "bin" / "python"))
    monkeypatch.setenv("PYTHONPATH", str(Path(jax.__file__).parents[1]))
    (found,) = fresh.run_fresh("stablehlo", exported, [np.zeros((1, 12, 12, 3), np.uint8)])
    assert found.shape == (1, len(CLASSES))


def test_a_file_that_cannot_be_loaded_is_told_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "a.stablehlo").write_bytes(b"no program")
    with pytest.raises(RunFailed, match=r"a\.stablehlo cannot be run by itself: \w+"):
        fresh.run_fresh("stablehlo", tmp_path / "a.stablehlo", [np.zeros((1, 8, 8, 3), np.uint8)])


def test_a_form_that_there_is_not_is_told(run: Path) -> None:
    with pytest.raises(InputError, match="no format 'onx'; did you mean 'onnx'"):
        export_run(run, "onx")  # type: ignore[arg-type]


def test_images_to_check_with_are_different_and_of_all_values() -> None:
    batches = sample_batches((9, 7, 1))
    assert [batch.shape for batch in batches] == [(1, 9, 7, 1), (3, 9, 7, 1), (32, 9, 7, 1)]
    assert len({image.tobytes() for image in batches[2]}) == 32
    assert batches[2].min() < 10
    assert batches[2].max() > 245


def test_a_flattened_program_is_the_function_with_constants_computed() -> None:
    weight = jnp.arange(1.0, 4.0)

    def function(x: jax.Array) -> jax.Array:
        return jax.jit(lambda y: jax.nn.relu(y - 2))(x) * jnp.sqrt(weight + 1)

    x = jnp.array([1.0, 2.5, 4.0])
    rules = {"max": lambda a, b: jax.lax.mul(a, jnp.float32(10))}
    flat = flattened(function, jax.ShapeDtypeStruct((3,), jnp.float32), {})
    other = flattened(function, jax.ShapeDtypeStruct((3,), jnp.float32), rules)
    names = [equation.primitive.name for equation in jax.make_jaxpr(flat)(x).eqns]
    assert names == ["sub", "max", "mul"]
    np.testing.assert_allclose(jax.jit(flat)(x), np.maximum(x - 2, 0) * np.sqrt([2, 3, 4]), rtol=1e-6)
    np.testing.assert_allclose(jax.jit(other)(x), (x - 2) * 10 * np.sqrt([2, 3, 4]), rtol=1e-6)


def test_bad_input_to_the_python_entry_is_an_input_error(run: Path) -> None:
    with pytest.raises(InputError, match="ends in"):
        export_run(run, "onnx", run / "a.stablehlo")


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (ModelConfig("vgg11", width=4, stage_sizes=(1, 1)), (8, 8, 1)),
        (ModelConfig("seresnet18", width=8, stage_sizes=(1,), norm="group", num_groups=4), (8, 8, 3)),
        (ModelConfig("resnetv2_18", width=4, stage_sizes=(3,), stem="deep", scan_blocks=True), (16, 11, 3)),
        (ModelConfig("resnet8", width=4, stage_sizes=(1,), dtype="bfloat16", virtual_batch_size=16), (8, 8, 3)),
        # Its second dense layer has 67 MB of weights.
        pytest.param(ModelConfig("vgg11", width=4, neck="dense", stage_sizes=(1,)), (8, 8, 3), marks=pytest.mark.slow),
    ],
    ids=["vgg, grey", "squeeze, group norm", "preact, deep stem, loop", "bfloat16, virtual batch", "dense neck"],
)
def test_all_kinds_of_networks_are_exported_for_any_batch(
    tmp_path: Path, model: ModelConfig, shape: tuple[int, int, int]
) -> None:
    of = served(make_run(tmp_path / "run", model, shape), "best")
    content, _ = to_stablehlo(of, ("cpu", "tpu"))
    program = jax.export.deserialize(bytearray(content))
    assert str(program.in_avals[0].shape[0]) == "batch"
    batches = sample_batches(shape)[1:2]
    assert largest_difference(own_predictions(of, batches), [program.call(batch) for batch in batches]) <= of.tolerance


def test_the_documented_server_resizes_as_predict_does(
    run: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The code of docs/export.md, with a runtime that keeps what it is given, and without the network around it."""
    page = (Path(__file__).parent.parent / "docs" / "export.md").read_text()
    code = page.split("```python\n# server.py\n")[1].split("```")[0]
    assert len([line for line in code.splitlines() if line.strip()]) <= 24
    given = []

    class Session:
        def __init__(self, file: str):
            assert file == "model.onnx"

        def run(self, names: list[str], inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
            given.append(inputs["images"])
            return [np.array([[0.5, 0.25, 0.25]], np.float32)]

    web = SimpleNamespace(Body=lambda **_: None, HTTPException=RuntimeError)
    web.FastAPI = lambda: SimpleNamespace(post=lambda _: lambda function: function)
    monkeypatch.setitem(sys.modules, "fastapi", web)
    monkeypatch.setitem(sys.modules, "onnxruntime", SimpleNamespace(InferenceSession=Session))
    monkeypatch.chdir(tmp_path)
    shutil.copy(f"{exported}.json", "model.onnx.json")
    names: dict = {}
    exec(code, names)
    for height, width in ((40, 25), (9, 14), (12, 12)):
        image = np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)
        encoded = cv2.imencode(".png", image[..., ::-1])[1].tobytes()
        assert names["predict"](encoded) == {"ant": 0.5, "bee": 0.25, "cow": 0.25}
        np.testing.assert_array_equal(given[-1], resize_and_centre_crop(image, 12, 12, 0.75)[None])
    with pytest.raises(RuntimeError):
        names["predict"](b"no image")
