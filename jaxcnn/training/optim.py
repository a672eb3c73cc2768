"""The optimizer of a config: an optax chain over the trainable leaves."""

from collections.abc import Mapping
from typing import Any

import jax
import optax

from jaxcnn.config import OptimConfig


def make_optimizer(
    config: OptimConfig,
    schedule: optax.Schedule,
    factors: Mapping[str, float] | None = None,
    groups: Mapping[str, int] | None = None,
) -> optax.GradientTransformation:
    """Returns clip -> decay and direction -> learning rate.

    sgd adds the decay to the gradient before momentum, as PyTorch does; adamw decays apart from the gradient
    (Loshchilov & Hutter 2017, algorithm 2). Decay is for kernels only (He et al. 2019, Bag of Tricks, section 3.1).

    Args:
      config: which optimizer.
      schedule: step -> learning rate.
      factors: of the learning rate, by path; see `learning_rates.py`. None: 1 for all.
      groups: the phase in which each leaf began to train, by path. Adam corrects the bias of its means by the number of
        their steps, so leaves that were thawed later count their own. None: of a run in which none are.
    """
    decay = optax.add_decayed_weights(config.weight_decay, mask=_kernels) if config.weight_decay else optax.identity()
    if config.name == "sgd":
        direction = optax.trace(config.momentum, config.nesterov) if config.momentum else optax.identity()
        steps = [decay, direction]
    else:
        steps = [_in_groups(lambda: optax.scale_by_adam(config.beta1, config.beta2), groups), decay]
    clip = [optax.clip_by_global_norm(config.clip_norm)] if config.clip_norm else []
    scale = [_scale_by(factors)] if factors and set(factors.values()) != {1.0} else []
    return optax.chain(*clip, *steps, *scale, optax.scale_by_learning_rate(schedule))


def carry_over(old: Any, new: Any) -> Any:
    """Returns the new state of an optimizer with the leaves that the old one has too: moments, counts.

    What has begun to train in between starts as `new` has it.
    """
    held = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(old)}
    return jax.tree_util.tree_map_with_path(lambda path, leaf: held.get(jax.tree_util.keystr(path), leaf), new)


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
