"""`model.plain`: the same network with the derivatives that JAX finds, forward ones among them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.config import ModelConfig
from jaxcnn.errors import InputError
from jaxcnn.models.registry import build_model
from jaxcnn.paths import flatten

IMAGES = np.random.default_rng(0).normal(size=(4, 32, 32, 3)).astype(np.float32)
NETWORKS = [
    ModelConfig(name="resnet18", width=4, stem="imagenet"),
    ModelConfig(name="vgg11", width=4, norm="batch", neck="pooled", dropout=0.0),
]


def pair(config: ModelConfig):
    """The loss of the network of a config and of the plain one, and parameters."""
    losses, params = [], None
    for plain in (False, True):
        model = build_model(ModelConfig(**{**vars(config), "plain": plain}), (32, 32, 3), 10)
        variables = jax.jit(model.init)(jax.random.key(0), IMAGES)
        params = variables["params"]

        def loss(params, model=model, variables=variables):
            logits, _ = model.apply({**variables, "params": params}, IMAGES, train=True, mutable=["batch_stats"])
            return jnp.mean(jnp.square(logits))

        losses.append(loss)
    return (*losses, params)


@pytest.mark.parametrize("config", NETWORKS, ids=lambda config: config.name)
def test_plain_has_the_same_loss_and_gradients(config: ModelConfig) -> None:
    ours, plain, params = pair(config)
    (value, grads), (expected, expected_grads) = (jax.jit(jax.value_and_grad(loss))(params) for loss in (ours, plain))
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    wanted = flatten(expected_grads)
    largest = max(float(jnp.max(jnp.abs(leaf))) for leaf in wanted.values())
    for path, grad in flatten(grads).items():
        # A bias before a norm has no gradient but rounding: errors are compared with a thousandth of the largest, too.
        scale = max(float(jnp.max(jnp.abs(wanted[path]))), 1e-3 * largest)
        np.testing.assert_allclose(grad / scale, wanted[path] / scale, atol=2e-3, err_msg=path)


@pytest.mark.parametrize("config", NETWORKS, ids=lambda config: config.name)
def test_plain_has_forward_derivatives(config: ModelConfig) -> None:
    _, plain, params = pair(config)
    direction = jax.tree.map(jnp.ones_like, params)
    grads, tangent = jax.jit(lambda p, d: (jax.grad(plain)(p), jax.jvp(plain, (p,), (d,))[1]))(params, direction)
    expected = sum(jnp.sum(leaf) for leaf in jax.tree.leaves(grads))
    np.testing.assert_allclose(tangent, expected, rtol=1e-3)


def test_blocks_in_a_loop_cannot_be_plain() -> None:
    with pytest.raises(InputError, match=r"^model\.scan_blocks=True: blocks in a loop have no forward derivatives"):
        build_model(ModelConfig(scan_blocks=True, plain=True), (32, 32, 3), 10)
