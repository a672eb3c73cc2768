"""Losses of mixed and weighted examples, against optax with the target written out."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcnn.training.losses import Targets, target_losses

RNG = np.random.default_rng(0)
LOGITS = jnp.asarray(RNG.normal(0, 2, (6, 4)), jnp.float32)
LABELS, OTHERS = jnp.array([0, 1, 2, 3, 1, 1]), jnp.array([3, 1, 0, 0, 2, 1])
SHARE = jnp.array([1.0, 0.3, 0.0, 0.75, 0.5, 0.9])


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_of_a_mixed_example_is_that_of_its_mixed_and_smoothed_target(smoothing: float) -> None:
    target = SHARE[:, None] * np.eye(4)[LABELS] + (1 - SHARE)[:, None] * np.eye(4)[OTHERS]
    expected = optax.softmax_cross_entropy(LOGITS, (1 - smoothing) * target + smoothing / 4)
    found = target_losses(LOGITS, Targets(LABELS, OTHERS, SHARE), smoothing)
    np.testing.assert_allclose(found, expected, rtol=2e-6)


def test_each_part_of_a_target_has_the_weight_of_its_label() -> None:
    weights = (0.5, 1.0, 2.0, 0.0)
    own, other = (optax.softmax_cross_entropy_with_integer_labels(LOGITS, labels) for labels in (LABELS, OTHERS))
    factors = np.array(weights)
    np.testing.assert_allclose(target_losses(LOGITS, Targets(LABELS), 0.0, weights), factors[LABELS] * own, rtol=2e-6)
    expected = SHARE * factors[LABELS] * own + (1 - SHARE) * factors[OTHERS] * other
    found = target_losses(LOGITS, Targets(LABELS, OTHERS, SHARE), 0.0, weights)
    np.testing.assert_allclose(found, expected, rtol=2e-6)


def test_a_wrong_number_of_weights_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"len\(class_weights\)=3 must be the number of classes, 4"):
        target_losses(LOGITS, Targets(LABELS), class_weights=(1.0, 1.0, 1.0))
