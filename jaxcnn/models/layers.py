"""Small parts of networks: activations, initialisers, pooling, dense layers."""

from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

Activation = Callable[[jax.Array], jax.Array]
Initializer = Callable[..., Any]


def gelu(x: jax.Array) -> jax.Array:
    """Returns x · Φ(x), exactly (Hendrycks & Gimpel 2016; PyTorch's default)."""
    return nn.gelu(x, approximate=False)


def gelu_tanh(x: jax.Array) -> jax.Array:
    """Returns the tanh approximation of x · Φ(x) (Hendrycks & Gimpel 2016, section 2)."""
    return nn.gelu(x, approximate=True)


ACTIVATIONS: dict[str, Activation] = {
    "relu": nn.relu,
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "silu": nn.silu,
    "sigmoid": nn.sigmoid,
    "tanh": nn.tanh,
    "leaky_relu": nn.leaky_relu,  # slope 0.01
    "elu": nn.elu,
    "hard_swish": nn.hard_swish,
}


def kaiming_normal(mode: Literal["fan_in", "fan_out"] = "fan_out") -> Initializer:
    """Returns N(0, 2 / fan): He et al. 2015 (Delving Deep), equation 10 for fan_in, 14 for fan_out; gain of ReLU."""
    return nn.initializers.variance_scaling(2.0, mode, "normal")


def kaiming_uniform(mode: Literal["fan_in", "fan_out"] = "fan_in") -> Initializer:
    """Returns U(±sqrt(6 / fan)), of the same variance as `kaiming_normal`."""
    return nn.initializers.variance_scaling(2.0, mode, "uniform")


INITIALIZERS: dict[str, Initializer] = {
    "kaiming_fan_out_normal": kaiming_normal("fan_out"),
    "kaiming_fan_in_normal": kaiming_normal("fan_in"),
    "kaiming_fan_out_uniform": kaiming_uniform("fan_out"),
    "kaiming_fan_in_uniform": kaiming_uniform("fan_in"),
    "xavier_normal": nn.initializers.xavier_normal(),  # Glorot & Bengio 2010
    "xavier_uniform": nn.initializers.xavier_uniform(),  # Glorot & Bengio 2010, equation 16
    "lecun_normal": nn.initializers.lecun_normal(),  # LeCun et al. 1998, section 4.6
    "orthogonal": nn.initializers.orthogonal(),  # Saxe et al. 2013
}

# U(±1/sqrt(fan_in)): what PyTorch gives a Linear layer, small enough that the first loss is near ln K.
dense_init: Initializer = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def max_pool(x: jax.Array, window: int, stride: int, padding: int = 0) -> jax.Array:
    """Returns the maxima [N, H', W', C] of windows, padded on both sides by `padding` as PyTorch does."""
    return nn.max_pool(x, (window, window), (stride, stride), ((padding, padding),) * 2)


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
