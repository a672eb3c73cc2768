"""Order, batches and arrays: every example once an epoch, and nothing but (seed, epoch) decides."""

import numpy as np
import pytest

from jaxcnn.data.loader import input_shape, read_arrays
from jaxcnn.data.order import epoch_order, evaluation_batches, training_places
from jaxcnn.data.source import ArrayRecords, Source
from jaxcnn.data.statistics import channel_statistics
from jaxcnn.errors import InputError


@pytest.mark.parametrize(("num_examples", "batch_size"), [(100, 32), (96, 32), (33, 33), (7, 2)])
def test_each_example_appears_once_an_epoch_across_batch_borders(num_examples: int, batch_size: int) -> None:
    steps = -(-3 * num_examples // batch_size)
    sequence = training_places(num_examples, batch_size, 5, 0, steps).reshape(-1)
    for epoch in range(3):
        part = sequence[epoch * num_examples : (epoch + 1) * num_examples]
        np.testing.assert_array_equal(np.sort(part), np.arange(num_examples))


def test_order_does_not_depend_on_where_one_starts() -> None:
    whole = training_places(50, 16, 1, 0, 20)
    for first, count in ((0, 1), (3, 4), (7, 13), (19, 1)):
        np.testing.assert_array_equal(training_places(50, 16, 1, first, count), whole[first : first + count])


def test_epochs_and_seeds_differ() -> None:
    orders = [epoch_order(100, seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert len({order.tobytes() for order in orders}) == 4


def test_shards_in_order_are_the_batch() -> None:
    whole = training_places(50, 16, 1, 2, 5)
    parts = [training_places(50, 16, 1, 2, 5, shard=(index, 4)) for index in range(4)]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)


@pytest.mark.parametrize(("num_examples", "batch_size"), [(10, 4), (8, 4), (3, 5), (1, 1)])
def test_evaluation_counts_each_example_once(num_examples: int, batch_size: int) -> None:
    batches = list(evaluation_batches(num_examples, batch_size))
    assert all(places.shape == mask.shape == (batch_size,) for places, mask in batches)
    counted = np.concatenate([places[mask] for places, mask in batches])
    np.testing.assert_array_equal(counted, np.arange(num_examples))
    assert all(places.max() < num_examples for places, _ in batches)


def source_of(images: list[np.ndarray], labels: list[int], shape=None) -> Source:
    return Source("made up", ("a", "b"), shape, ArrayRecords(images, labels))


def test_images_of_any_size_are_read_to_one_shape() -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (h, w, 3), np.uint8) for h, w in ((20, 30), (8, 8), (5, 40))]
    arrays = read_arrays(source_of(images, [0, 1, 0]), (8, 8, 3), 1.0)
    assert arrays.images.shape == (3, 8, 8, 3)
    np.testing.assert_array_equal(arrays.images[1], images[1])
    assert arrays.labels.tolist() == [0, 1, 0]


def test_varying_sizes_without_a_size_are_an_error() -> None:
    with pytest.raises(InputError, match=r"made up: its images differ in size; set data.image_size"):
        input_shape(source_of([], []), None)


def test_a_label_outside_the_classes_is_an_error() -> None:
    image = np.zeros((4, 4, 1), np.uint8)
    with pytest.raises(InputError, match=r"example 1 has label 2, outside 0..1"):
        read_arrays(source_of([image] * 3, [0, 2, 1]), (4, 4, 1), 1.0)


def test_a_data_set_larger_than_the_limit_is_an_error() -> None:
    image = np.zeros((4, 4, 1), np.uint8)
    with pytest.raises(InputError, match=r"more than data.resident_limit_gib=1e-09"):
        read_arrays(source_of([image] * 3, [0, 1, 1]), (4, 4, 1), 1e-9)


def test_statistics_are_those_of_numpy() -> None:
    images = np.random.default_rng(1).integers(0, 256, (50, 6, 5, 3), np.uint8)
    mean, std = channel_statistics(images)
    scaled = images.astype(np.float64) / 255
    np.testing.assert_allclose(mean, scaled.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(std, scaled.std((0, 1, 2)), rtol=1e-12)


def test_a_constant_channel_has_a_finite_normalisation() -> None:
    assert channel_statistics(np.full((2, 3, 3, 1), 7, np.uint8))[1] == (1.0,)
