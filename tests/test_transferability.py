"""The study of transferability: features of all points, tables, figure, and the command."""

import csv
import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.cli import main
from jaxcnn.cli import study as command
from jaxcnn.config import DataConfig, ModelConfig, Preprocessing
from jaxcnn.data.sources import open_splits
from jaxcnn.models.classifier import output_at
from jaxcnn.network import build_network
from jaxcnn.start import initial_variables
from jaxcnn.studies.report import as_markdown, write_report
from jaxcnn.studies.stage_features import means_at_points, points_of, read_features
from jaxcnn.studies.transferability import Few, Findings, Row
from jaxcnn.weights.imported_run import import_config, write_run
from tests.conftest import with_fields

SOURCE = DataConfig(
    source="synthetic", image_size=8, classes=("circle", "square"),
    train_split="train[:120]", validation_split="validation[:60]",
)  # fmt: skip
TINY = ModelConfig(name="resnet8", width=4)
TARGET = ["--data.source", "synthetic", "--data.classes", "ring", "cross", "stripes", "--data.train-split",
          "train[:120]", "--data.validation-split", "validation[:60]"]  # fmt: skip


def network_of(model: ModelConfig, size: int, names=("a", "b")):
    images = Preprocessing((size, size, 3), (0.4, 0.5, 0.6), (0.2, 0.3, 0.2))
    config = import_config(model, SOURCE)
    return config, build_network(config, images, names)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory) -> str:
    """A run folder with random weights."""
    config, network = network_of(TINY, 8, ("circle", "square"))
    out = tmp_path_factory.mktemp("pretrained") / "run"
    variables = initial_variables(config, network)
    write_run(out, config, network.class_names, network.preprocessing, variables, {"data": "synthetic"})
    return str(out)


@pytest.mark.parametrize(
    ("model", "size", "points"),
    [
        (TINY, 8, ("stem", "stage1", "stage2", "pooled")),
        (ModelConfig(name="vgg11", width=4, neck="dense"), 32, (*(f"stage{i}" for i in range(1, 6)), "pooled")),
    ],
)
def test_features_are_the_means_of_the_maps_at_each_point(model, size, points) -> None:
    config, network = network_of(model, size)
    variables = initial_variables(config, network)
    images = jnp.asarray(np.random.default_rng(0).normal(size=(3, size, size, 3)), jnp.float32)
    found = jax.jit(lambda x: means_at_points(network.model, variables, x))(images)
    assert points_of(network.model) == points
    assert found.keys() == set(points)
    for point in points:
        expected = np.asarray(output_at(network.model, variables, images, point))
        expected = expected.mean((1, 2)) if expected.ndim == 4 else expected
        np.testing.assert_allclose(found[point], expected, rtol=1e-4, atol=1e-5)


def test_features_are_in_the_order_of_the_split_whatever_the_batch() -> None:
    config, network = network_of(TINY, 8)
    variables = initial_variables(config, network)
    source = open_splits(SOURCE).validation
    (whole,), labels = read_features(network, [variables], source, SOURCE, batch_size=len(source.labels))
    (parts, again), others = read_features(network, [variables, variables], source, SOURCE, batch_size=7)
    np.testing.assert_array_equal(labels, source.labels)
    np.testing.assert_array_equal(others, source.labels)
    for point in whole:
        np.testing.assert_allclose(parts[point], whole[point], rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(parts[point], again[point])


def test_the_command_writes_tables_and_a_figure(pretrained, tmp_path, capsys) -> None:
    argv = ["study", "transferability", "--init-from", pretrained, *TARGET, "--seeds", "1", "--json"]
    assert main([*argv, "--out", str(tmp_path), "--label", "tiny"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["source"], told["target"]) == ("synthetic (circle, square)", "synthetic (ring, cross, stripes)")
    assert (told["num_train"], told["num_validation"]) == (60, 30)
    assert [row["point"] for row in told["rows"]] == ["stem", "stage1", "stage2", "pooled"]
    assert [row["num_features"] for row in told["rows"]] == [4, 4, 8, 16]
    # The run's weights are those of seed 0: the same features, so the same accuracy.
    assert all(row["target"] == row["random"][0] for row in told["rows"])
    assert [few["count"] for few in told["few"]] == [5, 10, None]
    with open(tmp_path / "tiny.csv") as file:
        table = list(csv.DictReader(file))
    assert [float(row["target_top1"]) for row in table] == [round(100 * row["target"], 1) for row in told["rows"]]
    assert (tmp_path / "tiny.png").stat().st_size > 10_000
    assert "| pooled | 16 |" in (tmp_path / "tiny.md").read_text()
    assert (tmp_path / "tiny_few.csv").is_file()


@pytest.mark.slow
def test_without_weights_a_small_network_is_trained_on_digits_once(digits_dir, tmp_path, capsys, monkeypatch) -> None:
    data = DataConfig(data_dir=digits_dir, classes=("0", "1"), train_split="train[:500]")
    short = with_fields(command.PRETRAINING, train__epochs=0.1, train__batch_size=32, evaluation__batch_size=50)
    small = replace(short, data=replace(data, validation_split="validation"), model=TINY)
    monkeypatch.setattr(command, "PRETRAINING", small)
    monkeypatch.setattr(command, "DIGITS", replace(small.data, classes=("2", "3")))
    argv = ["study", "transferability", "--out", str(tmp_path), "--seeds", "1"]
    assert main(argv) == 0
    assert "| point | features | source task | target |" in capsys.readouterr().out
    before = (tmp_path / "pretrained" / "result.json").stat().st_mtime_ns
    assert main(argv) == 0
    assert (tmp_path / "pretrained" / "result.json").stat().st_mtime_ns == before
    assert main([*argv, "--model.width", "8"]) == 2
    assert "was trained with another config" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--seeds", "0"], "--seeds 0: at least 1"),
        (["--init-from", "nowhere"], "no run folder nowhere"),
        (["--label", "a/b"], "--label 'a/b': a file name without folders"),
        (["--out", __file__], "--out"),
        (["--data.classes", "ring"], "name two classes at least"),
        (["--model.name", "resnet20"], "holds another network than model.name='resnet20'"),
    ],
)
def test_errors_are_one_line(argv, message, pretrained, tmp_path, capsys) -> None:
    given = ["study", "transferability", "--init-from", pretrained, *TARGET, "--out", str(tmp_path), *argv]
    assert main(given) == 2
    err = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(err) == 1
    assert message in err[0]


def test_a_report_without_a_source_task_has_no_column_for_it(tmp_path) -> None:
    rows = (Row("stem", 4, None, 0.5, (0.25, 0.35)), Row("pooled", 8, None, 1.0, (0.5, 0.5)))
    few = (Few(5, (0.5, 0.7), (0.1, 0.3)), Few(None, (1.0,), (0.5, 0.5)))
    findings = Findings("net, w$", None, "some $ task", rows, few, "pooled", "stem", 40, 20)
    files = write_report(findings, tmp_path / "deep" / "er", "x")
    text = as_markdown(findings)
    assert "| stem | 4 | 50.0 | 30.0 ± 7.1 |" in text
    assert "| 5 | 60.0 ± 14.1 | 20.0 ± 14.1 |" in text
    assert "| all | 100.0 | 50.0 ± 0.0 |" in text
    assert "source" not in text.lower()
    with open(files["csv"]) as file:
        head, first, _ = csv.reader(file)
    assert head == ["point", "features", "target_top1", "random_target_top1_mean", "random_target_top1_std"]
    assert first == ["stem", "4", "50.0", "30.0", "7.1"]
