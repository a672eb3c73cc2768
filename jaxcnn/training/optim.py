"""The optimizer of a config: an optax chain over the trainable leaves."""

from typing import Any

import jax
import optax

from jaxcnn.config import OptimConfig


def make_optimizer(config: OptimConfig, schedule: optax.Schedule) -> optax.GradientTransformation:
    """Returns clip -> decay and direction -> learning rate.

    sgd adds the decay to the gradient before momentum, as PyTorch does; adamw decays apart from the gradient
    (Loshchilov & Hutter 2017, algorithm 2). Decay is for kernels only (He et al. 2019, Bag of Tricks, section 3.1).
    """
    decay = optax.add_decayed_weights(config.weight_decay, mask=_kernels) if config.weight_decay else optax.identity()
    if config.name == "sgd":
        direction = optax.trace(config.momentum, config.nesterov) if config.momentum else optax.identity()
        steps = [decay, direction]
    else:
        steps = [optax.scale_by_adam(config.beta1, config.beta2), decay]
    clip = [optax.clip_by_global_norm(config.clip_norm)] if config.clip_norm else []
    return optax.chain(*clip, *steps, optax.scale_by_learning_rate(schedule))


def _kernels(params: Any) -> Any:
    """Which leaves are kernels of convolutions and dense layers, by the last segment of the path."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)
