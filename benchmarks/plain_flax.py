"""The networks as one writes them with flax alone: nn.Conv, nn.BatchNorm, nn.max_pool. The names are those of ours."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from benchmarks.workloads import Architecture


def _conv(features: int, size: int, stride: int = 1, **options: Any) -> nn.Conv:
    return nn.Conv(features, (size, size), (stride, stride), [(size // 2, size // 2)] * 2, **options)


def _norm(train: bool, **options: Any) -> nn.BatchNorm:
    return nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5, **options)


class Block(nn.Module):
    """A residual block, basic or (v1.5) bottleneck."""

    architecture: Architecture
    features: int
    stride: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        conv = functools.partial(_conv, use_bias=False, dtype=self.dtype)
        norm = functools.partial(_norm, train, dtype=self.dtype)
        bottleneck = self.architecture.block == "bottleneck"
        wide = self.features * (4 if bottleneck else 1)
        layers = [(self.features, 3, self.stride), (self.features, 3, 1)]
        if bottleneck:
            layers = [(self.features, 1, 1), (self.features, 3, self.stride), (wide, 1, 1)]
        y = x
        for index, (features, size, stride) in enumerate(layers, 1):
            y = norm(name=f"norm{index}")(conv(features, size, stride, name=f"conv{index}")(y))
            y = nn.relu(y) if index < len(layers) else y
        if x.shape != y.shape and self.architecture.shortcut == "pad":
            new = (wide - x.shape[-1]) // 2
            x = jnp.pad(x[:, :: self.stride, :: self.stride], ((0, 0), (0, 0), (0, 0), (new, new)))
        elif x.shape != y.shape:
            x = norm(name="shortcut_norm")(conv(wide, 1, self.stride, name="shortcut_conv")(x))
        return nn.relu(x + y)


class Stem(nn.Module):
    """The first layers of a residual network."""

    architecture: Architecture
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        size, stride = (3, 1) if self.architecture.stem == "small" else (7, 2)
        x = _conv(self.architecture.width, size, stride, use_bias=False, dtype=self.dtype, name="conv")(x)
        x = nn.relu(_norm(train, dtype=self.dtype, name="norm")(x))
        return x if stride == 1 else nn.max_pool(x, (3, 3), (2, 2), [(1, 1)] * 2)


class ResidualStage(nn.Module):
    """The blocks of one width."""

    architecture: Architecture
    index: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        for block in range(self.architecture.sizes[self.index]):
            stride = 2 if self.index and not block else 1
            features = self.architecture.width * 2**self.index
            x = Block(self.architecture, features, stride, self.dtype, name=f"block{block + 1}")(x, train)
        return x


class ConvStage(nn.Module):
    """The convolutions of one width, and a max-pool."""

    architecture: Architecture
    index: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        features = self.architecture.width * min(2**self.index, 8)
        for layer in range(1, self.architecture.sizes[self.index] + 1):
            x = _conv(features, 3, dtype=self.dtype, name=f"conv{layer}")(x)
            x = nn.relu(_norm(train, dtype=self.dtype, name=f"norm{layer}")(x))
        return nn.max_pool(x, (2, 2), (2, 2))


class Backbone(nn.Module):
    """Images to the last map."""

    architecture: Architecture
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        vgg = self.architecture.family == "vgg"
        if not vgg:
            x = Stem(self.architecture, self.dtype, name="stem")(x, train)
        stage = ConvStage if vgg else ResidualStage
        for index in range(len(self.architecture.sizes)):
            x = stage(self.architecture, index, self.dtype, name=f"stage{index + 1}")(x, train)
        return x


class Network(nn.Module):
    """float32 images [N, H, W, 3] -> logits [N, num_classes]; VGG drops half of the features before the head."""

    architecture: Architecture
    num_classes: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        x = Backbone(self.architecture, self.dtype, name="backbone")(x.astype(self.dtype), train)
        x = jnp.mean(x, axis=(1, 2)).astype(jnp.float32)  # [N, C]
        rate = 0.5 if self.architecture.family == "vgg" else 0.0
        x = nn.Dropout(rate, deterministic=not train)(x)
        return nn.Dense(self.num_classes, name="head")(x)
