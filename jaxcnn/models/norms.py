"""Normalisation layers, as factories: frozen, hashable values that a network is given and calls at each place.

    ResNet(norm=GroupNorm(num_groups=32))
    norm(name="norm1", train=train)(x)

All compute over images NHWC, with x̂ = (x - mean) / sqrt(var + epsilon) and y = scale · x̂ + bias, one scale and one
bias a channel; they differ only in the axes of mean and var:

| factory      | mean and var over              | epsilon | paper |
| BatchNorm    | N, H, W (each channel)         | 1e-5    | Ioffe & Szegedy 2015, algorithm 1 |
|   with a virtual batch size: N in parts             | 1e-5    | Hoffer et al. 2017, algorithm 1 |
| LayerNorm    | H, W, C (each image)           | 1e-5    | Ba et al. 2016; over H, W, C as in Wu & He 2018, figure 2 |
| InstanceNorm | H, W (each image and channel)  | 1e-5    | Ulyanov et al. 2016, equation 3 |
| GroupNorm    | H, W, C/G (each image, group)  | 1e-5    | Wu & He 2018, equations 1 to 7 |
| NoNorm       | none: y = x, no parameters     |         | |

Statistics and arithmetic are float32 whatever the compute dtype; the output has the dtype of the input. The variance
is the mean of squared deviations, not E[x²] - E[x]², which can turn negative; only for a compute dtype of 16 bits does
batch norm take the latter, which reads the map once: see `batch_norm.moments` for what holds then.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from jaxcnn.errors import InputError
from jaxcnn.models.batch_norm import batch_norm, normalise, plain_batch_norm
from jaxcnn.models.conv import Unevaluated, evaluated
from jaxcnn.models.pointwise import pointwise_batch_norm
from jaxcnn.paths import GlobRule

Initializer = Any


class Norm(Protocol):
    """What a network needs of a norm: a module by name. Blocks never ask which norm it is."""

    def __call__(self, *, name: str, train: bool, scale_init: Initializer = ...) -> nn.Module: ...


@dataclass(frozen=True)
class BatchNorm:
    """Over the batch, with running statistics for inference.

    `momentum` is the decay of the old running value: 0.9 here is 0.1 in PyTorch. The running variance takes the
    unbiased batch variance, as PyTorch's does. A norm whose scale and bias are in the rule `frozen` uses its running
    statistics in training too and does not write them. With the batch sharded over devices under jit, the statistics
    are those of the global batch.

    `virtual_batch_size`, which must divide the batch, cuts it into consecutive parts of so many images: each is
    normalised by its own statistics, and the running ones take up part after part (ghost batch norm, Hoffer et al.
    2017, algorithm 1). None: the batch is one part. Inference is the same in both cases.

    `plain` leaves the derivatives to JAX, for those of forward mode; else they are those of `batch_norm.py`.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5
    frozen: GlobRule = GlobRule()
    virtual_batch_size: int | None = None
    plain: bool = False

    def __call__(self, *, name: str, train: bool, scale_init: Initializer = nn.initializers.ones) -> nn.Module:
        return _BatchNorm(self, train, scale_init, name=name)


@dataclass(frozen=True)
class LayerNorm:
    """Over H, W and C of one image."""

    epsilon: float = 1e-5

    def __call__(self, *, name: str, train: bool, scale_init: Initializer = nn.initializers.ones) -> nn.Module:
        return _GroupNorm(_one_group, self.epsilon, scale_init, name=name)


@dataclass(frozen=True)
class InstanceNorm:
    """Over H and W of one channel of one image."""

    epsilon: float = 1e-5

    def __call__(self, *, name: str, train: bool, scale_init: Initializer = nn.initializers.ones) -> nn.Module:
        return _GroupNorm(_all_groups, self.epsilon, scale_init, name=name)


@dataclass(frozen=True)
class GroupNorm:
    """Over H, W and the channels of one of `num_groups` groups of one image; groups must divide the channels."""

    num_groups: int = 32
    epsilon: float = 1e-5

    def __call__(self, *, name: str, train: bool, scale_init: Initializer = nn.initializers.ones) -> nn.Module:
        return _GroupNorm(_FixedGroups(self.num_groups), self.epsilon, scale_init, name=name)


@dataclass(frozen=True)
class NoNorm:
    """The identity; convolutions then have biases."""

    def __call__(self, *, name: str, train: bool, scale_init: Initializer = nn.initializers.ones) -> nn.Module:
        return _Identity(name=name)


def has_bias(norm: Norm) -> bool:
    """Returns whether the norm adds a bias of its own, so that the convolution before it needs none."""
    return not isinstance(norm, NoNorm)


def _one_group(features: int) -> int:
    return 1


def _all_groups(features: int) -> int:
    return features


