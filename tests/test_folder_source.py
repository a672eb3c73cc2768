"""Folders of images: layouts, order, splits that are made, and everything bad told by name."""

import os
import pickle
import unicodedata

import numpy as np
import pytest
from PIL import Image

from jaxcnn.config import DataConfig
from jaxcnn.data import folder_source, folder_walk, sources
from jaxcnn.data.loader import read_arrays
from jaxcnn.data.sources import open_splits
from jaxcnn.errors import InputError


@pytest.fixture
def log(monkeypatch, caplog):
    """What is logged, whatever set the logger up."""
    monkeypatch.setattr(folder_walk.LOG, "propagate", True)
    caplog.set_level("INFO", "jaxcnn")
    assert folder_walk.LOG is folder_source.LOG is sources.LOG
    return caplog


def fill(folder, count: int, first: int = 0, suffix: str = "png") -> None:
    """Writes images 4x5 whose pixels are their number."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        Image.new("RGB", (5, 4), (number % 256, number // 256, 7)).save(folder / f"{number}.{suffix}")


def opened(root, **fields):
    return open_splits(DataConfig(source="folder", data_dir=str(root), **fields))


def files(source) -> list[str]:
    return [source.records.where(place) for place in range(source.num_examples)]


@pytest.mark.parametrize("name", ["validation", "val", "valid"])
def test_split_folders_are_splits_and_classes_the_same_in_each(tmp_path, name: str) -> None:
    fill(tmp_path / "train" / "cat", 3)
    fill(tmp_path / "train" / "dog", 4, 10)
    fill(tmp_path / name / "dog", 2, 20)
    fill(tmp_path / "test" / "ant", 1, 30)
    splits = opened(tmp_path)
    assert {split: source.num_examples for split, source in splits.named().items()} == {
        "train": 7, "validation": 2, "test": 1,
    }  # fmt: skip
    assert all(source.class_names == ("ant", "cat", "dog") for source in splits.named().values())
    assert splits.validation.labels.tolist() == [2, 2]
    images, labels = splits.train.read(range(7))
    assert sorted((int(image[0, 0, 0]), int(label)) for image, label in zip(images, labels, strict=True)) == [
        (0, 1), (1, 1), (2, 1), (10, 2), (11, 2), (12, 2), (13, 2),
    ]  # fmt: skip


def test_without_split_folders_each_class_is_divided_8_to_1_to_1(tmp_path) -> None:
    fill(tmp_path / "a", 40)
    fill(tmp_path / "b", 20, 100)
    fill(tmp_path / "c", 3, 200)
    splits = opened(tmp_path).named()
    counts = {name: np.bincount(source.labels, minlength=3).tolist() for name, source in splits.items()}
    assert counts == {"train": [32, 16, 1], "validation": [4, 2, 1], "test": [4, 2, 1]}
    together = [name for source in splits.values() for name in files(source)]
    assert len(together) == len(set(together)) == 63


def test_without_validation_a_tenth_of_each_class_of_train_is_kept(tmp_path) -> None:
    fill(tmp_path / "train" / "a", 30)
    fill(tmp_path / "train" / "b", 10, 50)
    fill(tmp_path / "test" / "a", 2, 90)
    splits = opened(tmp_path)
    assert np.bincount(splits.train.labels).tolist() == [27, 9]
    assert np.bincount(splits.validation.labels).tolist() == [3, 1]


def test_order_is_at_random_fixed_by_paths_and_stays_when_a_file_comes(tmp_path) -> None:
    for root in (tmp_path / "one", tmp_path / "two"):
        fill(root / "train" / "a", 100)
        fill(root / "train" / "b", 100, 100)
        fill(root / "val" / "a", 1)
    one, two = (opened(tmp_path / name, train_split="train").train for name in ("one", "two"))
    assert [name.replace("/one/", "/two/") for name in files(one)] == files(two)
    assert 30 <= np.bincount(one.labels[:100])[0] <= 70
    before = files(two)
    fill(tmp_path / "two" / "train" / "b", 1, 500)
    changed = opened(tmp_path / "two").train
    assert [name for name in files(changed) if not name.endswith("/500.png")] == before
    assert changed.fingerprint != two.fingerprint


def test_split_expressions_are_those_of_tfds(tmp_path, log) -> None:
    fill(tmp_path / "train" / "a", 20)
    fill(tmp_path / "val" / "a", 5, 50)
    whole = files(opened(tmp_path).train)
    splits = opened(tmp_path, train_split="train[:25%]+train[-2:]", validation_split="train[4:6]+validation")
    assert files(splits.train) == whole[:5] + whole[18:]
    assert files(splits.validation)[:2] == whole[4:6]
    assert splits.validation.num_examples == 7
    assert [int(i[0, 0, 0]) for i in splits.train.read([6, 0])[0]] == [
        int(os.path.basename(name).split(".")[0]) for name in (whole[19], whole[0])
    ]
    assert "warning: 1 examples are in both data.train_split='train[:25%]+train[-2:]' and validation" in log.text
    with pytest.raises(InputError, match=r"data.train_split='trian\[:3\]': .* did you mean 'train'\?"):
        opened(tmp_path, train_split="trian[:3]")
    with pytest.raises(InputError, match=r"data.test_split='train\[3:3\]': the split of .* is empty"):
        opened(tmp_path, test_split="train[3:3]")


def test_records_are_light_and_survive_pickling(tmp_path) -> None:
    fill(tmp_path / "a", 30)
    source = opened(tmp_path).train
    copy = pickle.loads(pickle.dumps(source.records))
    assert copy.read([3]) == source.records.read([3])
    assert len(pickle.dumps(source.records)) < 3000


def test_a_class_called_train_is_a_class(tmp_path) -> None:
    fill(tmp_path / "train", 10)
    fill(tmp_path / "plane", 10, 20)
    assert opened(tmp_path).train.class_names == ("plane", "train")


def test_what_lies_deeper_belongs_to_the_class_and_hidden_files_to_none(tmp_path, log) -> None:
    fill(tmp_path / "a" / "2019" / "may", 5)
    fill(tmp_path / "a", 5, 10, "JPG")
    fill(tmp_path / "b", 10, 20)
    fill(tmp_path / ".cache" / "x", 2)
    (tmp_path / "a" / "._0.png").write_bytes(b"x")
    (tmp_path / "a" / "notes.txt").write_text("x")
    (tmp_path / "b" / "Thumbs.db").write_bytes(b"x")
    (tmp_path / "empty").mkdir()
    fill(tmp_path, 1)
    splits = opened(tmp_path)
    assert splits.train.class_names == ("a", "b")
    assert sum(source.num_examples for source in splits.named().values()) == 20
    assert "2 files that are no images are left out (1 .txt, 1 .db)" in log.text
    assert f"warning: {tmp_path / 'empty'}: a class folder without images" in log.text
    assert "1 images lie in no class folder and are left out" in log.text


def test_links_are_followed_but_not_in_circles(tmp_path, log) -> None:
    fill(tmp_path / "elsewhere", 10)
    root = tmp_path / "root"
    fill(root / "a", 10, 20)
    (root / "b").symlink_to(tmp_path / "elsewhere")
    (root / "a" / "up").symlink_to(root)
    (root / "a" / "self").symlink_to(root / "a" / "self")
    splits = opened(root)
    assert splits.train.class_names == ("a", "b")
    assert sum(source.num_examples for source in splits.named().values()) == 20
    assert f"{root / 'a' / 'up'}: a symlink loop, not followed" in log.text
    assert f"{root / 'a' / 'self'}: a symlink loop, not followed" in log.text


def test_names_may_be_of_any_script_and_of_no_encoding(tmp_path, log) -> None:
    fill(tmp_path / "train" / unicodedata.normalize("NFC", "café"), 10)
    fill(tmp_path / "val" / unicodedata.normalize("NFD", "café"), 10, 50)
    fill(tmp_path / "train" / "犬", 10, 20)
    raw = os.fsencode(tmp_path / "train") + b"/caf\xe9"
    os.mkdir(raw)
    Image.new("RGB", (5, 4)).save(os.fsdecode(raw + b"/\xff.png"))
    splits = opened(tmp_path)
    assert splits.train.class_names == ("caf\\xe9", "café", "犬")
    assert len(splits.train.read(range(21))[0]) == 21
    assert "\\xe9: its name is not UTF-8" in log.text
    assert any(name.endswith("caf\\xe9/\\xff.png") for name in files(splits.train))


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda root: None, r"no such folder"),
        (lambda root: root.write_bytes(b""), r"not a folder"),
        (lambda root: root.mkdir(), r"no images in class folders below it"),
        (lambda root: (root / "a").mkdir(parents=True), r"no images in class folders below it"),
        (lambda root: fill(root, 3), r"no images in class folders below it"),
        (lambda root: (root / "train" / "a").mkdir(parents=True), r"no images in its split folders .* train"),
        (lambda root: (fill(root / "val" / "a", 1), fill(root / "valid" / "a", 1)), r"val and valid are the same"),
        (lambda root: fill(root / "test" / "a", 1), r"data.train_split: .* has no split 'train'; it has test"),
    ],
)
def test_a_folder_that_cannot_be_used_is_told_in_one_line(tmp_path, make, told: str) -> None:
    make(tmp_path / "root")
    with pytest.raises(InputError, match=told) as error:
        opened(tmp_path / "root")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda file: file.write_bytes(b""), "empty file"),
        (lambda file: file.write_text("hello"), "a text file"),
        (lambda file: file.symlink_to("nowhere"), "No such file or directory"),
    ],
)
def test_training_names_an_unreadable_file(tmp_path, make, told: str) -> None:
    fill(tmp_path / "train" / "a", 2)
    fill(tmp_path / "val" / "a", 2)
    make(tmp_path / "train" / "a" / "bad.jpg")
    with pytest.raises(InputError, match=rf"1 of 3 images are unreadable: .*a/bad.jpg \({told}\)"):
        read_arrays(opened(tmp_path).train, (4, 4, 3))


def test_a_folder_must_be_given() -> None:
    with pytest.raises(InputError, match=r"data.data_dir: with data.source='folder' say where"):
        open_splits(DataConfig(source="folder"))
