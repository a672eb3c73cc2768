"""Arrays of examples, and how images of any size become them."""

from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from jaxcnn.data import loader
from jaxcnn.data.decode import resize_and_centre_crop
from jaxcnn.data.host_crop import CentreCrop
from jaxcnn.data.loader import cached_source, input_shape, read_arrays
from jaxcnn.data.scan import scan
from jaxcnn.data.source import ArrayRecords, Source
from jaxcnn.data.statistics import channel_statistics
from jaxcnn.errors import InputError


def source_of(images: list[np.ndarray], labels: list[int], shape=None) -> Source:
    return Source("made up", ("a", "b"), shape, ArrayRecords(images, labels))


def test_images_of_any_size_are_read_to_one_shape() -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (h, w, 3), np.uint8) for h, w in ((20, 30), (8, 8), (5, 40))]
    arrays = read_arrays(source_of(images, [0, 1, 0]), (8, 8, 3))
    assert arrays.images.shape == (3, 8, 8, 3)
    np.testing.assert_array_equal(arrays.images[1], images[1])
    assert arrays.labels.tolist() == [0, 1, 0]


def test_varying_sizes_without_a_size_are_an_error() -> None:
    with pytest.raises(InputError, match=r"made up: its images differ in size; set data.image_size"):
        input_shape(source_of([], []), None)


def test_a_label_outside_the_classes_is_an_error() -> None:
    image = np.zeros((4, 4, 1), np.uint8)
    with pytest.raises(InputError, match=r"example 1 has label 2, outside 0..1"):
        read_arrays(source_of([image] * 3, [0, 2, 1]), (4, 4, 1))


def test_unreadable_images_are_refused_by_name_or_left_out(caplog, monkeypatch) -> None:
    monkeypatch.setattr(loader.LOG, "propagate", True)
    good = np.full((4, 4, 1), 7, np.uint8)
    source = source_of([good, b"no image", good, b""], [0, 1, 1, 0])
    with pytest.raises(
        InputError, match=r"2 of 4 images are unreadable: example 1 \(.*\); example 3 \(.*unreadable=skip"
    ):
        read_arrays(source, (4, 4, 1))
    kept = read_arrays(source, (4, 4, 1), unreadable="skip")
    assert kept.labels.tolist() == [0, 1]
    assert kept.images.shape == (2, 4, 4, 1)
    assert "left out: 2 of 4 images" in caplog.text
    with pytest.raises(InputError, match="none is left"):
        read_arrays(source_of([b""], [0]), (4, 4, 1), unreadable="skip")


def test_a_cached_source_is_decoded_once_and_reads_the_same(tmp_path, monkeypatch) -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (h, w, 3), np.uint8) for h, w in ((20, 30), (8, 8), (5, 40))]
    source = replace(source_of([*images, b""], [0, 1, 0, 1]), fingerprint="abc")
    expected = read_arrays(source, (8, 8, 3), 0.9, "skip")
    first = cached_source(source, (8, 8, 3), 0.9, "skip", tmp_path)
    monkeypatch.setattr(loader, "decode_into", None)  # a second time nothing is decoded
    again = cached_source(source, (8, 8, 3), 0.9, "skip", tmp_path)
    for found in (first, again):
        np.testing.assert_array_equal(found.read(range(3))[0], expected.images)
        np.testing.assert_array_equal(found.labels, expected.labels)
    with pytest.raises(InputError, match="1 of 4 images are unreadable"):
        cached_source(source, (8, 8, 3), 0.9, "refuse", tmp_path)
    assert len(list((tmp_path / "decoded").iterdir())) == 2


def test_an_interrupted_cache_is_made_again_and_a_small_disk_told(tmp_path, monkeypatch) -> None:
    image = np.zeros((4, 4, 1), np.uint8)
    source = replace(source_of([image] * 3, [0, 1, 1]), fingerprint="abc")

    def fail(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loader, "decode_into", fail)
        with pytest.raises(KeyboardInterrupt):
            cached_source(source, (4, 4, 1), 1.0, "refuse", tmp_path)
    assert not list((tmp_path / "decoded").iterdir())
    monkeypatch.setattr(loader.shutil, "disk_usage", lambda place: SimpleNamespace(free=10))
    with pytest.raises(InputError, match=r"data.cache_dir=.*are needed and 0.0 are free"):
        cached_source(source, (4, 4, 1), 1.0, "refuse", tmp_path)


