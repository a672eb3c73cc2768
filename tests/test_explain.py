"""`jaxcnn explain` and the pictures of a run: what they write, and how mistakes are told."""

import argparse
import json
from pathlib import Path
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxcnn.cli import explain, main
from jaxcnn.cli.inspect_pictures import write_pictures
from jaxcnn.config import ModelConfig
from jaxcnn.errors import InputError
from jaxcnn.inspection import explanation
from jaxcnn.inspection.explanation import Explanation
from jaxcnn.inspection.pictures import draw_activations, draw_feature_maps, draw_filters, kernels_of
from jaxcnn.models import build_model
from jaxcnn.paths import flatten
from jaxcnn.predict import LoadedRun, load_run

CLASSES = ("cat", "dog", "frog")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run of a ResNet-8 of width 4 for colour images of 16x16, which nobody trained."""
    folder = tmp_path_factory.mktemp("explained")
    model = build_model(ModelConfig(name="resnet8", width=4), (16, 16, 3), 3)
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 16, 16, 3)))
    leaves = {path: np.array(leaf) for path, leaf in flatten(dict(variables)).items()}
    save_file(leaves, folder / "weights.safetensors")
    (folder / "classes.txt").write_text("\n".join(CLASSES))
    options = ["--arch", "resnet8", "--model.width", "4", "--image-size", "16", "--classes", folder / "classes.txt"]
    arguments = ["weights", "import", folder / "weights.safetensors", *options, "--out", folder / "run"]
    assert main([str(argument) for argument in [*arguments, "--mean", 0.5, 0.5, 0.5, "--std", 0.25, 0.25, 0.25]]) == 0
    return folder / "run"


@pytest.fixture(scope="module")
def loaded(run) -> LoadedRun:
    return load_run(run)


@pytest.fixture(scope="module")
def image(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("image") / "photo.png"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8))
    return path


def pixels_of(path: Path) -> Any:
    drawn = cv2.imread(str(path))
    assert drawn is not None, path
    return drawn


def test_what_is_explained_is_what_the_run_predicts(run, loaded, image, tmp_path, capsys) -> None:
    out = tmp_path / "why.png"
    assert main(["explain", str(run), str(image), "--out", str(out), "--features", "--json", "--top", "2"]) == 0
    notes = json.loads(capsys.readouterr().out)
    probabilities = loaded.predict([cv2.imread(str(image))[..., ::-1]])[0]
    best = int(probabilities.argmax())
    assert [one["class"] for one in notes["top"]] == [CLASSES[place] for place in np.argsort(-probabilities)[:2]]
    assert notes["top"][0]["probability"] == pytest.approx(probabilities[best], abs=1e-5)
    assert (notes["explained"], notes["layer"], notes["map"]) == (CLASSES[best], "stage3", [4, 4])
    assert notes["files"] == [str(out), str(tmp_path / "why.features.png")]
    for file in notes["files"]:
        assert pixels_of(Path(file)).std() > 10


def test_a_class_and_a_layer_may_be_chosen_and_a_grey_image_given(run, tmp_path, capsys) -> None:
    grey = tmp_path / "grey.png"
    cv2.imwrite(str(grey), np.arange(400, dtype=np.uint16).reshape(20, 20).astype(np.uint8))
    out = tmp_path / "grey.explain.png"
    assert main(["explain", str(run), str(grey), "--class", "frog", "--layer", "stage2", "--out", str(out)]) == 0
    told = capsys.readouterr().out
    assert "frog: " in told
    assert "stage2" in told
    assert out.is_file()


def test_a_map_of_one_place_is_not_told_as_one(capsys) -> None:
    heat = np.ones((8, 8), np.float32)
    found = Explanation(np.zeros((8, 8, 1), np.uint8), 0, "stage5", (1, 1), heat, ("cat", "dog"), np.array([0.7, 0.3]))
    explain._tell(found, [], argparse.Namespace(image="photo.png", top=2, json=False))
    told = capsys.readouterr().out
    assert "cat: the map of stage5 has one place for the whole image" in told
    assert "rows" not in told


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{run}", "{image}", "--class", "dgo"], "--class 'dgo': the run has no such class; did you mean 'dog'"),
        (["{run}", "{image}", "--layer", "stage9"], "--layer 'stage9': the network has no such part; did you mean"),
        (["{tmp}/nowhere", "{image}"], "no run folder {tmp}/nowhere"),
        (["{run}", "{tmp}/none.png"], "{tmp}/none.png: No such file"),
        (["{run}", "{tmp}/text.png"], "{tmp}/text.png: not a readable image"),
        (["{run}", "{image}", "--out", "{tmp}/nowhere/why.png"], "--out {tmp}/nowhere/why.png: No such file"),
        (["{run}", "{image}", "--out", "{image}"], "{image} is the image itself, which stays as it is"),
        (["{run}", "{image}", "--out", "{tmp}/why.jpg"], "--out {tmp}/why.jpg: what is drawn is a PNG"),
        (["{run}", "{image}", "--out", "{tmp}/folder.png"], "--out {tmp}/folder.png: it is a folder"),
        (["{run}@7", "{image}"], "no checkpoint at step 7"),
        (["{run}", "{image}", "--top", "0"], "--top 0: at least 1"),
        (["{run}", "{image}", "--checkpoint", "bset"], "--checkpoint 'bset'"),
    ],
)
def test_a_mistake_is_one_line(run, image, tmp_path, capsys, arguments, message) -> None:
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "folder.png").mkdir()
    pixels = image.read_bytes()
    places = {"run": run, "image": image, "tmp": tmp_path}
    assert main(["explain", *(argument.format(**places) for argument in arguments)]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message.format(**places) in errors[0]
    assert {file.name for file in tmp_path.iterdir()} == {"text.png", "folder.png"}
    assert image.read_bytes() == pixels


def test_a_run_without_data_has_the_pictures_that_need_none(run, tmp_path) -> None:
    files = write_pictures(run, tmp_path / "pictures")
    assert [file.name for file in files] == ["filters.png", "weights.png"]
    assert all(pixels_of(file).std() > 1 for file in files)
    with pytest.raises(InputError, match="--pictures"):
        write_pictures(run, run / "config.json")


def test_weights_that_are_not_finite_explain_nothing(loaded) -> None:
    variables = jax.tree.map(np.array, loaded.variables)
    variables["params"]["head"]["kernel"][0, 0] = np.nan
    with pytest.raises(InputError, match="not finite: see jaxcnn inspect"):
        explanation.explain(loaded.network, variables, np.full((16, 16, 3), 200, np.uint8))


def test_the_heading_of_few_filters_is_not_cut(loaded, tmp_path) -> None:
    draw_filters(loaded.network, loaded.variables, tmp_path / "filters.png")
    heading = pixels_of(tmp_path / "filters.png")[:30]  # of a sheet of four kernels
    assert heading.min() < 128
    assert (heading[:, :4] == 255).all()
    assert (heading[:, -4:] == 255).all()


def test_kernels_are_listed_in_the_order_in_which_they_are_applied(loaded) -> None:
    kernels = kernels_of(loaded.network, loaded.variables)
    assert list(kernels)[:3] == ["backbone/stem/conv", "backbone/stage1/block1/conv1", "backbone/stage1/block1/conv2"]
    assert list(kernels)[-1] == "head"
    assert kernels["head"].shape == (16, 3)


def test_a_filter_is_drawn_in_its_colours(loaded, tmp_path) -> None:
    variables = jax.tree.map(np.array, loaded.variables)
    kernel = variables["params"]["backbone"]["stem"]["conv"]["kernel"]
    kernel[...] = 0
    kernel[..., 0, 0], kernel[..., 2, 1] = 0.3, -0.01  # all red; all but blue
    assert draw_filters(loaded.network, variables, tmp_path / "filters.png") == "backbone/stem/conv"
    drawn = pixels_of(tmp_path / "filters.png")[..., ::-1].astype(int)
    reds, browns = (np.abs(drawn - colour).max(-1) <= 1 for colour in ([255, 128, 128], [128, 128, 0]))
    assert reds.sum() == pytest.approx(48 * 48, rel=0.05)
    assert browns.sum() == pytest.approx(48 * 48, rel=0.05)


def test_histograms_and_maps_are_drawn_of_images(loaded, tmp_path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)
    draw_activations(loaded.network, loaded.variables, images, tmp_path / "activations.png")
    draw_feature_maps(loaded.network, loaded.variables, images[0], tmp_path / "features.png", channels=3)
    assert pixels_of(tmp_path / "activations.png").std() > 1
    features = pixels_of(tmp_path / "features.png")
    assert features.shape[0] == pytest.approx(50 + 4 * 100, abs=10)  # stem and three stages
    assert list(tmp_path.glob(".*")) == []
