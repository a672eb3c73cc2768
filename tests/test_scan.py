"""One pass over a source: what it finds is what numpy finds, and it is kept."""

import json

import numpy as np
import pytest
from PIL import Image

from jaxcnn.config import DataConfig
from jaxcnn.data import scan as scan_module
from jaxcnn.data.loader import read_arrays
from jaxcnn.data.scan import scan
from jaxcnn.data.source import ArrayRecords, Source
from jaxcnn.data.sources import open_splits
from jaxcnn.data.statistics import channel_statistics


@pytest.fixture
def folder(tmp_path):
    """200 images of many sizes in two classes, and three files that cannot be read."""
    rng = np.random.default_rng(0)
    for number in range(200):
        size = rng.integers(1, 40, 2)
        image = rng.integers(0, 256, (*size, 3), np.uint8)
        place = tmp_path / "data" / "train" / ("a" if number % 3 else "b")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{number}.png")
    bad = tmp_path / "data" / "train" / "b"
    (bad / "empty.jpg").write_bytes(b"")
    (bad / "text.jpg").write_text("hello")
    (bad / "gone.jpg").symlink_to("nowhere")
    (tmp_path / "data" / "val" / "a").mkdir(parents=True)
    Image.new("L", (3, 3)).save(tmp_path / "data" / "val" / "a" / "x.png")
    return tmp_path / "data"


def train_of(folder) -> Source:
    return open_splits(DataConfig(source="folder", data_dir=str(folder))).train


def test_what_is_found_is_what_numpy_finds(folder, tmp_path) -> None:
    source = train_of(folder)
    found = scan(source, (16, 16, 3), 0.875, str(tmp_path))
    assert sorted(found.unreadable.values()) == ["No such file or directory", "a text file", "empty file"]
    assert {source.records.where(place).rsplit("/", 1)[1] for place in found.unreadable} == {
        "empty.jpg", "text.jpg", "gone.jpg",
    }  # fmt: skip
    assert (found.num_examples, found.num_read, found.counts) == (203, 200, (133, 70))
    readable = source.subset(found.readable())
    images, _ = readable.read(range(200))
    heights = [image.shape[0] for image in images]
    assert found.height == (min(heights), np.median(heights), max(heights))
    arrays = read_arrays(readable, (16, 16, 3), 0.875)
    assert (found.mean, found.std) == channel_statistics(arrays.images)


def test_images_of_their_own_size_are_counted_by_pixel(folder, tmp_path) -> None:
    source = train_of(folder)
    found = scan(source, None, cache_dir=str(tmp_path))
    images, _ = source.read(found.readable())
    pixels = np.concatenate([image.reshape(-1, 3) for image in images]) / 255
    np.testing.assert_allclose(found.mean, pixels.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.std, pixels.std(0), rtol=1e-12)


def test_equal_pixels_have_equal_hashes() -> None:
    images = [np.full((4, 6, 3), value, np.uint8) for value in (1, 2, 1)] + [np.full((6, 4, 3), 1, np.uint8)]
    digests = scan(Source("made up", ("a",), None, ArrayRecords(images, [0] * 4)), None).digests()
    assert digests[0] == digests[2]
    assert len(set(digests)) == 3


def test_a_pass_is_kept_until_the_files_the_shape_or_the_crop_change(folder, tmp_path, monkeypatch) -> None:
    passes = []
    first = scan_module._scan
    monkeypatch.setattr(scan_module, "_scan", lambda *given: passes.append(1) or first(*given))
    one = scan(train_of(folder), (8, 8, 3), 1.0, str(tmp_path))
    assert scan(train_of(folder), (8, 8, 3), 1.0, str(tmp_path)) == one
    assert len(passes) == 1
    scan(train_of(folder), (8, 8, 3), 0.9, str(tmp_path))
    scan(train_of(folder), (8, 8, 1), 1.0, str(tmp_path))
    scan(train_of(folder).subset(np.arange(10)), (8, 8, 3), 1.0, str(tmp_path))
    scan(train_of(folder).subset(np.arange(9)), (8, 8, 3), 1.0, str(tmp_path))
    (folder / "train" / "b" / "empty.jpg").unlink()
    assert len(scan(train_of(folder), (8, 8, 3), 1.0, str(tmp_path)).unreadable) == 2
    assert len(passes) == 6


@pytest.mark.parametrize("damage", ["", "{", "[]", "{}", '{"counts": 3}'])
def test_a_damaged_cache_is_made_anew(folder, tmp_path, damage: str) -> None:
    one = scan(train_of(folder), (8, 8, 3), 1.0, str(tmp_path))
    (kept,) = (tmp_path / "scans").iterdir()
    assert json.loads(kept.read_text())["num_read"] == 200
    kept.write_text(damage)
    assert scan(train_of(folder), (8, 8, 3), 1.0, str(tmp_path)) == one
    assert json.loads(kept.read_text())["num_read"] == 200


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(folder, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    assert scan(train_of(folder), (8, 8, 3), 1.0, str(tmp_path / "file")).num_read == 200
