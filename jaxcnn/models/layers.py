"""Small parts of networks: activations, initialisers, dropout, pooling."""

import functools
import math
from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from jaxcnn.models.pool_cpu import max_pool_cpu

Activation = Callable[[jax.Array], jax.Array]
Initializer = Callable[..., Any]


@jax.custom_jvp
def relu(x: jax.Array) -> jax.Array:
    """Returns max(x, 0), whose derivative is 1 where the output is positive, else 0.

    That is `nn.relu`; but its derivative is read from the output, which is kept in any case as the input of what comes
    next, not from x, which then need not be kept beside it.
    """
    return jnp.maximum(x, 0)


@relu.defjvp
def _relu_jvp(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    y = relu(*primals)
    return y, lax.select(y > 0, tangents[0], jnp.zeros_like(tangents[0]))


def gelu(x: jax.Array) -> jax.Array:
    """Returns x · Φ(x), exactly (Hendrycks & Gimpel 2016; PyTorch's default)."""
    return nn.gelu(x, approximate=False)


def gelu_tanh(x: jax.Array) -> jax.Array:
    """Returns the tanh approximation of x · Φ(x) (Hendrycks & Gimpel 2016, section 2)."""
    return nn.gelu(x, approximate=True)


ACTIVATIONS: dict[str, Activation] = {
    "relu": relu,
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "silu": nn.silu,
    "sigmoid": nn.sigmoid,
    "tanh": nn.tanh,
    "leaky_relu": nn.leaky_relu,  # slope 0.01
    "elu": nn.elu,
    "hard_swish": nn.hard_swish,
}


# What an initialiser multiplies standard deviations by, so that variances pass an activation unchanged. The first four
# are PyTorch's `calculate_gain`. For the others, which it lacks: 1 / sqrt(E[f(z)²]) with z ~ N(0, 1), which is how He
# et al. 2015, section 2.2, come to sqrt(2) for ReLU.
GAINS: dict[str, float] = {
    "relu": math.sqrt(2),
    "leaky_relu": math.sqrt(2 / (1 + 0.01**2)),
    "tanh": 5 / 3,
    "sigmoid": 1.0,
    "gelu": 1.5335,
    "gelu_tanh": 1.5336,
    "silu": 1.6765,
    "elu": 1.2452,
    "hard_swish": 1.7367,
}

Fan = Literal["fan_in", "fan_out"]


def kaiming_normal(mode: Fan = "fan_out", gain: float = math.sqrt(2)) -> Initializer:
    """Returns N(0, gain² / fan): He et al. 2015 (Delving Deep), equation 10 for fan_in, 14 for fan_out.

    The fan of a kernel [K, K, C / groups, O] is K · K · C / groups, or K · K · O, as PyTorch counts it.
    """
    return nn.initializers.variance_scaling(gain**2, mode, "normal")


def kaiming_uniform(mode: Fan = "fan_in", gain: float = math.sqrt(2)) -> Initializer:
    """Returns U(±gain · sqrt(3 / fan)), of the same variance as `kaiming_normal`."""
    return nn.initializers.variance_scaling(gain**2, mode, "uniform")


def initializer(name: str, activation: str = "relu", std: float = 0.01) -> Initializer:
    """Returns the initialiser of convolution kernels by its name in a config.

    Args:
      name: `kaiming_fan_in_normal` and the like, `xavier_normal`, `orthogonal`, `normal`, ...
      activation: name of the activation that follows: Kaiming's gain is its own; the others have gain 1.
      std: standard deviation of `normal`.
    """
    gain = GAINS[activation]
    return {
        "kaiming_fan_out_normal": kaiming_normal("fan_out", gain),
        "kaiming_fan_in_normal": kaiming_normal("fan_in", gain),
        "kaiming_fan_out_uniform": kaiming_uniform("fan_out", gain),
        "kaiming_fan_in_uniform": kaiming_uniform("fan_in", gain),
        "xavier_normal": nn.initializers.xavier_normal(),  # Glorot & Bengio 2010, cut at two standard deviations
        "xavier_uniform": nn.initializers.xavier_uniform(),  # Glorot & Bengio 2010, equation 16
        "lecun_normal": nn.initializers.lecun_normal(),  # LeCun et al. 1998, section 4.6; cut likewise
        "orthogonal": nn.initializers.orthogonal(),  # Saxe et al. 2013; the columns of [K · K · C, O]
        "normal": nn.initializers.normal(std),  # Simonyan & Zisserman 2014, section 3.1: 0.01
    }[name]


# U(±1/sqrt(fan_in)): what PyTorch gives a Linear layer, small enough that the first loss is near ln K.
dense_init: Initializer = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def dropout(rate: float, kind: Literal["unit", "channel"] = "unit") -> Callable[..., nn.Module]:
    """Returns a factory of dropout of maps [N, H, W, C]: `drop(name="dropout", deterministic=not train)(x)`.

    unit: each value by itself (Srivastava et al. 2014); channel: whole channels of an image, since neighbouring values
    of a map are alike (spatial dropout, Tompson et al. 2015, section 3.2). What is kept is divided by 1 - rate, so that
    inference is the identity. Randomness comes from the rng `dropout`; at rate 0 none is needed.
    """
    return functools.partial(nn.Dropout, rate, broadcast_dims=() if kind == "unit" else (1, 2))


def drop_image(rate: float, *, name: str, train: bool) -> nn.Module:
    """Returns a module that sets [H, W, C] of each image to 0 with probability `rate`: stochastic depth.

    Huang et al. 2016, section 3, on the branch beside a shortcut. Two deviations, as in torchvision and timm: images
    are dropped one by one, not by the batch, and what is kept is divided by 1 - rate in training instead of being
    multiplied by it at inference.
    """
    return nn.Dropout(rate, broadcast_dims=(1, 2, 3), deterministic=not train, name=name)


def max_pool(x: jax.Array, window: int, stride: int, padding: int = 0, *, plain: bool = False) -> jax.Array:
    """Returns the maxima [N, H', W', C] of windows, padded on both sides by `padding` as PyTorch does.

    On CPU by `max_pool_cpu`, with the same values and gradients; `plain`: there too by lax.
    """

    def by_lax(x: jax.Array) -> jax.Array:
        return nn.max_pool(x, (window, window), (stride, stride), ((padding, padding),) * 2)

    if plain or not jnp.issubdtype(x.dtype, jnp.floating):
        return by_lax(x)
    return lax.platform_dependent(x, cpu=functools.partial(max_pool_cpu, window, stride, padding), default=by_lax)


def halve_mean(x: jax.Array) -> jax.Array:
    """Returns the means [N, ceil(H / 2), ceil(W / 2), C] of 2x2 windows, at an odd border of the pixels there are.

    PyTorch's AvgPool2d(2, ceil_mode=True, count_include_pad=False).
    """
    padding = [(0, size % 2) for size in x.shape[1:3]]
    return nn.avg_pool(x, (2, 2), (2, 2), padding, count_include_pad=False)


def global_mean(x: jax.Array) -> jax.Array:
    """Returns the mean over H and W, float32 or wider: [N, C] for [N, H, W, C]."""
    return jnp.mean(x, axis=(1, 2), dtype=jnp.promote_types(x.dtype, jnp.float32))


def adaptive_mean(x: jax.Array, size: int) -> jax.Array:
    """Returns x [N, H, W, C] averaged to [N, size, size, C], with the windows of PyTorch's AdaptiveAvgPool2d.

    Output i averages rows floor(i·H/size) to ceil((i+1)·H/size), so windows overlap, or repeat, where size does not
    divide H.
    """
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    rows, columns = _averaging(x.shape[1], size, dtype), _averaging(x.shape[2], size, dtype)
    return jnp.einsum("ih,nhwc,jw->nijc", rows, x.astype(dtype), columns, precision=lax.Precision.HIGHEST)


def _averaging(length: int, size: int, dtype: Any) -> jax.Array:
    """The matrix [size, length] whose row i averages the window of output i."""
    starts = [i * length // size for i in range(size)]
    ends = [-(-(i + 1) * length // size) for i in range(size)]
    return jnp.array(
        [[(s <= p < e) / (e - s) for p in range(length)] for s, e in zip(starts, ends, strict=True)], dtype
    )
