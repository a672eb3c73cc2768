"""Norms against the formulas of their papers, and what distinguishes one from another."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.errors import InputError
from jaxcnn.models.norms import BatchNorm, GroupNorm, InstanceNorm, LayerNorm, NoNorm
from jaxcnn.paths import GlobRule

RNG = np.random.default_rng(0)
X = (RNG.normal(size=(4, 3, 5, 8)) * RNG.uniform(0.5, 2, size=8) + RNG.normal(size=8)).astype(np.float32)
SCALE, BIAS = RNG.normal(size=8).astype(np.float32), RNG.normal(size=8).astype(np.float32)
PER_IMAGE = [LayerNorm(), InstanceNorm(), GroupNorm(4)]


def variables(mean=0.0, var=1.0):
    stats = {"mean": np.full(8, mean, np.float32), "var": np.full(8, var, np.float32)}
    return {"params": {"scale": SCALE, "bias": BIAS}, "batch_stats": stats}


def apply(norm, x, given=None, train=True):
    """Returns the output, and the new running statistics where the norm keeps some."""
    y, new = compiled(norm, train)(given or variables(), x)
    return np.asarray(y), new["batch_stats"]


@functools.cache
def compiled(norm, train):
    return jax.jit(functools.partial(norm(name="norm", train=train).apply, mutable=["batch_stats"]))


def standardised(x, axes):
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + 1e-5)


FORMULAS = {
    BatchNorm(): lambda x: standardised(x, (0, 1, 2)),
    LayerNorm(): lambda x: standardised(x, (1, 2, 3)),
    InstanceNorm(): lambda x: standardised(x, (1, 2)),
    GroupNorm(4): lambda x: standardised(x.reshape(4, 3, 5, 4, 2), (1, 2, 4)).reshape(x.shape),
    BatchNorm(virtual_batch_size=2): lambda x: np.concatenate(
        [standardised(part, (0, 1, 2)) for part in (x[:2], x[2:])]
    ),
}


@pytest.mark.parametrize("norm", FORMULAS, ids=str)
def test_norm_is_the_formula_of_its_paper(norm):
    y, _ = apply(norm, X)
    np.testing.assert_allclose(y, FORMULAS[norm](X.astype(np.float64)) * SCALE + BIAS, rtol=1e-4, atol=1e-5)


def test_no_norm_is_the_identity_without_parameters():
    module = NoNorm()(name="norm", train=True)
    assert not module.init(jax.random.key(0), X)
    np.testing.assert_array_equal(module.apply({}, X), X)


def test_only_batch_norm_makes_an_image_depend_on_the_others():
    alone = X[:1]
    for norm in PER_IMAGE:
        np.testing.assert_allclose(apply(norm, X)[0][:1], apply(norm, alone)[0], atol=1e-5)
    assert np.abs(apply(BatchNorm(), X)[0][:1] - apply(BatchNorm(), alone)[0]).max() > 0.1


def test_group_norm_is_layer_norm_with_one_group_and_instance_norm_with_a_group_a_channel():
    np.testing.assert_allclose(apply(GroupNorm(1), X)[0], apply(LayerNorm(), X)[0], atol=1e-6)
    np.testing.assert_allclose(apply(GroupNorm(8), X)[0], apply(InstanceNorm(), X)[0], atol=1e-6)


def test_norms_of_one_image_are_the_same_in_training_and_inference():
    for norm in PER_IMAGE:
        np.testing.assert_allclose(apply(norm, X, train=True)[0], apply(norm, X, train=False)[0], atol=1e-6)


def test_running_statistics_keep_nine_tenths_and_take_the_unbiased_variance():
    _, new = apply(BatchNorm(), X, variables(mean=2.0, var=3.0))
    np.testing.assert_allclose(new["mean"], 0.9 * 2 + 0.1 * X.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(new["var"], 0.9 * 3 + 0.1 * X.var((0, 1, 2), ddof=1), rtol=1e-5)


def test_inference_uses_the_running_statistics_and_writes_none():
    y, new = apply(BatchNorm(), X, variables(mean=2.0, var=3.0), train=False)
    np.testing.assert_allclose(y, (X - 2) / np.sqrt(3 + 1e-5) * SCALE + BIAS, rtol=1e-4, atol=1e-5)
    assert np.all(new["mean"] == 2)
    assert np.all(new["var"] == 3)


class Parent(nn.Module):
    """A norm sees its path, to which a freeze rule refers, inside a parent only."""

    norm: BatchNorm

    @nn.compact
    def __call__(self, x):
        return self.norm(name="norm", train=True)(x)


def test_a_frozen_batch_norm_trains_as_it_infers():
    frozen = BatchNorm(frozen=GlobRule(("norm/**",)))
    given = variables(mean=2.0, var=3.0)
    parent = {kind: {"norm": tree} for kind, tree in given.items()}

    y, new = Parent(frozen).apply(parent, X, mutable=["batch_stats"])
    np.testing.assert_allclose(y, apply(BatchNorm(), X, given, train=False)[0], rtol=1e-5, atol=1e-5)
    assert np.all(new["batch_stats"]["norm"]["mean"] == 2)
    y, new = Parent(BatchNorm(frozen=GlobRule(("norm/scale",)))).apply(parent, X, mutable=["batch_stats"])
    assert np.all(new["batch_stats"]["norm"]["mean"] != 2), "a norm whose bias still trains is not frozen"


def test_ghost_running_statistics_take_up_part_after_part():
    _, new = apply(BatchNorm(virtual_batch_size=1), X, variables(mean=2.0, var=3.0))
    mean, var = 2.0, 3.0
    for image in X:
        mean = 0.9 * mean + 0.1 * image.mean((0, 1))
        var = 0.9 * var + 0.1 * image.var((0, 1), ddof=1)
    np.testing.assert_allclose(new["mean"], mean, rtol=1e-5)
    np.testing.assert_allclose(new["var"], var, rtol=1e-5)


def test_a_ghost_batch_of_the_whole_batch_is_batch_norm():
    plain, ghost = apply(BatchNorm(), X), apply(BatchNorm(virtual_batch_size=4), X)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), ghost, plain)


def test_a_virtual_batch_that_does_not_divide_the_batch_is_told():
    with pytest.raises(InputError, match="virtual_batch_size=3 must divide the batch of 4"):
        apply(BatchNorm(virtual_batch_size=3), X)


def test_groups_that_do_not_divide_the_channels_are_told():
    with pytest.raises(ValueError, match="num_groups=3 must divide"):
        apply(GroupNorm(3), X)


@pytest.mark.parametrize("norm", FORMULAS, ids=str)
def test_statistics_are_float32_for_bfloat16_input(norm):
    x = jnp.asarray(X, jnp.bfloat16)
    y, _ = apply(norm, x)
    assert y.dtype == jnp.bfloat16
    wide, _ = apply(norm, x.astype(jnp.float32))
    np.testing.assert_allclose(y.astype(np.float32), wide, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("norm", FORMULAS, ids=str)
def test_a_large_mean_does_not_spoil_the_variance(norm):
    """E[x²] - E[x]² loses all digits here, and can turn negative."""
    x = np.round(X * 16) / 16  # exact also beside a large number
    np.testing.assert_allclose(apply(norm, x + 4096)[0], apply(norm, x)[0], atol=2e-2)


def test_factories_are_hashable_values():
    assert BatchNorm(virtual_batch_size=8) == BatchNorm(virtual_batch_size=8)
    assert len({BatchNorm(), BatchNorm(), BatchNorm(virtual_batch_size=8), *PER_IMAGE, NoNorm()}) == 6
