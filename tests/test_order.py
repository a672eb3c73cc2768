"""The order of examples: every one once an epoch, and nothing but (seed, epoch) decides."""

import pickle

import numpy as np
import pytest

from jaxcnn.data.order import TrainingOrder, epoch_order, evaluation_batches


@pytest.mark.parametrize(("num_examples", "batch_size"), [(100, 32), (96, 32), (33, 33), (7, 2)])
def test_each_example_appears_once_an_epoch_across_batch_borders(num_examples: int, batch_size: int) -> None:
    steps = -(-3 * num_examples // batch_size)
    sequence = TrainingOrder(num_examples, batch_size, 5)(0, steps).reshape(-1)
    for epoch in range(3):
        part = sequence[epoch * num_examples : (epoch + 1) * num_examples]
        np.testing.assert_array_equal(np.sort(part), np.arange(num_examples))


def test_order_does_not_depend_on_where_one_starts() -> None:
    whole = TrainingOrder(50, 16, 1)(0, 20)
    for first, count in ((0, 1), (3, 4), (7, 13), (19, 1)):
        np.testing.assert_array_equal(TrainingOrder(50, 16, 1)(first, count), whole[first : first + count])


def test_epochs_and_seeds_differ() -> None:
    orders = [epoch_order(100, seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert len({order.tobytes() for order in orders}) == 4


def test_shards_in_order_are_the_batch() -> None:
    whole = TrainingOrder(50, 16, 1)(2, 5)
    parts = [TrainingOrder(50, 16, 1, shard=(index, 4))(2, 5) for index in range(4)]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)


@pytest.mark.parametrize(("num_examples", "batch_size"), [(10, 4), (8, 4), (3, 5), (1, 1)])
def test_evaluation_counts_each_example_once(num_examples: int, batch_size: int) -> None:
    batches = list(evaluation_batches(num_examples, batch_size))
    assert all(places.shape == mask.shape == (batch_size,) for places, mask in batches)
    counted = np.concatenate([places[mask] for places, mask in batches])
    np.testing.assert_array_equal(counted, np.arange(num_examples))
    assert all(places.max() < num_examples for places, _ in batches)


LABELS = np.array([0] * 70 + [2] * 20 + [3] * 13, np.int32)  # class 1 has no examples


def test_balanced_epochs_have_each_class_equally_often() -> None:
    order = TrainingOrder(len(LABELS), 103, 4, LABELS)
    counts = np.array([np.bincount(LABELS[order(epoch, 1)[0]], minlength=4) for epoch in range(6)])
    assert counts[:, 1].sum() == 0
    assert set(counts[:, [0, 2, 3]].ravel()) == {34, 35}
    assert counts[:3].sum(0).tolist() == counts[3:].sum(0).tolist() == [103, 0, 103, 103]


def test_balanced_epochs_use_all_examples_of_a_class_before_one_comes_again() -> None:
    order = TrainingOrder(len(LABELS), 103, 4, LABELS)
    places = np.concatenate([order(epoch, 1)[0] for epoch in range(9)])
    uses = np.bincount(places, minlength=len(LABELS))
    for label in (0, 2, 3):
        assert np.ptp(uses[label == LABELS]) <= 1


def test_a_balanced_order_is_a_function_of_its_fields_alone() -> None:
    order = TrainingOrder(len(LABELS), 16, 4, LABELS)
    whole = order(0, 20)
    again = pickle.loads(pickle.dumps(order))
    for first, count in ((0, 1), (5, 7), (19, 1)):
        np.testing.assert_array_equal(again(first, count), whole[first : first + count])
    assert not np.array_equal(whole, TrainingOrder(len(LABELS), 16, 5, LABELS)(0, 20))