def test_statistics_are_those_of_numpy() -> None:
    images = np.random.default_rng(1).integers(0, 256, (50, 6, 5, 3), np.uint8)
    mean, std = channel_statistics(images)
    scaled = images.astype(np.float64) / 255
    np.testing.assert_allclose(mean, scaled.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(std, scaled.std((0, 1, 2)), rtol=1e-12)


def test_a_constant_channel_has_a_finite_normalisation() -> None:
    assert channel_statistics(np.full((2, 3, 3, 1), 7, np.uint8))[1] == (1.0,)


@pytest.mark.parametrize(
    "damage", ["no images", "half", "other type", "no notes", "notes of a list", "a place too far"]
)
def test_a_damaged_decoded_copy_is_made_anew(tmp_path, damage: str) -> None:
    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    source = replace(source_of([image] * 3, [0, 1, 1]), fingerprint="abc")
    cached_source(source, (4, 4, 3), 1.0, "refuse", tmp_path)
    (file,), (notes,) = (tmp_path / "decoded").glob("*.npy"), (tmp_path / "decoded").glob("*.json")
    if damage == "no images":
        file.unlink()
    elif damage == "half":
        file.write_bytes(file.read_bytes()[:-60])
    elif damage == "other type":
        np.save(file, np.zeros((3, 4, 4, 3), np.float32))
    else:
        bad = {
            "no notes": "",
            "notes of a list": "[]",
            "a place too far": '{"labels": [0, 1, 1], "unreadable": {"9": "x"}}',
        }
        notes.write_text(bad[damage])
    again = cached_source(source, (4, 4, 3), 1.0, "refuse", tmp_path)
    np.testing.assert_array_equal(again.read([2])[0][0], image)


def test_a_decoded_copy_is_another_source_to_a_scan(tmp_path) -> None:
    image = np.zeros((20, 30, 3), np.uint8)
    source = replace(source_of([image] * 3, [0, 1, 1]), fingerprint="abc")
    copy = cached_source(source, (8, 8, 3), 1.0, "refuse", tmp_path)
    assert scan(copy, (8, 8, 3), 1.0, str(tmp_path)).height == (8, 8, 8)
    assert scan(source, (8, 8, 3), 1.0, str(tmp_path)).height == (20, 20, 20)


def test_the_pixels_of_all_loaders_are_the_same(tmp_path) -> None:
    """A photo-like JPEG, four times as large as the input, in colour and in grey."""
    smooth = cv2.resize(np.random.default_rng(0).integers(0, 256, (8, 12, 3), np.uint8), (192, 128))
    encoded = cv2.imencode(".jpg", smooth)[1].tobytes()
    source = replace(source_of([encoded], [0]), fingerprint="abc")
    for shape in ((32, 32, 3), (32, 32, 1)):
        resident = read_arrays(source, shape, 0.9)
        np.testing.assert_array_equal(CentreCrop(shape, 0.9)(encoded, 0, "x"), resident.images[0])
        np.testing.assert_array_equal(
            cached_source(source, shape, 0.9, "refuse", tmp_path).read([0])[0][0], resident.images[0]
        )
        found = scan(source, shape, 0.9, str(tmp_path))
        assert (found.mean, found.std) == channel_statistics(resident.images)


def test_labels_come_from_the_pass_over_the_images(tmp_path) -> None:
    class Counted(ArrayRecords):
        def labels(self) -> np.ndarray:
            raise AssertionError("the labels are read once more")

    image = np.zeros((4, 4, 3), np.uint8)
    for read in (
        lambda source: read_arrays(source, (4, 4, 3)).labels,
        lambda source: cached_source(source, (4, 4, 3), 1.0, "refuse", tmp_path).labels,
        lambda source: (scan(source, (4, 4, 3), 1.0, str(tmp_path)), source.subset(np.arange(3)).labels)[1],
    ):
        for _ in range(2):  # the second time from the cache
            source = Source("made up", ("a", "b"), None, Counted([image] * 3, [0, 1, 1]), "abc")
            assert read(source).tolist() == [0, 1, 1]


def test_a_strip_takes_no_more_memory_than_a_photo() -> None:
    strip = np.zeros((1, 60_000, 3), np.uint8)
    strip[:, 29_000:31_000] = 200
    np.testing.assert_array_equal(resize_and_centre_crop(strip, 224, 224), np.full((224, 224, 3), 200))


def test_a_source_of_unknown_content_is_not_cached(tmp_path) -> None:
    source = source_of([np.zeros((4, 4, 3), np.uint8)], [0])
    with pytest.raises(InputError, match=r"data.loader=cached: made up has no fingerprint"):
        cached_source(source, (4, 4, 3), 1.0, "refuse", tmp_path)
