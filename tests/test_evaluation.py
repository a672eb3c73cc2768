"""Measuring: the confusion matrix, balanced accuracy, several views of an image, weights of classes."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.augment.test_time import crops_and_flips
from jaxcnn.cli import main
from jaxcnn.confusion import plot_confusion, write_confusion
from jaxcnn.errors import InputError
from jaxcnn.training import metrics
from jaxcnn.training.class_weights import class_weights
from jaxcnn.training.evaluation_step import evaluation_sums, make_evaluation_step
from tests.conftest import with_fields
from tests.runs import write_config

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(0, 1, (60, 4)).astype(np.float32)
LABELS = RNG.choice(4, 60, p=[0.7, 0.2, 0.1, 0.0]).astype(np.int32)


def test_the_confusion_matrix_counts_pairs_and_agrees_with_the_accuracies() -> None:
    mask = np.arange(60) < 50
    sums = jax.device_get(evaluation_sums(jnp.asarray(LOGITS), jnp.asarray(LABELS), jnp.asarray(mask)))
    expected = np.zeros((4, 4), int)
    for label, predicted in zip(LABELS[:50], LOGITS[:50].argmax(1), strict=True):
        expected[label, predicted] += 1
    np.testing.assert_array_equal(sums["confusion"], expected)
    np.testing.assert_array_equal(expected.diagonal(), sums["class_top1"])
    recalls = expected.diagonal()[:3] / expected.sum(1)[:3]  # class 3 has no examples
    assert metrics.divide(sums)["balanced_accuracy"] == pytest.approx(recalls.mean())


def test_five_crops_are_the_corners_and_the_centre_and_flips_mirror_them() -> None:
    images = np.arange(2 * 5 * 6).reshape(2, 5, 6, 1)
    views = [np.asarray(view) for view in crops_and_flips(jnp.asarray(images), 3, 4, crops=5, flip=True)]
    assert len(views) == 10
    places = [(0, 0), (0, 2), (2, 0), (2, 2), (1, 1)]
    for view, (top, left) in zip(views, places, strict=False):
        np.testing.assert_array_equal(view, images[:, top : top + 3, left : left + 4])
    for view, mirrored in zip(views[:5], views[5:], strict=True):
        np.testing.assert_array_equal(mirrored, view[:, :, ::-1])
    (centre,) = crops_and_flips(jnp.asarray(images), 3, 4, crops=1, flip=False)
    np.testing.assert_array_equal(centre, images[:, 1:4, 1:5])


def test_the_probabilities_of_several_views_are_averaged() -> None:
    class Linear:
        def apply(self, variables, images, train):
            return images.reshape(images.shape[0], -1) @ variables

    weights = RNG.normal(0, 1, (6, 4)).astype(np.float32)
    images = RNG.normal(0, 1, (60, 2, 3, 1)).astype(np.float32)
    step = make_evaluation_step(Linear(), lambda x: [x, x[:, :, ::-1]])
    zeros = jax.tree.map(jnp.zeros_like, evaluation_sums(jnp.asarray(LOGITS), jnp.asarray(LABELS), jnp.ones(60, bool)))
    found = step(jnp.asarray(weights), zeros, jnp.asarray(images), jnp.asarray(LABELS), jnp.ones(60, bool))
    logits = [view.reshape(60, -1) @ weights for view in (images, images[:, :, ::-1])]
    mean = np.mean([np.exp(z) / np.exp(z).sum(1, keepdims=True) for z in logits], axis=0)
    assert int(found["top1"]) == (mean.argmax(1) == LABELS).sum()
    assert float(found["loss"]) == pytest.approx(-np.log(mean[np.arange(60), LABELS]).sum(), rel=1e-4)


def test_class_weights_have_mean_one_over_the_examples_and_are_the_published_formulas() -> None:
    counts = [90, 9, 0, 1]
    for kind in ("balanced", "effective"):
        weights = np.array(class_weights(counts, kind))
        assert weights @ counts == pytest.approx(100)
        assert weights[2] == 0
    balanced = np.array(class_weights(counts, "balanced"))
    np.testing.assert_allclose(balanced[[0, 1, 3]], 100 / (3 * np.array([90, 9, 1])))  # N / (K n)
    effective = np.array(class_weights(counts, "effective"))
    beta = 99 / 100
    expected = (1 - beta) / (1 - beta ** np.array([90, 9, 1]))
    np.testing.assert_allclose(effective[[0, 1, 3]] / effective[3], expected / expected[2])
    assert balanced[3] / balanced[0] > effective[3] / effective[0]  # milder
    assert class_weights(counts, "none") is None
    with pytest.raises(InputError, match="none, balanced or effective"):
        class_weights(counts, "inverse")


@pytest.mark.parametrize("count", [2, 30, 120])
def test_confusion_files_are_written_for_any_number_of_classes(tmp_path, count: int) -> None:
    matrix = RNG.integers(0, 50, (count, count))
    names = [f"class ä $5_$ {label}" for label in range(count)]
    write_confusion(matrix, names, tmp_path / "deep" / "c.json", 7)
    found = json.loads((tmp_path / "deep" / "c.json").read_text())
    assert found == {"step": 7, "class_names": names, "matrix": matrix.tolist()}
    plot_confusion(matrix, names, tmp_path / "c.png", "a title with $1_$")
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_and_evaluate_write_the_same_matrix_and_views_change_the_figures(tiny_config, tmp_path, capsys) -> None:
    config = with_fields(tiny_config, train__epochs=1.0, train__class_weights="effective")
    config = replace(config, data=replace(config.data, crop_share=0.875))
    run = tmp_path / "run"
    assert main(["train", "--config", str(write_config(config, tmp_path / "c.py")), "--workdir", str(run)]) == 0
    matrix = json.loads((run / "confusion" / "test.json").read_text())["matrix"]
    assert np.sum(matrix) == 50
    assert (run / "confusion" / "validation.png").is_file()
    capsys.readouterr()
    assert main(["evaluate", str(run), "--json", "--out", str(tmp_path / "out")]) == 0
    centre = json.loads(capsys.readouterr().out)
    assert json.loads((tmp_path / "out" / "confusion.json").read_text())["matrix"] == matrix
    result = json.loads((run / "result.json").read_text())["test"]
    assert centre["balanced_accuracy"] == result["balanced_accuracy"]
    assert "balanced_accuracy" in json.loads((run / "metrics.jsonl").read_text().splitlines()[0])["validation"]
    assert main(["evaluate", str(run), "--json", "--evaluation.flip", "--evaluation.crops", "5"]) == 0
    views = json.loads(capsys.readouterr().out)
    assert views["examples"] == 50
    assert views["loss"] != centre["loss"]
    assert (run / "evaluations" / f"test-{views['step']}" / "confusion.png").is_file()
