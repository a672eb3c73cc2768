"""`data.classes` and `data.per_class`: which examples are left, their labels, and what is told when they do not fit."""

import dataclasses
import json
import pickle

import numpy as np
import pytest
from PIL import Image

from jaxcnn.cli import main
from jaxcnn.config import DataConfig
from jaxcnn.data import selection
from jaxcnn.data.loader import cached_source, read_arrays
from jaxcnn.data.sources import open_splits
from jaxcnn.errors import InputError


@pytest.fixture(scope="module")
def configs(digits_dir, tmp_path_factory) -> dict[str, tuple[DataConfig, tuple[str, str]]]:
    """A config of each kind of source, and two of its classes in another order than its own."""
    root = tmp_path_factory.mktemp("selection")
    labels = np.repeat(np.arange(3), 40)
    images = (labels[:, None, None] * 40 + np.arange(120)[:, None, None] % 40).astype(np.uint8) * np.ones(
        (1, 4, 4), np.uint8
    )
    np.savez(root / "a.npz", images=images, labels=labels, class_names=np.array(["ant", "bee", "cat"]))
    for label, name in enumerate(("ant", "bee", "cat")):
        (root / "photos" / name).mkdir(parents=True)
        for number in range(40):
            Image.fromarray(images[40 * label + number]).save(root / "photos" / name / f"{number}.png")
    return {
        "tfds": (DataConfig(data_dir=digits_dir), ("7", "2")),
        "npz": (DataConfig(source="npz", data_dir=str(root / "a.npz")), ("cat", "ant")),
        "folder": (DataConfig(source="folder", data_dir=str(root / "photos")), ("cat", "ant")),
        "synthetic": (DataConfig(source="synthetic", image_size=8), ("ring", "square")),
    }


def images_of(source, label: int | None = None) -> list[bytes]:
    images, labels = source.read(range(source.num_examples))
    return [image.tobytes() for image, own in zip(images, labels, strict=True) if label in (None, own)]


@pytest.mark.parametrize("kind", ["tfds", "npz", "folder", "synthetic"])
def test_classes_are_kept_in_all_splits_and_numbered_in_their_order(configs, kind) -> None:
    config, classes = configs[kind]
    whole = open_splits(config).named()
    some = open_splits(dataclasses.replace(config, classes=classes)).named()
    assert some.keys() == whole.keys()
    for name, source in some.items():
        assert source.class_names == classes
        assert source.image_shape == whole[name].image_shape
        assert source.fingerprint != whole[name].fingerprint
        np.testing.assert_array_equal(source.labels, source.read(range(source.num_examples))[1])
        np.testing.assert_array_equal(source.labels, source.records.labels())
        for label, class_name in enumerate(classes):
            assert images_of(source, label) == images_of(whole[name], whole[name].class_names.index(class_name))
    turned = open_splits(dataclasses.replace(config, classes=classes[::-1])).train
    np.testing.assert_array_equal(turned.labels, 1 - some["train"].labels)
    assert turned.fingerprint != some["train"].fingerprint


@pytest.mark.parametrize("kind", ["tfds", "npz", "folder", "synthetic"])
def test_few_examples_a_class_are_nested_and_leave_the_other_splits_alone(configs, kind) -> None:
    config, classes = configs[kind]
    config = dataclasses.replace(config, classes=classes)
    whole, seen = open_splits(config), []
    for count in (3, 8, 20):
        splits = open_splits(dataclasses.replace(config, per_class=count))
        assert np.bincount(splits.train.labels).tolist() == [count, count]
        seen.append({splits.train.records.where(place) for place in range(2 * count)})
        for name in ("validation", "test"):
            mine, theirs = getattr(splits, name), getattr(whole, name)
            assert (mine.fingerprint, images_of(mine)) == (theirs.fingerprint, images_of(theirs))
    assert seen[0] < seen[1] < seen[2]


def test_draws_differ_and_do_not_depend_on_other_classes(configs) -> None:
    config, classes = configs["tfds"]

    def drawn(label: int, **fields) -> list[bytes]:
        return images_of(open_splits(dataclasses.replace(config, per_class=5, **fields)).train, label)

    assert drawn(7) == drawn(0, classes=classes) == drawn(2, classes=("1", "0", "7"))
    assert not set(drawn(7)) & set(drawn(7, per_class_draw=1))


def test_more_than_there_are_takes_all_and_says_so(configs, caplog, monkeypatch) -> None:
    monkeypatch.setattr(selection.LOG, "propagate", True)
    config, _ = configs["npz"]
    with caplog.at_level("INFO", "jaxcnn"):
        train = open_splits(dataclasses.replace(config, per_class=33)).train
    assert train.num_examples == 96
    assert "of classes with fewer all are taken: 'ant' has 32, 'bee' has 32, 'cat' has 32" in caplog.text


def test_a_selection_crosses_to_a_process_and_is_cached_with_its_labels(configs, tmp_path) -> None:
    config, classes = configs["tfds"]
    source = open_splits(dataclasses.replace(config, classes=classes, per_class=4)).train
    copy = pickle.loads(pickle.dumps(source.records))
    assert [label for _, label in copy.read(range(8))] == source.labels.tolist()
    read = read_arrays(source, (28, 28, 1))
    for _ in range(2):  # made, then found
        cached = cached_source(source, (28, 28, 1), 1.0, "refuse", tmp_path)
        np.testing.assert_array_equal(cached.read(range(8))[0], read.images)
        np.testing.assert_array_equal(cached.labels, read.labels)
    assert len(list(tmp_path.rglob("*.npy"))) == 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"classes": ("circle", "rign")}, "data.classes: synthetic train has no class 'rign'; did you mean 'ring'"),
        ({"classes": ("ring", "circle", "ring")}, "data.classes: 'ring' is given twice"),
        ({"classes": ("ring",)}, r"data.classes=\('ring',\): name two classes at least"),
        (
            {"classes": ("ring", "circle"), "train_split": "train[1:4]", "validation_split": "validation"},
            r"data.train_split: none of the 3 examples of synthetic train\[1:4\] is of \('ring', 'circle'\)",
        ),
    ],
)
def test_what_does_not_fit_is_told_in_one_line(fields, message) -> None:
    with pytest.raises(InputError, match=message) as caught:
        open_splits(DataConfig(source="synthetic", image_size=8, **fields))
    assert "\n" not in str(caught.value)


def test_examples_without_a_class_are_not_taken_for_one() -> None:
    """A label of -1, as unlabelled splits have it, must not count as the last class."""
    from jaxcnn.data.source import ArrayRecords, Source

    records = ArrayRecords(np.zeros((4, 2, 2, 1), np.uint8), np.array([-1, 0, 2, 1]))
    source = Source("some", ("a", "b", "c"), (2, 2, 1), records)
    assert selection.with_classes(source, [2, 0], "data.test_split").labels.tolist() == [1, 0]


def test_info_shows_the_selection(digits_dir, tmp_path, capsys) -> None:
    argv = ["mnist5k", "--data.data-dir", digits_dir, "--data.classes", "9", "3", "--data.per-class", "6", "--json"]
    assert main(["data", "info", *argv, "--data.cache-dir", str(tmp_path)]) == 0
    splits = json.loads(capsys.readouterr().out)["splits"]
    assert splits["train"]["classes"] == {"9": 6, "3": 6}
    assert splits["test"]["classes"] == {"9": 50, "3": 50}
