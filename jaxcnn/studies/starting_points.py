"""Signal and gradient of the networks of a study before their first step."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxcnn.config import TrainConfig
from jaxcnn.inspection.signal import Signal, make_signal
from jaxcnn.start import initial_variables
from jaxcnn.studies.setting import Setting


def starting_signals(setting: Setting, config: TrainConfig, count: int, kept: Any = None) -> list[Signal]:
    """Returns the figures of the starting points that trials of a config have, one a seed.

    Args:
      setting: data and seeds.
      config: of the trials.
      count: training images whose loss is derived: the first ones in an order that is the same for all.
      kept: a `make_signal` of a network that differs in its initialiser alone, which saves compiling; none: its own.
    """
    job = setting.trials.job(config)
    images, labels = some_images(setting, config, count)
    measure = kept or make_signal(job.network.model)
    x = np.asarray(job.network.normalise(jnp.asarray(images)))
    starts = (initial_variables(dataclasses.replace(config, seed=seed), job.network) for seed in setting.seeds)
    found = [measure(variables, x, labels) for variables in starts]
    job.feed.close()
    return found


def some_images(setting: Setting, config: TrainConfig, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns (uint8 [N, H, W, C], labels [N]) of so many training images, at random but the same for all configs."""
    train = setting.trials.splits(config.data).train
    places = np.random.default_rng(0).permutation(train.num_examples)[:count]
    images, labels = train.read(places.tolist())
    return np.stack(images), labels
