"""The phases of a run: steps in which the same leaves train. A run that thaws nothing on its way has one."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import optax

from jaxcnn.augment.pipeline import make_augment
from jaxcnn.config import ModelConfig, TrainConfig
from jaxcnn.errors import InputError
from jaxcnn.inputs import Inputs, crops_on_host
from jaxcnn.network import Network, build_network
from jaxcnn.paths import GlobRule
from jaxcnn.training.class_weights import class_weights
from jaxcnn.training.health import Look, make_look
from jaxcnn.training.learning_rates import factors_of
from jaxcnn.training.optim import make_optimizer
from jaxcnn.training.partition import first_phases, phase_rules
from jaxcnn.training.state import TrainState, create_state, thawed
from jaxcnn.training.step import Augment, Step, StepOptions, make_step


@dataclass(frozen=True)
class Phase:
    """Steps in which the same leaves train.

    Attributes:
      epoch: where it begins.
      rule: what is frozen.
      model: the network, in which norms that are frozen use their running statistics.
      step: one step; see `training/step.py`.
      seeded: (seed) -> the same step with another seed, which may be an array: one program for several seeds.
      optimizer: of the leaves that train.
      use_ema: whether moving averages are kept.
      augment: what the step does to its images.
      look: figures of the step that comes next; see `training/health.py`.
    """

    epoch: float
    rule: GlobRule
    model: nn.Module
    step: Step
    seeded: Callable[[Any], Step]
    optimizer: optax.GradientTransformation
    use_ema: bool
    augment: Augment
    look: Look

    def begin(self, variables: dict[str, Any]) -> TrainState:
        """Returns the state before step 0 for the variables of the network."""
        return create_state(variables, self.rule, self.optimizer, self.use_ema)

    def go_on(self, state: TrainState) -> TrainState:
        """Returns the state after the last step of the phase before, for the first of this one."""
        return thawed(state, self.rule, self.optimizer)

    def state_shapes(self, network: Network) -> TrainState:
        """Returns the shapes of the state."""
        return jax.eval_shape(self.begin, network.shapes)


def make_phases(
    config: TrainConfig,
    network: Network,
    schedule: Callable,
    inputs: Inputs | None = None,
    start: str | None = None,
    *,
    devices: int = 1,
) -> tuple[Phase, ...]:
    """Returns the phases of a config, in order.

    Args:
      config: what to train.
      network: of it.
      schedule: step -> learning rate.
      inputs: how many examples the classes have, and whether the loader crops; none: equally many, and no.
      start: the point of the network whose output the steps are given; none: they are given images.
      devices: over which each batch is divided.
    """
    config = dataclasses.replace(config, model=on_devices(config, devices))
    params, rules = network.shapes["params"], phase_rules(config.freeze, config.unfreeze)
    optim = config.optim
    factors = factors_of(params, network.model.part_paths, optim.layer_decay, optim.lr_multipliers)
    first = first_phases(params, [rule for _, rule in rules])
    for glob, _ in optim.lr_multipliers:
        if not any(GlobRule((glob,)).matches(path) for path in first):
            raise InputError(f"optim.lr_multipliers: {glob!r} matches only what is frozen in the whole run")
    augment = _augment(config, network, inputs) if start is None else lambda key, features: (features, None)
    options = StepOptions(
        seed=config.seed,
        label_smoothing=config.train.label_smoothing,
        accumulation=optim.accumulation,
        ema_decay=optim.ema_decay,
        class_weights=_class_weights(config, network, inputs),
    )
    phases = []
    for index, (epoch, rule) in enumerate(rules):
        groups = {path: group for path, group in first.items() if group <= index} if len(rules) > 1 else None
        optimizer = make_optimizer(optim, schedule, factors, groups)
        model = build_network(config, network.preprocessing, network.class_names, rule).model
        parts = (model.clone(start=start), optimizer, augment)
        look = make_look(*parts, options, config.model.activation)
        seeded = functools.partial(_seeded, *parts, options)
        step = make_step(*parts, options)
        phases.append(Phase(epoch, rule, model, step, seeded, optimizer, optim.ema_decay is not None, augment, look))
    return tuple(phases)


def on_devices(config: TrainConfig, devices: int) -> ModelConfig:
    """Returns the model's config, with the images that share batch statistics as a number where it is a device's."""
    if config.mesh.batch_norm == "global":
        return config.model
    size = config.train.batch_size // config.optim.accumulation // devices
    return dataclasses.replace(config.model, virtual_batch_size=size)


def _seeded(
    model: nn.Module, optimizer: optax.GradientTransformation, augment: Augment, options: StepOptions, seed: Any
) -> Step:
    return make_step(model, optimizer, augment, dataclasses.replace(options, seed=seed))


def _augment(config: TrainConfig, network: Network, inputs: Inputs | None) -> Any:
    images = network.preprocessing
    on_host = inputs is not None and crops_on_host(config, inputs.kind)
    return make_augment(config.augment, images.mean, images.std, images.image_shape, skip_crop=on_host)


def _class_weights(config: TrainConfig, network: Network, inputs: Inputs | None) -> tuple[float, ...] | None:
    if inputs is None:
        return None
    return class_weights(class_counts(inputs, network), config.train.class_weights)


def class_counts(inputs: Inputs, network: Network) -> Sequence[int]:
    """Returns how many training examples each class has."""
    return np.bincount(inputs.labels, minlength=len(network.class_names)).tolist()
