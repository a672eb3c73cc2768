"""Arrays, .npz files and synthetic images as data sets."""

import pickle

import numpy as np
import pytest

from jaxcnn.config import DataConfig
from jaxcnn.data.array_source import splits_from_arrays
from jaxcnn.data.loader import read_arrays
from jaxcnn.data.sources import open_splits
from jaxcnn.data.synthetic_source import CLASS_NAMES, ShapeRecords
from jaxcnn.errors import InputError


def numbered(count: int, channels: int | None = None, first: int = 0) -> np.ndarray:
    """Images 3x4, each of its number."""
    shape = (count, 3, 4) if channels is None else (count, 3, 4, channels)
    return np.broadcast_to(np.arange(first, first + count, dtype=np.uint8).reshape(-1, *[1] * (len(shape) - 1)), shape)


def opened(path, **fields):
    return open_splits(DataConfig(source="npz", data_dir=str(path), **fields))


def test_names_as_keras_has_them(tmp_path) -> None:
    np.savez(
        tmp_path / "d.npz", x_train=numbered(20), y_train=np.arange(20) % 2, x_test=numbered(4), y_test=np.ones(4, int)
    )
    splits = opened(tmp_path / "d.npz")
    assert [source.num_examples for source in splits.named().values()] == [18, 2, 4]
    assert splits.train.image_shape == (3, 4, 1)
    assert splits.train.class_names == ("0", "1")
    assert splits.validation.labels.tolist().count(0) == 1
    kept = {int(i[0, 0, 0]) for s in (splits.train, splits.validation) for i in s.read(range(s.num_examples))[0]}
    assert kept == set(range(20))


def test_names_as_medmnist_has_them(tmp_path) -> None:
    arrays = {f"{split}_images": numbered(5, 3) for split in ("train", "val", "test")}
    arrays |= {f"{split}_labels": np.zeros((5, 1), np.uint8) for split in ("train", "val", "test")}
    np.savez_compressed(tmp_path / "d.npz", class_names=np.array(["lung", "hëart"]), **arrays)
    splits = opened(tmp_path / "d.npz", train_split="train[:60%]")
    assert [source.num_examples for source in splits.named().values()] == [3, 5, 5]
    assert splits.train.class_names == ("lung", "hëart")


def test_one_pair_of_arrays_is_divided(tmp_path) -> None:
    np.savez(tmp_path / "d.npz", images=numbered(100, 1), labels=np.repeat([0, 1], 50))
    sources = opened(tmp_path / "d.npz").named()
    assert {n: np.bincount(s.labels).tolist() for n, s in sources.items()} == {
        "train": [40, 40], "validation": [5, 5], "test": [5, 5],
    }  # fmt: skip
    first = [int(image[0, 0, 0]) for image in sources["validation"].read(range(5))[0]]
    assert first != list(range(5))  # at random, not the first of each class


GOOD = {"x_train": numbered(4), "y_train": np.arange(4)}


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({"a": np.zeros(3)}, r"no images to train on; it has a"),
        ({"x_train": numbered(4)}, r"x_train and y_train belong together, one is missing"),
        (GOOD | {"x_train": np.zeros((4, 3, 4), np.float32)}, r"images are float32, not uint8 in 0..255; from 0..1"),
        (GOOD | {"x_train": np.zeros((4, 3, 4), np.int64)}, r"images are int64, not uint8 in 0..255$"),
        (GOOD | {"x_train": np.zeros((4, 12), np.uint8)}, r"images have shape \(4, 12\), not \[N, H, W\]"),
        (GOOD | {"x_train": np.zeros((4, 3, 4, 2), np.uint8)}, r"images have shape \(4, 3, 4, 2\)"),
        (GOOD | {"y_train": np.eye(4)}, r"labels are float64 \(4, 4\), not one whole number an image"),
        (GOOD | {"y_train": np.arange(3)}, r"has 4 images and 3 labels"),
        (GOOD | {"y_train": np.arange(4) - 1}, r"labels: -1 is below 0"),
        (GOOD | {"class_names": np.array(["a", "b"])}, r"label 3 is outside the 2 class_names"),
        (GOOD | {"x_test": numbered(4, 3), "y_test": np.arange(4)}, r"images differ in shape between splits"),
        (GOOD | {"y_train": np.array([{}] * 4)}, r"not a readable .npz file of arrays \(Object arrays"),
    ],
)
def test_arrays_that_cannot_be_used_are_told_in_one_line(tmp_path, arrays, told: str) -> None:
    np.savez(tmp_path / "d.npz", **arrays)
    with pytest.raises(InputError, match=told) as error:
        opened(tmp_path / "d.npz")
    assert "\n" not in str(error.value)


def test_a_file_that_is_none_is_told(tmp_path) -> None:
    (tmp_path / "d.npz").write_bytes(b"PK\3\4 no")
    with pytest.raises(InputError, match=r"d.npz': not a readable .npz file"):
        opened(tmp_path / "d.npz")
    with pytest.raises(InputError, match=r"e.npz': no such file"):
        opened(tmp_path / "e.npz")


def test_arrays_in_memory_are_splits() -> None:
    splits = splits_from_arrays(
        (numbered(30, 3), np.arange(30) % 3), test=(numbered(3, 3), [0, 1, 2]), class_names=tuple("abc")
    )
    assert [source.num_examples for source in splits.named().values()] == [27, 3, 3]
    assert sorted(splits.validation.labels.tolist()) == [0, 1, 2]
    arrays = read_arrays(splits.test, (3, 4, 3), 1.0)
    np.testing.assert_array_equal(arrays.images, numbered(3, 3))
    again = splits_from_arrays((numbered(30, 3), np.arange(30) % 3)).train.fingerprint
    other = splits_from_arrays((numbered(30, 3, 1), np.arange(30) % 3)).train.fingerprint
    assert again != other


def test_synthetic_images_are_a_pure_function_of_seed_and_place() -> None:
    records = ShapeRecords(100, 24, seed=3)
    one, label = pickle.loads(pickle.dumps(records)).read([41])[0]
    np.testing.assert_array_equal(one, records.read([7, 41])[1][0])
    assert one.shape == (24, 24, 3)
    assert label == records.labels()[41] == 41 % len(CLASS_NAMES)
    assert (ShapeRecords(100, 24, seed=4).read([41])[0][0] != one).any()


def test_synthetic_splits_have_the_size_asked_for_and_no_image_in_common() -> None:
    splits = open_splits(DataConfig(source="synthetic", image_size=16, train_split="train[:50]")).named()
    assert [source.num_examples for source in splits.values()] == [50, 600, 600]
    assert splits["train"].image_shape == (16, 16, 3)
    seen = [image.tobytes() for source in splits.values() for image in source.read(range(50))[0]]
    assert len(set(seen)) == 150


def test_shapes_are_told_apart_by_their_nearest_neighbour_better_than_by_chance() -> None:
    def outlines(seed: int, count: int) -> np.ndarray:
        """Where an image differs from its ground, moved to the middle: what a classifier has to find."""
        images = np.stack([image for image, _ in ShapeRecords(count, 32, seed).read(range(count))]).astype(int)
        masks = np.abs(images - np.median(images, (1, 2), keepdims=True)).sum(-1) > 100
        centred = [np.roll(m, 16 - np.argwhere(m).mean(0).astype(int), (0, 1)) for m in masks]
        return np.stack(centred).reshape(count, -1).astype(float)

    train, test = outlines(0, 300), outlines(1, 60)
    nearest = ((test[:, None] - train[None]) ** 2).sum(-1).argmin(1)
    assert (nearest % 6 == np.arange(60) % 6).mean() > 0.5
