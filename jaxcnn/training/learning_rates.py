"""The peak of the learning rate by batch size, and learning rates of single leaves: by depth, and by name."""

import math
from collections.abc import Sequence

from jaxcnn.config import TrainConfig
from jaxcnn.errors import InputError
from jaxcnn.paths import GlobRule, Tree, flatten


def batch_factor(config: TrainConfig) -> float:
    """Returns what optim.lr_scaling multiplies optim.peak_lr by.

    linear: batch / base. A step with k times the examples stands for k small ones, as long as the gradient is about
    the same in all of them (Goyal et al. 2017, section 2.1). sqrt: the square root of this, for optimizers that divide
    by the size of the gradient (You et al. 2019, section 4; Malladi et al. 2022). The batch is that of a step, over all
    devices and parts of an accumulation.
    """
    ratio = config.train.batch_size / config.optim.base_batch_size
    return {"none": 1.0, "linear": ratio, "sqrt": math.sqrt(ratio)}[config.optim.lr_scaling]


def peak_rate(config: TrainConfig) -> float:
    """Returns the learning rate after warm-up: optim.peak_lr for the batch that it is used with."""
    return config.optim.peak_lr * batch_factor(config)


def peak_told(config: TrainConfig) -> str:
    """Returns how the peak comes about, such as `0.1 x 1024 / 256 = 0.4`; where nothing is scaled it is a number."""
    optim, ratio = config.optim, f"{config.train.batch_size} / {config.optim.base_batch_size}"
    if optim.lr_scaling == "none":
        return f"{optim.peak_lr:g}"
    factor = ratio if optim.lr_scaling == "linear" else f"sqrt({ratio})"
    return f"{optim.peak_lr:g} x {factor} = {peak_rate(config):g}"


def factors_of(
    params: Tree, part_paths: Sequence[str], layer_decay: float, multipliers: Sequence[tuple[str, float]]
) -> dict[str, float]:
    """Returns the factor of each leaf's learning rate, by path: decay by depth times that of the last matching glob.

    The last part, the head, has 1, the one before it `layer_decay`, the one before that `layer_decay`², ... (Howard &
    Ruder 2018, section 3.2, discriminative fine-tuning; there a layer, here a stage).

    Args:
      params: all parameters of the network.
      part_paths: its parts in order, such as `backbone/stem`, ..., `head`.
      layer_decay: factor from a part to the one before.
      multipliers: (glob, factor).

    Raises:
      InputError: a glob that matches nothing, or takes back.
    """
    for glob, _ in multipliers:
        if glob.startswith("!"):
            raise InputError(f"optim.lr_multipliers: {glob!r} takes back; give those leaves another factor instead")
        GlobRule((glob,)).check(flatten(params), "optim.lr_multipliers")
    depths = {part: depth for depth, part in enumerate(reversed(part_paths))}
    factors = {}
    for path in flatten(params):
        depth = next((depth for part, depth in depths.items() if path.startswith(f"{part}/")), 0)
        own = [factor for glob, factor in multipliers if GlobRule((glob,)).matches(path)]
        factors[path] = layer_decay**depth * (own[-1] if own else 1.0)
    return factors
