"""Loss and gradient of a subject for one batch, by any network of its shape."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn.runtime import compiler_options
from jaxcnn.training.losses import Targets
from jaxcnn.training.partition import partition_variables
from jaxcnn.training.state import merge_variables
from jaxcnn.tuning.fitting import undropped
from jaxcnn.tuning.subject import Subject


def loss_and_gradient(
    subject: Subject, model: nn.Module, images: jax.Array, labels: jax.Array
) -> tuple[float, np.ndarray]:
    """Returns the mean loss of a batch, and its gradient to what trains, in one row; without dropout."""
    moving, frozen = partition_variables(subject.variables, subject.frozen)

    def loss(params: Any) -> jax.Array:
        variables = merge_variables({"params": params, "batch_stats": moving["batch_stats"]}, frozen)
        with nn.intercept_methods(undropped(jnp.asarray(True))):
            logits, _ = model.apply(
                variables, images, train=True, mutable=["batch_stats"], rngs={"dropout": jax.random.key(0)}
            )
        return jnp.mean(subject.loss(logits, Targets(labels)))

    value, grads = jax.jit(jax.value_and_grad(loss), compiler_options=compiler_options(training=True))(moving["params"])
    return float(value), np.concatenate([np.ravel(np.asarray(leaf, np.float64)) for leaf in jax.tree.leaves(grads)])
