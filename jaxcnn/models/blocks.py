"""Residual blocks. Each takes x [N, H, W, C] to [N, ceil(H / stride), ceil(W / stride), features · expansion].

| name               | layers                                        | paper |
| basic              | 3x3, 3x3                                      | He et al. 2015, figure 5 left |
| plain              | the same without the addition                 | He et al. 2015, section 4.1 |
| bottleneck         | 1x1, 3x3, 1x1                                 | He et al. 2015, figure 5 right |
| preact             | norm and activation before each convolution   | He et al. 2016, figure 4 (e) |
| preact_bottleneck  | likewise                                      | He et al. 2016, table 1 |

Every block may drop units before its last convolution (Zagoruyko & Komodakis 2016, section 2.4), weigh its channels
(squeeze and excitation) and drop its branch for an image (stochastic depth), in this order.
"""

import functools
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from jaxcnn.errors import InputError
from jaxcnn.models.layers import Activation, drop_image, global_mean, halve_mean
from jaxcnn.models.norms import Norm, has_bias

Shortcut = Literal["projection", "pad", "pool"]


class Block(nn.Module):
    """What all blocks share.

    Attributes:
      features: channels inside the block; the output has `expansion` times as many.
      stride: step in pixels of the convolution that makes the map smaller.
      shortcut: how the input gets the shape of the output; see `_shortcut`.
      norm, activation, conv: see `ResNet`.
      train: whether batch statistics and dropout are on.
      dropout: factory of the dropout before the last convolution; see `layers.dropout`.
      last_scale_init: initialiser of the last norm scale (not in the pre-activation blocks, which end without norm).
      drop_rate: probability that the branch is dropped for an image.
      squeeze_excite: whether the branch ends with a `SqueezeExcite`.
      groups, widening, stride_first: see `ResNet`; of the bottlenecks only.
    """

    features: int
    stride: int
    shortcut: Shortcut
    norm: Norm
    activation: Activation
    conv: Any
    train: bool
    dropout: Any = functools.partial(nn.Dropout, 0.0)
    last_scale_init: Any = nn.initializers.ones
    drop_rate: float = 0.0
    squeeze_excite: bool = False
    groups: int = 1
    widening: int = 1
    stride_first: bool = False
    expansion = 1

    def _norm_act(self, x: jax.Array, name: str) -> jax.Array:
        return self.activation(self.norm(name=name, train=self.train)(x))

    def _conv(
        self, x: jax.Array, features: int, kernel_size: int, name: str, stride: int = 1, groups: int = 1, **kwargs: Any
    ) -> Any:
        bias = not has_bias(self.norm)
        return self.conv(features, kernel_size, stride, groups=groups, use_bias=bias, name=name, **kwargs)(x)

    def _drop(self, x: jax.Array) -> jax.Array:
        return self.dropout(deterministic=not self.train, name="dropout")(x)

    def _last_norm(self, x: jax.Array, name: str) -> jax.Array:
        return self.norm(name=name, train=self.train, scale_init=self.last_scale_init)(x)

    def _end(self, branch: jax.Array) -> jax.Array:
        """What is added to the shortcut."""
        if self.squeeze_excite:
            branch = SqueezeExcite(self.conv, name="se")(branch)
        return drop_image(self.drop_rate, name="drop_image", train=self.train)(branch)


class BasicBlock(Block):
    """act(norm2(conv2(act(norm1(conv1(x))))) + shortcut(x)), both convolutions 3x3."""

    adds_shortcut = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = self._conv(x, self.features, 3, "conv1", self.stride)
        y = self._drop(self._norm_act(y, "norm1"))
        y = self._conv(y, self.features, 3, "conv2")
        y = self._end(self._last_norm(y, "norm2"))
        if self.adds_shortcut:
            y = y + _shortcut(self, x)
        return self.activation(y)


class PlainBlock(BasicBlock):
    """The basic block without its addition: what He et al. 2015 call a plain network, which degrades with depth.

    Without an addition there is nothing to project, so a plain network has the parameters of its residual twin with
    option-A shortcuts, which have none: that is the pair which the paper compares.
    """

    adds_shortcut = False


class BottleneckBlock(Block):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut; the output has four times `features` channels.

    v1.5: the stride is on the 3x3, not on the first 1x1 as in the paper; torchvision's weights are for this one.
    `stride_first` is the paper's. With groups it is the block of ResNeXt (Xie et al. 2016, figure 3 (c)), with
    `widening` that of torchvision's Wide ResNets.
    """

    expansion = 4

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        first, second = (self.stride, 1) if self.stride_first else (1, self.stride)
        inner = self.features * self.widening
        y = self._conv(x, inner, 1, "conv1", first)
        y = self._norm_act(y, "norm1")
        y = self._conv(y, inner, 3, "conv2", second, self.groups)
        y = self._drop(self._norm_act(y, "norm2"))
        y = self._conv(y, self.features * self.expansion, 1, "conv3", lazy=self.train)
        y = self._end(self._last_norm(y, "norm3"))
        return self.activation(y + _shortcut(self, x))


class PreActBlock(Block):
    """conv2(act(norm2(conv1(act(norm1(x)))))) + shortcut, both convolutions 3x3.

    Where the shortcut changes the shape it starts from act(norm1(x)), else from x (as in the authors' code, the Wide
    ResNets' and timm's).
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        active = self._norm_act(x, "norm1")
        y = self._conv(active, self.features, 3, "conv1", self.stride)
        y = self._drop(self._norm_act(y, "norm2"))
        y = self._conv(y, self.features, 3, "conv2")
        return self._end(y) + _preact_shortcut(self, x, active)


