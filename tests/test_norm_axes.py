"""Which outputs of a norm change with one value of its input: measured of the modules, and by formula."""

import numpy as np
import pytest

from jaxcnn.inspection.norm_axes import formula_sets, measured_sets
from jaxcnn.models.norms import BatchNorm, GroupNorm, InstanceNorm, LayerNorm, NoNorm

SHAPE = (4, 2, 2, 6)
NORMS = [
    BatchNorm(), BatchNorm(plain=True), BatchNorm(virtual_batch_size=2), LayerNorm(), InstanceNorm(), GroupNorm(3),
    GroupNorm(1), NoNorm(),
]  # fmt: skip


@pytest.mark.parametrize("norm", NORMS, ids=str)
def test_what_changes_is_what_the_formula_says_for_each_value_of_the_input(norm) -> None:
    measured = measured_sets(norm, SHAPE)
    assert measured.shape == (96, *SHAPE)
    assert np.array_equal(measured, formula_sets(norm, SHAPE))


def test_in_inference_batch_norm_ties_no_values_together() -> None:
    measured = measured_sets(BatchNorm(), SHAPE, train=False)
    assert np.array_equal(measured.reshape(96, 96), np.eye(96))
    assert np.array_equal(measured, formula_sets(BatchNorm(), SHAPE, train=False))


@pytest.mark.parametrize(
    ("norm", "where"),
    [  # of the value [1, 0, 1, 4]: written out
        (BatchNorm(), np.s_[:, :, :, 4]),
        (BatchNorm(virtual_batch_size=2), np.s_[:2, :, :, 4]),
        (LayerNorm(), np.s_[1]),
        (InstanceNorm(), np.s_[1, :, :, 4]),
        (GroupNorm(3), np.s_[1, :, :, 4:6]),
        (GroupNorm(2), np.s_[1, :, :, 3:6]),
    ],
    ids=str,
)
def test_the_formula_is_that_of_the_papers(norm, where) -> None:
    expected = np.zeros(SHAPE, bool)
    expected[where] = True
    assert np.array_equal(formula_sets(norm, SHAPE)[np.ravel_multi_index((1, 0, 1, 4), SHAPE)], expected)


def test_a_norm_over_other_axes_is_told_from_the_formula() -> None:
    assert not np.array_equal(measured_sets(LayerNorm(), SHAPE), formula_sets(InstanceNorm(), SHAPE))
    assert np.array_equal(measured_sets(GroupNorm(6), SHAPE), formula_sets(InstanceNorm(), SHAPE))


def test_a_norm_without_a_formula_is_refused() -> None:
    with pytest.raises(ValueError, match="no formula"):
        formula_sets(lambda **options: None, SHAPE)  # type: ignore[arg-type]
