"""The part of a config on how parameters are updated: optimizer and learning rate."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Interval

from jaxcnn.config_strict import Count, NonNegative, Positive, Strict


@dataclass(frozen=True)
class OptimConfig(Strict):
    """The optimizer, and what is done to gradients and weights."""

    name: Literal["sgd", "adamw"] = "sgd"
    """sgd: Nesterov momentum, decay added to the gradient; adamw: decay apart from the gradient."""
    peak_lr: Positive = 0.3
    """Learning rate after warm-up."""
    momentum: Annotated[float, Interval(ge=0.0, lt=1.0)] = 0.9
    """Momentum of sgd."""
    nesterov: bool = True
    """Whether sgd's momentum is Nesterov's."""
    beta1: Annotated[float, Interval(ge=0.0, lt=1.0)] = 0.9
    """adamw: decay of the mean of gradients."""
    beta2: Annotated[float, Interval(ge=0.0, lt=1.0)] = 0.999
    """adamw: decay of the mean of squared gradients."""
    weight_decay: NonNegative = 5e-4
    """Weight decay of the kernels; biases and norm parameters are not decayed."""
    layer_decay: Annotated[float, Interval(gt=0.0, le=1.0)] = 1.0
    """Learning rate of each part of the network (stem, stages, neck, head) as a share of that of the part after it."""
    lr_multipliers: tuple[tuple[str, Positive], ...] = ()
    """Factors of the learning rate by glob of parameter paths, beside layer_decay; the last that matches counts."""
    clip_norm: Positive | None = None
    """Largest global norm of the gradient of the trainable parameters; none: no clipping."""
    accumulation: Count = 1
    """Equal parts in which a batch goes through the network one after the other: less memory, the same batch."""
    ema_decay: Annotated[float, Interval(gt=0.0, lt=1.0)] | None = 0.996
    """Decay a step of the moving average of weights and statistics used to evaluate; none: the weights themselves."""


@dataclass(frozen=True)
class ScheduleConfig(Strict):
    """The learning rate over the run: linear warm-up from 0, then the named shape."""

    name: Literal["cosine", "constant"] = "cosine"
    """Shape after warm-up."""
    warmup_epochs: NonNegative = 2.0
    """Length of the linear warm-up in epochs."""
    final_fraction: Annotated[float, Interval(ge=0.0, le=1.0)] = 0.0
    """Learning rate at the end of the cosine, as a part of the peak."""
