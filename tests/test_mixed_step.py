"""The training step where images are mixed or classes weighted."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcnn.augment.mixing import Mix
from jaxcnn.augment.pipeline import make_augment
from jaxcnn.config import AffineConfig, AugmentConfig, CutmixConfig, MixupConfig, OptimConfig, PadCropConfig
from jaxcnn.models.norms import GroupNorm
from jaxcnn.training.losses import cross_entropy
from jaxcnn.training.step import StepOptions
from tests.test_training import IMAGES, TARGETS, build, leaves, network, plain_augment

SHARE = jnp.asarray(np.random.default_rng(1).uniform(0, 1, 16), jnp.float32)
PLAIN = OptimConfig(momentum=0.0, weight_decay=0.0)
WEIGHTS = (0.5, 1.0, 2.0, 0.25, 1.5)


def mixing_augment(key: jax.Array, images: jax.Array) -> tuple[jax.Array, Mix]:
    images, partner = plain_augment(key, images)[0], (jnp.arange(16) - 1) % 16
    share = SHARE[:, None, None, None]
    return share * images + (1 - share) * images[partner], Mix(partner, SHARE)


@pytest.mark.parametrize("parts", [1, 4])
def test_a_step_follows_the_gradient_of_the_mixed_and_weighted_loss(parts: int) -> None:
    model = network(GroupNorm(2))
    options = StepOptions(0, label_smoothing=0.1, accumulation=parts, class_weights=WEIGHTS)
    step, state = build(model, options, PLAIN, augment=mixing_augment)
    new, sums = jax.jit(step)(state, IMAGES[:16], TARGETS[:16])
    images, mix = mixing_augment(jax.random.key(0), jnp.asarray(IMAGES[:16]))
    hot = 0.9 * np.eye(5) + 0.1 / 5  # smoothed
    own, other = TARGETS[:16], TARGETS[:16][mix.partner]

    def loss(params):
        logits = model.apply({"params": params, "batch_stats": state.batch_stats}, images, train=False)
        first, second = (np.array(WEIGHTS)[k] * optax.softmax_cross_entropy(logits, hot[k]) for k in (own, other))
        return jnp.mean(SHARE * first + (1 - SHARE) * second), logits

    (_, logits), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
    expected = leaves(jax.tree.map(lambda p, g: p - 0.1 * g, state.params, grads))
    for path, value in leaves(new.params).items():
        np.testing.assert_allclose(value, expected[path], atol=1e-5, err_msg=path)
    # The sums are plain cross-entropies of the images' own labels.
    assert float(sums["loss"]) == pytest.approx(float(jnp.sum(cross_entropy(logits, own))), rel=1e-5)


def test_equal_weights_of_one_change_nothing() -> None:
    results = []
    for weights in (None, (1.0,) * 5):
        step, state = build(network(), StepOptions(0, class_weights=weights), PLAIN)
        results.append(leaves(jax.jit(step)(state, IMAGES[:16], TARGETS[:16])[0].params))
    for path, value in results[0].items():
        np.testing.assert_allclose(results[1][path], value, atol=1e-6, err_msg=path)


def test_the_pipeline_and_the_step_fit_together() -> None:
    config = AugmentConfig(PadCropConfig(0.0), AffineConfig(0.0), mixup=MixupConfig(0.5), cutmix=CutmixConfig(0.5))
    augment = make_augment(config, (0.5,) * 3, (0.2,) * 3, (8, 8, 3))
    step, state = build(network(), StepOptions(0, label_smoothing=0.1, accumulation=2), augment=augment)
    state, sums = jax.jit(step)(state, IMAGES[:32], TARGETS[:32])
    assert np.isfinite(float(sums["loss"]))
    assert int(sums["examples"]) == 32