@dataclass(frozen=True)
class _FixedGroups:
    num_groups: int

    def __call__(self, features: int) -> int:
        if features % self.num_groups:
            raise ValueError(f"num_groups={self.num_groups} must divide {features=}")
        return self.num_groups


class _BatchNorm(nn.Module):
    spec: BatchNorm
    train: bool
    scale_init: Initializer

    @nn.compact
    def __call__(self, x: jax.Array | Unevaluated) -> jax.Array:
        features = ((x.kernel if isinstance(x, Unevaluated) else x).shape[-1],)
        scale = self.param("scale", self.scale_init, features, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, features, jnp.float32)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, features, jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, features, jnp.float32)
        if not self.train or self._is_frozen():
            x = evaluated(x)
            wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
            return normalise(wide, running_mean.value, running_var.value, scale, bias, self.spec.epsilon).astype(
                x.dtype
            )
        y, mean, var = self._with_batch_statistics(x, scale, bias)
        if not self.is_initializing():
            count = y.size // mean.size
            running_mean.value = self._average(running_mean.value, mean)
            running_var.value = self._average(running_var.value, var * (count / max(count - 1, 1)))
        return y

    def _with_batch_statistics(
        self, x: jax.Array | Unevaluated, scale: jax.Array, bias: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Returns y, and the mean and variance of each part [P, C]; see `batch_norm.py` and `pointwise.py`."""
        spec = self.spec

        def usual(x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
            num_parts = self._num_parts(x.shape[0])
            parts = x if num_parts == 1 else x.reshape(num_parts, -1, *x.shape[1:])  # [P, N / P, H, W, C]
            axes = tuple(range(parts.ndim - 1))[-3:]  # N, H and W of a part
            arithmetic = plain_batch_norm if spec.plain else batch_norm
            y, mean, var = arithmetic(parts, scale, bias, axes, spec.epsilon)
            return y.reshape(x.shape), mean.reshape(num_parts, -1), var.reshape(num_parts, -1)

        def fused(h: jax.Array, kernel: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
            y, mean, var = pointwise_batch_norm(h, kernel, scale, bias, spec.epsilon)
            return y, mean[None], var[None]

        if not isinstance(x, Unevaluated):
            return usual(x)
        if spec.plain or self._num_parts(x.x.shape[0]) > 1 or not _pays(x):
            return usual(x())
        return lax.platform_dependent(x.x, x.kernel, tpu=fused, default=lambda h, kernel: usual(x.compute(h, kernel)))

    def _num_parts(self, batch: int) -> int:
        size = self.spec.virtual_batch_size or batch
        if batch % size:
            raise InputError(f"virtual_batch_size={size} must divide the batch of {batch} images")
        return batch // size

    def _average(self, running: jax.Array, new: jax.Array) -> jax.Array:
        """The running value [C] after it took up the parts [P, C], one after the other; without gradient."""
        keep, num_parts, new = self.spec.momentum, len(new), lax.stop_gradient(new)
        weights = (1 - keep) * keep ** jnp.arange(num_parts - 1, -1, -1, dtype=running.dtype)  # [P], the last largest
        return keep**num_parts * running + jnp.sum(weights[:, None] * new, axis=0)

    def _is_frozen(self) -> bool:
        path = "/".join(self.path)
        return self.spec.frozen.matches(f"{path}/scale") and self.spec.frozen.matches(f"{path}/bias")


def _pays(convolution: Unevaluated) -> bool:
    """Whether `pointwise_batch_norm` is for it: with an input smaller than the output."""
    in_features, out_features = convolution.kernel.shape[2:]
    return convolution.is_pointwise and convolution.stride == 1 and out_features >= 2 * in_features


class _GroupNorm(nn.Module):
    groups_of: Any
    epsilon: float
    scale_init: Initializer

    @nn.compact
    def __call__(self, x: jax.Array | Unevaluated) -> jax.Array:
        x = evaluated(x)
        n, h, w, c = x.shape
        groups = self.groups_of(c)
        scale = self.param("scale", self.scale_init, (c,), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (c,), jnp.float32)
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32)).reshape(n, h, w, groups, c // groups)
        mean = jnp.mean(wide, axis=(1, 2, 4), keepdims=True)  # [N, 1, 1, G, 1]
        var = jnp.mean(jnp.square(wide - mean), axis=(1, 2, 4), keepdims=True)
        scale, bias = scale.reshape(groups, c // groups), bias.reshape(groups, c // groups)
        return normalise(wide, mean, var, scale, bias, self.epsilon).reshape(n, h, w, c).astype(x.dtype)


class _Identity(nn.Module):
    def __call__(self, x: jax.Array | Unevaluated) -> jax.Array:
        return evaluated(x)
