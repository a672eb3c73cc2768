"""The part of a config on how parameters are updated: optimizer and learning rate."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Interval

from jaxcnn.config_strict import Count, NonNegative, Positive, Strict


@dataclass(frozen=True)
class OptimConfig(Strict):
    """The optimizer, and what is done to gradients and weights."""

    name: Literal["sgd", "adamw", "lars", "lamb"] = "sgd"
    """sgd: Nesterov momentum, decay added to the gradient; adamw: decay apart from the gradient; lars, lamb: of these
    with steps of each kernel in proportion to its norm, for large batches."""
    peak_lr: Positive = 0.3
    """Learning rate after warm-up; of a batch of base_batch_size, where lr_scaling says so."""
    lr_scaling: Literal["none", "linear", "sqrt"] = "none"
    """What train.batch_size does to peak_lr. linear: times batch_size / base_batch_size (Goyal et al. 2017); sqrt: by
    the square root of that, as for adamw and lamb (You et al. 2019)."""
    base_batch_size: Count = 256
    """Batch that peak_lr is meant for, where lr_scaling is not none."""
    momentum: Annotated[float, Interval(ge=0.0, lt=1.0)] = 0.9
    """Momentum of sgd and lars."""
    nesterov: bool = True
    """Whether sgd's momentum is Nesterov's; that of lars is not, as in its paper."""
    beta1: Annotated[float, Interval(ge=0.0, lt=1.0)] = 0.9
    """adamw, lamb: decay of the mean of gradients."""
    beta2: Annotated[float, Interval(ge=0.0, lt=1.0)] = 0.999
    """adamw, lamb: decay of the mean of squared gradients."""
    trust_coefficient: Positive = 0.001
    """lars: norm of a step at rate 1, without momentum, as a part of the norm of the kernel (at most)."""
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
