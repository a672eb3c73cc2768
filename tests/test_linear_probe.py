"""The probe: at the optimum of its loss, that of scikit-learn, and blind to what it must not see."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.studies.linear_probe import fit_probe, held_out_mask, logistic_regression, standardisation


def clusters(count: int, num_features: int = 5, num_classes: int = 3, seed: int = 0, noise: float = 1.5):
    """Features float32 [N, F] around a centre a class, and labels."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % num_classes
    centres = np.random.default_rng(7).normal(size=(num_classes, num_features))
    return (centres[labels] + noise * rng.normal(size=(count, num_features))).astype(np.float32), labels


def solved(features, labels, penalty, weights=None, num_classes=3, start=None):
    weights = np.full(len(labels), 1 / len(labels), np.float32) if weights is None else weights
    parts = (jnp.asarray(features), jnp.asarray(labels, jnp.int32), jnp.asarray(weights, jnp.float32))
    return [np.asarray(part, np.float64) for part in logistic_regression(*parts, num_classes, penalty, start)]


def centred(array: np.ndarray) -> np.ndarray:
    """What does not change with a constant added to all logits."""
    return array - array.mean(-1, keepdims=True)


@pytest.mark.parametrize("penalty", [1.0, 1e-2, 1e-4])
def test_the_gradient_is_zero_at_the_solution(penalty: float) -> None:
    features, labels = clusters(90)
    kernel, bias = solved(features, labels, penalty)
    logits = features.astype(np.float64) @ kernel + bias
    errors = np.exp(logits - logits.max(1, keepdims=True))
    errors /= errors.sum(1, keepdims=True)
    errors[np.arange(90), labels] -= 1
    assert np.linalg.norm(features.T @ errors / 90 + penalty * kernel) < 3e-4
    assert np.linalg.norm(errors.mean(0)) < 3e-4


def test_it_is_the_solution_of_scikit_learn() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    features, labels = clusters(120)
    kernel, bias = solved(features, labels, 0.01)
    theirs = linear_model.LogisticRegression(C=1 / (0.01 * 120), tol=1e-8, max_iter=1000).fit(features, labels)
    np.testing.assert_allclose(kernel.T, theirs.coef_, atol=5e-3)
    np.testing.assert_allclose(centred(bias), centred(theirs.intercept_), atol=5e-3)


def test_without_features_it_predicts_the_shares_of_the_classes() -> None:
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    kernel, bias = solved(np.zeros((100, 2), np.float32), labels, 0.1)
    np.testing.assert_allclose(np.exp(bias) / np.exp(bias).sum(), [0.6, 0.3, 0.1], atol=1e-3)
    np.testing.assert_allclose(kernel, 0, atol=1e-6)


def test_a_weight_of_zero_leaves_an_example_out_and_the_start_does_not_matter() -> None:
    features, labels = clusters(60)
    weights = np.r_[np.full(40, 1 / 40), np.zeros(20)]
    few = solved(features[:40], labels[:40], 0.05)
    for start in (None, (jnp.ones((5, 3)), jnp.ones(3))):
        for own, other in zip(solved(features, labels, 0.05, weights, start=start), few, strict=True):
            np.testing.assert_allclose(centred(own), centred(other), atol=5e-3)


def test_a_probe_reads_what_is_linear_and_takes_any_scale() -> None:
    features, labels = clusters(300, noise=0.25)
    others, theirs = clusters(300, noise=0.25, seed=1)
    scale = np.array([1e-4, 1, 1e5, 3, 1], np.float32)
    plain, scaled = fit_probe(features, labels, 3), fit_probe(features * scale + 2 * scale, labels, 3)
    assert plain.accuracy(others, theirs) > 0.9
    assert scaled.penalty == plain.penalty
    expected = pytest.approx(plain.accuracy(others, theirs), abs=0.01)
    assert scaled.accuracy(others * scale + 2 * scale, theirs) == expected


def test_noise_gets_a_strong_penalty_and_few_images_are_enough() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(60, 40)).astype(np.float32)
    assert fit_probe(noise, np.arange(60) % 3, 3).penalty == 1.0
    single = fit_probe(noise[:3], np.arange(3), 3)
    assert single.accuracy(noise[:3], np.arange(3)) == 1.0
    assert np.isnan(single.held_out)


def test_constant_features_are_left_alone() -> None:
    features = np.stack([np.full(50, 1e4) + np.tile([0, 1e-3], 25), np.zeros(50), np.arange(50)], 1).astype(np.float32)
    mean, scale = standardisation(features)
    np.testing.assert_allclose(mean, [1e4, 0, 24.5], rtol=1e-5)
    np.testing.assert_allclose(scale, [1, 1, np.arange(50).std()], rtol=1e-5)


def test_a_fifth_of_each_class_is_held_out() -> None:
    labels = np.repeat([0, 1, 2, 3], [50, 10, 2, 1])
    mask = held_out_mask(labels)
    assert [int(mask[labels == label].sum()) for label in range(4)] == [10, 2, 1, 0]
    np.testing.assert_array_equal(mask, held_out_mask(labels))
