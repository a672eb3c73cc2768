"""The one convolution that every network uses.

On GPU and TPU it is `lax.conv_general_dilated` and nothing else. On CPU it is `conv_cpu`: the same values in forms that
run faster there. The platform is chosen when the program is lowered (`lax.platform_dependent`), not by the default
backend: one compiles for a TPU on a CPU machine.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from jaxcnn.models.conv_cpu import conv_cpu
from jaxcnn.models.layers import Initializer, kaiming_normal

_NHWC = ("NHWC", "HWIO", "NHWC")


@dataclass(frozen=True)
class Unevaluated:
    """A convolution not yet computed, handed to the norm after it, which may be able to do both at once."""

    x: jax.Array
    kernel: jax.Array
    stride: int
    is_pointwise: bool
    """Whether it is a 1x1 convolution of all channels without padding."""
    compute: Callable[[jax.Array, jax.Array], jax.Array]

    def __call__(self) -> jax.Array:
        return self.compute(self.x, self.kernel)


def evaluated(x: jax.Array | Unevaluated) -> jax.Array:
    """Returns the map that x is or stands for."""
    return x() if isinstance(x, Unevaluated) else x


class Conv(nn.Module):
    """2-D convolution, NHWC x HWIO -> NHWC, padded on both sides by explicit numbers as PyTorch's `padding=`.

    Attributes:
      features: channels of the output.
      kernel_size: side of the kernel in pixels.
      stride: step in pixels, the same along H and W.
      padding: pixels of zeros on each side; none: (kernel_size - 1) // 2, which keeps the size at stride 1.
      groups: parts into which the channels are divided, each seen by its own kernels.
      use_bias: whether a bias a channel is added.
      standardise: use the kernel less its mean, divided by its standard deviation; see `standardised`.
      kernel_init: initialiser of the kernel.
      dtype: compute type; the parameters are float32.
      plain: use `lax.conv_general_dilated` on CPU too (for export and forward-mode derivatives).
      lazy: return it `Unevaluated` where its type is narrower than float32, for a norm that follows at once.
    """

    features: int
    kernel_size: int = 3
    stride: int = 1
    padding: int | None = None
    groups: int = 1
    use_bias: bool = False
    standardise: bool = False
    kernel_init: Initializer = kaiming_normal("fan_out")
    dtype: jnp.dtype = jnp.float32
    plain: bool = False
    lazy: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> Any:
        """Returns [N, H', W', features] for x [N, H, W, C]."""
        side, in_features = self.kernel_size, x.shape[-1]
        if in_features % self.groups or self.features % self.groups:
            raise ValueError(f"groups={self.groups} must divide {in_features=} and features={self.features}")
        shape = (side, side, in_features // self.groups, self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        if self.standardise:
            kernel = standardised(kernel)
        padding = (side - 1) // 2 if self.padding is None else self.padding
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        convolve = _lax_conv if self.plain else conv
        if self.lazy and not self.use_bias and x.dtype.itemsize < 4:
            compute = functools.partial(convolve, stride=self.stride, padding=padding, groups=self.groups)
            return Unevaluated(x, kernel, self.stride, side == 1 and padding == 0 and self.groups == 1, compute)
        y = convolve(x, kernel, self.stride, padding, self.groups)
        if self.use_bias:
            y = y + self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32).astype(self.dtype)
        return y


def standardised(kernel: jax.Array, epsilon: float = 1e-6) -> jax.Array:
    """Returns a kernel [K, K, C, O] with mean 0 and variance 1 over each output channel's K · K · C weights.

    Weight standardisation, Qiao et al. 2019, equations 2 and 3. The variance is the biased one, with the epsilon
    inside the root; the kernel is the parameter as it stands, so no gain is learned (timm's StdConv2d).
    """
    mean = jnp.mean(kernel, axis=(0, 1, 2))  # [O]
    var = jnp.mean(jnp.square(kernel - mean), axis=(0, 1, 2))
    return (kernel - mean) * lax.rsqrt(var + epsilon)


def conv(x: jax.Array, kernel: jax.Array, stride: int = 1, padding: int = 0, groups: int = 1) -> jax.Array:
    """Returns the convolution [N, H', W', O] of x [N, H, W, C] with kernel [K, K, C / groups, O]; see the module."""
    return lax.platform_dependent(
        x,
        kernel,
        cpu=functools.partial(conv_cpu, stride, padding, groups),
        default=functools.partial(_lax_conv, stride=stride, padding=padding, groups=groups),
    )


def _lax_conv(x: jax.Array, kernel: jax.Array, stride: int, padding: int, groups: int) -> jax.Array:
    pads: Sequence[tuple[int, int]] = ((padding, padding),) * 2
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), pads, dimension_numbers=_NHWC, feature_group_count=groups
    )
