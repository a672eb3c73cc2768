"""The optimizer of a config: an optax chain over the trainable leaves."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxcnn.config import OptimConfig


def make_optimizer(
    config: OptimConfig,
    schedule: optax.Schedule,
    factors: Mapping[str, float] | None = None,
    groups: Mapping[str, int] | None = None,
) -> optax.GradientTransformation:
    """Returns clip -> decay and direction -> learning rate; of lars momentum comes last.

    sgd adds the decay to the gradient before momentum, as PyTorch does; adamw decays apart from the gradient
    (Loshchilov & Hutter 2017, algorithm 2). Decay is for kernels only (He et al. 2019, Bag of Tricks, section 3.1), and
    so are the trust ratios of lars and lamb, as in MLPerf's ResNet-50: biases and norm parameters get the steps of
    plain momentum and of Adam.

    lars is algorithm 1 of You et al. 2017, Large Batch Training of Convolutional Networks, which sums steps after the
    learning rate, v <- momentum · v + rate · λ · (g + decay · w): a change of the rate reaches momentum late, and what
    warm-up has summed stays small. MLPerf's is the same; libraries that have momentum before the rate (NVIDIA's LARC)
    differ while the rate changes. lamb is algorithm 2 of You et al. 2019 with φ the identity and ε of 1e-6.

    Args:
      config: which optimizer.
      schedule: step -> learning rate.
      factors: of the learning rate, by path; see `learning_rates.py`. None: 1 for all.
      groups: the phase in which each leaf began to train, by path. Adam corrects the bias of its means by the number of
        their steps, so leaves that were thawed later count their own. None: of a run in which none are.
    """
    decay = optax.add_decayed_weights(config.weight_decay, mask=_kernels) if config.weight_decay else optax.identity()
    last: list[optax.GradientTransformation] = []
    if config.name == "sgd":
        steps = [decay, _momentum(config, config.nesterov)]
    elif config.name == "lars":
        steps = [_lars_rates(config.trust_coefficient, config.weight_decay)]
        last = [_momentum(config, nesterov=False)]
    else:
        epsilon = 1e-6 if config.name == "lamb" else 1e-8
        steps = [_in_groups(lambda: optax.scale_by_adam(config.beta1, config.beta2, epsilon), groups), decay]
        steps += [optax.masked(optax.scale_by_trust_ratio(), _kernels)] if config.name == "lamb" else []
    clip = [optax.clip_by_global_norm(config.clip_norm)] if config.clip_norm else []
    scale = [_scale_by(factors)] if factors and set(factors.values()) != {1.0} else []
    return optax.chain(*clip, *steps, *scale, optax.scale_by_learning_rate(schedule), *last)


def carry_over(old: Any, new: Any) -> Any:
    """Returns the new state of an optimizer with the leaves that the old one has too: moments, counts.

    What has begun to train in between starts as `new` has it.
    """
    held = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(old)}
    return jax.tree_util.tree_map_with_path(lambda path, leaf: held.get(jax.tree_util.keystr(path), leaf), new)


def _momentum(config: OptimConfig, nesterov: bool) -> optax.GradientTransformation:
    return optax.trace(config.momentum, nesterov) if config.momentum else optax.identity()


def _lars_rates(coefficient: float, decay: float) -> optax.GradientTransformation:
    """λ · (g + decay · w) of each kernel, with λ = coefficient · |w| / (|g| + decay · |w|); the gradient of the others.

    optax.lars divides by |g + decay · w| instead, so that its step is as long where the two cancel. λ is 1 for what has
    no norm, a kernel or a gradient of zeros, as in MLPerf's and in optax.
    """

    def scaled(grads: Any, params: Any) -> Any:
        def one(is_kernel: bool, grad: jax.Array, weight: jax.Array) -> jax.Array:
            if not is_kernel:
                return grad
            size, slope = jnp.linalg.norm(weight), jnp.linalg.norm(grad)
            ratio = coefficient * size / (slope + decay * size)
            step = grad + decay * weight if decay else grad
            return jnp.where((size > 0) & (slope > 0), ratio, 1.0) * step

        return jax.tree.map(one, _kernels(params), grads, params)

    return optax.stateless(scaled)


def _in_groups(make: Any, groups: Mapping[str, int] | None) -> optax.GradientTransformation:
    """One transformation a group, each with a count of its own."""
    if groups is None:
        return make()
    transforms = {str(group): make() for group in sorted(set(groups.values()))}

    def labels(params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(lambda path, _: str(groups[_name(path)]), params)

    return optax.partition(transforms, labels)


def _scale_by(factors: Mapping[str, float]) -> optax.GradientTransformation:
    def scaled(updates: Any, params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(lambda path, update: factors[_name(path)] * update, updates)

    return optax.stateless(scaled)


def _kernels(params: Any) -> Any:
    """Which leaves are kernels of convolutions and dense layers, by the last segment of the path."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


def _name(path: Any) -> str:
    return "/".join(entry.key for entry in path)
