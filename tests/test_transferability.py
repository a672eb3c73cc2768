"""The study of transferability: features of all points, tables, figure, and the command."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.cli import main
from jaxcnn.config import DataConfig, ModelConfig, Preprocessing
from jaxcnn.data.sources import open_splits
from jaxcnn.errors import InputError
from jaxcnn.models.classifier import output_at
from jaxcnn.network import build_network
from jaxcnn.run_folder import RunFolder
from jaxcnn.start import initial_variables
from jaxcnn.studies import pretraining, transfer_tasks, transferability
from jaxcnn.studies.few_images import CONTROL, FROZEN, SCRATCH, TUNED, Few
from jaxcnn.studies.setting import Setting
from jaxcnn.studies.spread import Spread
from jaxcnn.studies.stage_features import means_at_points, points_of, read_features
from jaxcnn.studies.stage_probes import PRETRAINED, RANDOM
from jaxcnn.studies.transfer_report import Curve, few_table, points_table
from jaxcnn.studies.trials import Trials
from jaxcnn.weights.imported_run import import_config, write_run

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
    assert main([*argv, "--out", str(tmp_path)]) == 0
    told = json.loads(capsys.readouterr().out)
    rows, few = told["tables"]["points"], told["tables"]["few"]
    source, target = "source: shapes (circle, square)", "shapes (ring, cross, stripes)"
    assert list(rows[0])[::2] == ["point", "std", "std"] or set(rows[0]) >= {"point", source, target}
    assert [row["point"] for row in rows] == ["stem", "stage1", "stage2", "pooled"]
    assert "60 images to train on, 30 to measure on" in told["setup"].replace("\n", " ")
    # The run's weights are those of seed 0: the same features, so the same accuracy.
    assert all(row[target] == row[f"{target}, random"] for row in rows)
    assert [row["images a class"] for row in few] == [5, "all"]
    assert set(few[0]) == {"images a class", FROZEN, CONTROL, "std"}  # given weights are not trained, unless asked
    with open(tmp_path / "transferability.csv") as file:
        table = list(csv.DictReader(file))
    assert [float(row[target]) for row in table] == pytest.approx([row[target] for row in rows])
    assert (tmp_path / "transferability.png").stat().st_size > 10_000
    assert "| pooled |" in (tmp_path / "transferability.md").read_text()
    assert (tmp_path / "transferability_few.csv").is_file()


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """The study that trains its own networks, two seeds of them, as short as can be."""
    near = replace(SOURCE, classes=("ring", "cross"))
    transfer = transfer_tasks.Transfer(TINY, SOURCE, (near,))
    setting = Setting("quick", SOURCE, (0, 1), Trials(tmp_path_factory.mktemp("own") / "trials"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretraining, "EPOCHS", {"quick": 1})
        patch.setattr(transferability, "STEPS", {"quick": 3})
        patch.setattr(transferability, "COUNTS", {"quick": (5,)})
        patch.setattr(pretraining, "SOURCE_BATCH", 10)
        yield setting, transfer, transferability.study(setting, transfer)


@pytest.mark.slow
def test_networks_are_trained_on_the_source_and_again_on_few_images_of_the_first_target(own) -> None:
    setting, _, findings = own
    points, few = findings.tables
    assert [name for name in points.head if name != "std"] == [
        "point", "source: shapes (circle, square)", "shapes (ring, cross)", "shapes (ring, cross), random",
    ]  # fmt: skip
    assert [name for name in few.head if name != "std"] == ["images a class", FROZEN, TUNED, SCRATCH, CONTROL]
    assert few.rows[-1][0] == "all"
    assert few.rows[-1][few.head.index(TUNED)] is None
    assert all(0 <= value <= 100 for value in few.rows[0][1:])
    assert len(list((setting.trials.folder.parent / "networks").iterdir())) == 2
    assert all(claim.supported is not None for claim in findings.claims)


@pytest.mark.slow
def test_networks_that_are_there_are_not_trained_again(own, monkeypatch) -> None:
    setting, transfer, _ = own
    monkeypatch.setattr(setting.trials, "job", lambda *given: pytest.fail("trains again"))
    with monkeypatch.context() as patch:
        patch.setattr(pretraining, "EPOCHS", {"quick": 1})
        patch.setattr(pretraining, "SOURCE_BATCH", 10)
        config = pretraining.source_config(setting, transfer)
        places = pretraining.pretrained(setting, config)
    assert [RunFolder(place).class_names for place in places] == [("circle", "square")] * 2
    place = Path(places[1])
    place.rename(place.with_name("elsewhere"))
    with pytest.raises(InputError, match="is gone: remove"):
        pretraining.pretrained(setting, config)
    place.with_name("elsewhere").rename(place)


def curves(source, near, random):
    """Curves of two points; two networks each, of which the second is 0.01 better."""

    def spreads(top1):
        return tuple(Spread.of([value, value + 0.01]) for value in top1)

    return [
        Curve("a", PRETRAINED, True, spreads(source)),
        Curve("b", PRETRAINED, False, spreads(near)),
        Curve("b", RANDOM, False, spreads(random)),
    ]


@pytest.mark.parametrize(
    ("source", "near", "random", "expected"),
    [
        ((0.5, 0.9), (0.7, 0.6), (0.4, 0.4), [True, True]),
        ((0.5, 0.6), (0.5, 0.8), (0.4, 0.4), [False, True]),
        ((0.5, 0.9), (0.4, 0.4), (0.3, 0.5), [True, False]),
    ],
)
def test_claims_on_stages_follow_from_the_probes(source, near, random, expected) -> None:
    claims = transferability._claims_of_stages(("early", "late"), curves(source, near, random))
    assert [claim.supported for claim in claims] == expected
    assert "points from early to late: " in claims[0].numbers


def test_claims_on_few_images_are_those_of_the_fewest_and_of_the_most() -> None:
    def few(count, **top1):
        return Few(count, {name: Spread.of([value, value + 0.01]) for name, value in top1.items()})

    first = few(5, **{FROZEN: 0.8, TUNED: 0.7, SCRATCH: 0.4, CONTROL: 0.4})
    last = few(50, **{FROZEN: 0.8, TUNED: 0.9, SCRATCH: 0.95, CONTROL: 0.4})
    claims = transferability._claims_of_few([first, last, few(None, **{FROZEN: 0.8, CONTROL: 0.4})])
    assert [claim.supported for claim in claims] == [True, True, True, False]
    assert claims[0].numbers.startswith("5 images a class: frozen 80.5 ± 0.7 %")
    assert transferability._claims_of_few([few(5, **{FROZEN: 0.8})]) == []


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--seeds", "0"], "--seeds 0: at least 1"),
        (["--init-from", "nowhere"], "no run folder nowhere"),
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


def test_tables_have_a_column_a_curve_and_a_dash_where_nothing_was_run() -> None:
    table = points_table(("early", "late"), curves((0.5, 0.9), (0.7, 0.6), (0.4, 0.4)))
    assert table.head == ("point", "source: a", "std", "b", "std", "b, random", "std")
    assert table.rows[1] == pytest.approx(("late", 90.5, 0.7071, 60.5, 0.7071, 40.5, 0.7071), abs=1e-3)
    few = few_table([Few(5, {FROZEN: Spread.of([0.5]), TUNED: Spread.of([0.25])}), Few(None, {FROZEN: Spread.of([1])})])
    assert few.rows == ((5, 50.0, 0.0, 25.0, 0.0), ("all", 100.0, 0.0, None, None))


def test_of_a_data_set_the_source_is_the_classes_that_are_no_target() -> None:
    shapes = DataConfig(source="synthetic", image_size=8)
    setting = Setting("quick", shapes, (0,), Trials())
    found = transfer_tasks.transfer_of(setting)
    assert found.source.classes == ("circle", "square", "triangle")
    assert found.targets[0].classes == ("cross", "ring", "stripes")
    assert (found.targets[1].name, found.targets[1].image_size, found.targets[1].channels) == ("mnist5k", 8, 3)
    chosen = transfer_tasks.transfer_of(replace(setting, data=replace(shapes, classes=("ring", "circle"))))
    assert chosen.source.classes == ("square", "triangle", "cross", "stripes")
    assert chosen.targets[0].classes == ("ring", "circle")