class PreActBottleneckBlock(Block):
    """1x1, 3x3 and 1x1 convolutions, each after norm and activation; the shortcut as in `PreActBlock`.

    The stride is on the 3x3, as in timm; `stride_first` puts it on the first 1x1, as in the authors' code.
    """

    expansion = 4

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        first, second = (self.stride, 1) if self.stride_first else (1, self.stride)
        inner = self.features * self.widening
        active = self._norm_act(x, "norm1")
        y = self._conv(active, inner, 1, "conv1", first)
        y = self._norm_act(y, "norm2")
        y = self._conv(y, inner, 3, "conv2", second, self.groups)
        y = self._drop(self._norm_act(y, "norm3"))
        y = self._conv(y, self.features * self.expansion, 1, "conv3")
        return self._end(y) + _preact_shortcut(self, x, active)


BLOCKS: dict[str, type[Block]] = {
    "basic": BasicBlock,
    "plain": PlainBlock,
    "bottleneck": BottleneckBlock,
    "preact": PreActBlock,
    "preact_bottleneck": PreActBottleneckBlock,
}


def is_bottleneck(block: type[Block]) -> bool:
    """Returns whether a block has the three convolutions that groups, widening and `stride_first` are about."""
    return issubclass(block, BottleneckBlock | PreActBottleneckBlock)


def is_preact(block: type[Block]) -> bool:
    """Returns whether a block starts with its norm, so that the stem ends without one and the backbone with one."""
    return issubclass(block, PreActBlock | PreActBottleneckBlock)


def _fits(block: Block, x: jax.Array) -> bool:
    return block.stride == 1 and x.shape[-1] == block.features * block.expansion


def _shortcut(block: Block, x: jax.Array) -> jax.Array:
    """The input of a block in the shape of its output: the identity where they agree, else `_resized` and a norm."""
    if _fits(block, x):
        return x
    x = _resized(block, x, lazy=block.train and block.shortcut != "pad")
    return x if block.shortcut == "pad" else block.norm(name="shortcut_norm", train=block.train)(x)


def _preact_shortcut(block: Block, x: jax.Array, active: jax.Array) -> jax.Array:
    return x if _fits(block, x) else _resized(block, active)


def _resized(block: Block, x: jax.Array, lazy: bool = False) -> Any:
    """x with the stride and the channels of the block's output.

    pad: every stride-th pixel, new channels zero, half of them on each side (He et al. 2015, section 4.1, option A);
    projection: a 1x1 convolution with the stride (option B); pool: 2x2 means, then a 1x1 convolution, so that no pixel
    is left out (ResNet-D, He et al. 2018, figure 2 (c)).
    """
    features, stride = block.features * block.expansion, block.stride
    if block.shortcut == "pad":
        new = features - x.shape[-1]
        if new < 0:
            raise InputError(f"shortcut='pad' adds channels, but {block.name} has {features} after {x.shape[-1]}")
        # Not x[:, ::stride, ::stride], which is a gather where the batch is symbolic, as in an exported program.
        x = lax.slice(x, (0,) * 4, x.shape, (1, stride, stride, 1))
        return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (new // 2, new - new // 2)))
    if block.shortcut == "pool" and stride == 2:
        x, stride = halve_mean(x), 1
    return block._conv(x, features, 1, "shortcut_conv", stride, lazy=lazy)


class SqueezeExcite(nn.Module):
    """Channels weighted by x · sigmoid(fc2(relu(fc1(mean over H, W)))): Hu et al. 2017, equations 2 to 4.

    fc1 and fc2 are 1x1 convolutions with biases, as in timm. fc1 has a sixteenth of the channels, rounded to a multiple
    of 8 and at least 8 (timm's rule; the paper does not round).
    """

    conv: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels = x.shape[-1]
        reduced = max(8, int(channels / 16 + 4) // 8 * 8)
        y = global_mean(x)[:, None, None].astype(x.dtype)  # [N, 1, 1, C]
        # Two small dense layers in the form of convolutions: weight standardisation is not for them.
        layer = functools.partial(self.conv, kernel_size=1, use_bias=True, standardise=False)
        y = nn.relu(layer(reduced, name="fc1")(y))
        return x * nn.sigmoid(layer(channels, name="fc2")(y))
