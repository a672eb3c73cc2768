"""ResNet backbones: the plan of a network, its blocks, and the module that stacks them.

He et al. 2015, "Deep Residual Learning for Image Recognition". Block choices: `basic` (figure 5 left), `bottleneck`
(figure 5 right, with the stride on the 3x3: "v1.5", as torchvision), `plain` (basic without its addition: the same
parameters, section 4.1).
"""

import functools
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxcnn.models.conv import Conv
from jaxcnn.models.layers import Activation, max_pool
from jaxcnn.models.norms import BatchNorm, Norm, has_bias

Stem = Literal["small", "imagenet"]
Shortcut = Literal["projection", "pad"]


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut: act(norm2(conv2(act(norm1(conv1(x))))) + shortcut(x))."""

    features: int
    stride: int
    shortcut: Shortcut
    norm: Norm
    activation: Activation
    conv: Any
    last_scale_init: Any
    train: bool
    expansion = 1
    adds_shortcut = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        bias = not has_bias(self.norm)
        y = self.conv(self.features, 3, self.stride, use_bias=bias, name="conv1")(x)
        y = self.activation(self.norm(name="norm1", train=self.train)(y))
        y = self.conv(self.features, 3, use_bias=bias, name="conv2")(y)
        y = self.norm(name="norm2", train=self.train, scale_init=self.last_scale_init)(y)
        if self.adds_shortcut:
            y = y + _shortcut(self, x)
        return self.activation(y)


class PlainBlock(BasicBlock):
    """The basic block without its addition: what He et al. 2015 call a plain network, which degrades with depth."""

    adds_shortcut = False


class BottleneckBlock(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut; the output has four times `features` channels.

    v1.5: the stride is on the 3x3, not on the first 1x1 as in the paper; torchvision's weights are for this one.
    """

    features: int
    stride: int
    shortcut: Shortcut
    norm: Norm
    activation: Activation
    conv: Any
    last_scale_init: Any
    train: bool
    expansion = 4

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        bias = not has_bias(self.norm)
        y = self.conv(self.features, 1, use_bias=bias, name="conv1")(x)
        y = self.activation(self.norm(name="norm1", train=self.train)(y))
        y = self.conv(self.features, 3, self.stride, use_bias=bias, name="conv2")(y)
        y = self.activation(self.norm(name="norm2", train=self.train)(y))
        y = self.conv(self.features * self.expansion, 1, use_bias=bias, name="conv3")(y)
        y = self.norm(name="norm3", train=self.train, scale_init=self.last_scale_init)(y)
        return self.activation(y + _shortcut(self, x))


BLOCKS: dict[str, Any] = {"basic": BasicBlock, "bottleneck": BottleneckBlock, "plain": PlainBlock}


def _shortcut(block: Any, x: jax.Array) -> jax.Array:
    """The input of a block in the shape of its output (He et al. 2015, section 4.1): the identity where they agree,

    else option A (`pad`: every stride-th pixel, new channels zero, half of them on each side) or option B
    (`projection`: a 1x1 convolution and a norm).
    """
    features = block.features * block.expansion
    if block.stride == 1 and x.shape[-1] == features:
        return x
    if block.shortcut == "pad":
        new = features - x.shape[-1]
        x = x[:, :: block.stride, :: block.stride]
        return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (new // 2, new - new // 2)))
    bias = not has_bias(block.norm)
    x = block.conv(features, 1, block.stride, use_bias=bias, name="shortcut_conv")(x)
    return block.norm(name="shortcut_norm", train=block.train)(x)


class ResNetStem(nn.Module):
    """The first layers. imagenet: 7x7 stride 2 and 3x3 max-pool stride 2; small: one 3x3 at stride 1."""

    features: int
    kind: Stem
    norm: Norm
    activation: Activation
    conv: Any
    train: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        side, stride = (7, 2) if self.kind == "imagenet" else (3, 1)
        x = self.conv(self.features, side, stride, use_bias=not has_bias(self.norm), name="conv")(x)
        x = self.activation(self.norm(name="norm", train=self.train)(x))
        return max_pool(x, window=3, stride=2, padding=1) if self.kind == "imagenet" else x


class ResNetStage(nn.Module):
    """Blocks of equal width; the first may halve the map."""

    num_blocks: int
    stride: int
    block: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for index in range(self.num_blocks):
            x = self.block(stride=self.stride if index == 0 else 1, name=f"block{index + 1}")(x)
        return x


class ResNet(nn.Module):
    """ResNet backbone: image [N, H, W, C] -> map [N, H', W', width · 2^(stages - 1) · expansion].

    Attributes:
      stage_sizes: blocks in each stage: (2, 2, 2, 2) is ResNet-18.
      block: BasicBlock, BottleneckBlock or PlainBlock.
      width: channels of the first stage (before a bottleneck's expansion); each further stage doubles them.
      stem: "imagenet", or "small" for images of some 100 pixels and less.
      shortcut: "projection" (option B) or "pad" (option A: no parameters) where a block changes the shape.
      norm: factory of the normalisation; see `norms.py`.
      activation: function after each norm but a block's last, and after the addition.
      conv: `Conv`, or a partial of it that fixes initialiser and dtype.
      zero_last_scale: the last norm scale of each block starts at 0 (Goyal et al. 2017, section 5.1).
    """

    stage_sizes: tuple[int, ...]
    block: Any = BasicBlock
    width: int = 64
    stem: Stem = "imagenet"
    shortcut: Shortcut = "projection"
    norm: Norm = BatchNorm()
    activation: Activation = nn.relu
    conv: Any = Conv
    zero_last_scale: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        ops = {"norm": self.norm, "activation": self.activation, "conv": self.conv, "train": train}
        x = ResNetStem(self.width, self.stem, name="stem", **ops)(x)
        last_scale_init = nn.initializers.zeros if self.zero_last_scale else nn.initializers.ones
        for index, num_blocks in enumerate(self.stage_sizes):
            block = functools.partial(
                self.block,
                features=self.width * 2**index,
                shortcut=self.shortcut,
                last_scale_init=last_scale_init,
                **ops,
            )
            x = ResNetStage(num_blocks, 1 if index == 0 else 2, block, name=f"stage{index + 1}")(x)
        return x

    @property
    def total_stride(self) -> int:
        """Pixels of the image for one pixel of the last map; a smaller image is an error."""
        return (4 if self.stem == "imagenet" else 1) * 2 ** (len(self.stage_sizes) - 1)
