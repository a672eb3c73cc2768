"""ResNet backbones: the stem, the stages, and the module that puts them together. The blocks are in `blocks.py`.

| variant            | what differs                                          | paper |
| ResNet             |                                                       | He et al. 2015 |
| CIFAR ResNet       | three stages, small stem, shortcut="pad"              | He et al. 2015, section 4.2 |
| ResNet v2          | block=PreActBlock, PreActBottleneckBlock              | He et al. 2016 |
| Wide ResNet, WRN   | widening=2; or preact, width 16 k, stem_width 16      | Zagoruyko & Komodakis 2016 |
| ResNeXt            | groups, widening                                      | Xie et al. 2016 |
| SE-ResNet          | squeeze_excite                                        | Hu et al. 2017 |
| ResNet-D           | stem="deep", shortcut="pool"                          | He et al. 2018, section 4 |
"""

import functools
from typing import Any, Literal

import flax.linen as nn
import jax

from jaxcnn.models.blocks import BasicBlock, Block, Shortcut, is_preact
from jaxcnn.models.conv import Conv
from jaxcnn.models.features import pass_through
from jaxcnn.models.layers import Activation, max_pool, relu
from jaxcnn.models.norms import BatchNorm, Norm, has_bias
from jaxcnn.models.scan import BlockScan, scan_blocks

Stem = Literal["small", "imagenet", "deep"]


class ResNetStem(nn.Module):
    """The first layers. small: one 3x3; imagenet: 7x7 stride 2 and 3x3 max-pool stride 2; deep: three 3x3 for the 7x7.

    With `preact` the last convolution has neither norm nor activation, which the first block then begins with.
    """

    features: int
    kind: Stem
    preact: bool
    norm: Norm
    activation: Activation
    conv: Any
    train: bool
    pool: Any = max_pool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        half = self.features // 2
        # (suffix of the names, features, side of the kernel, stride)
        layers = {
            "small": [("", self.features, 3, 1)],
            "imagenet": [("", self.features, 7, 2)],
            "deep": [("1", half, 3, 2), ("2", half, 3, 1), ("3", self.features, 3, 1)],
        }[self.kind]
        for suffix, features, side, stride in layers:
            x = self.conv(features, side, stride, use_bias=not has_bias(self.norm), name=f"conv{suffix}")(x)
            if not (self.preact and suffix == layers[-1][0]):
                x = self.activation(self.norm(name=f"norm{suffix}", train=self.train)(x))
        return x if self.kind == "small" else self.pool(x, window=3, stride=2, padding=1)


class ResNetStage(nn.Module):
    """Blocks of equal width; the first may halve the map. `drop_rates` has stochastic depth's rate of each block.

    With `scan` equal blocks, which are always the last ones, are applied in a loop; see `scan.py`. With `remat` only
    the inputs of blocks are kept for the way back: the maps inside a block are computed anew when it is its turn (Chen
    et al. 2016, Training Deep Nets with Sublinear Memory Cost).
    """

    stride: int
    block: type[Block]
    options: dict[str, Any]
    drop_rates: tuple[float, ...]
    scan: BlockScan | None = None
    remat: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        looped, block = self._looped(), nn.remat(self.block) if self.remat else self.block
        for index, rate in enumerate(self.drop_rates):
            stride, name = self.stride if index == 0 else 1, f"block{index + 1}"
            if name in looped:
                one = functools.partial(self.block, stride=1, **self.options)
                return scan_blocks(self, one, looped, x, remat=self.remat)
            x = block(stride=stride, drop_rate=rate, name=name, **self.options)(x)
        return x

    def _looped(self) -> list[str]:
        """The names of the blocks that are applied in a loop; none while they are drawn, each by itself."""
        if self.scan is None or any(self.drop_rates) or self.is_initializing():
            return []
        return self.scan.run(self.variables["params"], "/".join(self.path))


class ResNet(nn.Module):
    """ResNet backbone: image [N, H, W, C] -> map [N, H', W', num_features].

    Attributes:
      stage_sizes: blocks in each stage: (2, 2, 2, 2) is ResNet-18.
      block: class of the blocks; see `blocks.py`.
      width: channels of the first stage (before a bottleneck's expansion); each further stage doubles them.
      stem: "imagenet", "deep", or "small" for images of some 100 pixels and less.
      stem_width: channels of the stem; none: `width`.
      shortcut: "projection" (option B), "pad" (option A: no parameters) or "pool" where a block changes the shape.
      norm: factory of the normalisation; see `norms.py`.
      activation: function after each norm but a block's last, and after the addition.
      conv: `Conv`, or a partial of it that fixes initialiser and dtype.
      pool: `max_pool`, or a partial of it.
      zero_last_scale: the last norm scale of each block starts at 0 (Goyal et al. 2017, section 5.1).
      groups: groups of a bottleneck's 3x3 convolution.
      widening: channels inside a bottleneck, as a multiple of the stage's.
      stride_first: a bottleneck's stride is on its first 1x1 convolution (v1), not on the 3x3 (v1.5).
      squeeze_excite: each block ends with a `SqueezeExcite`.
      dropout: factory of the dropout before each block's last convolution; see `layers.dropout`.
      stochastic_depth: probability that the last block's branch is dropped; see `_drop_rates`.
      scan: apply equal blocks in a loop; see `scan.py`. None: one by one.
      remat: parts ("stem", "stage1", ...) whose maps are not kept for the way back, but computed anew; see
        `ResNetStage`.
    """

    stage_sizes: tuple[int, ...]
    block: type[Block] = BasicBlock
    width: int = 64
    stem: Stem = "imagenet"
    stem_width: int | None = None
    shortcut: Shortcut = "projection"
    norm: Norm = BatchNorm()
    activation: Activation = relu
    conv: Any = Conv
    pool: Any = max_pool
    zero_last_scale: bool = False
    groups: int = 1
    widening: int = 1
    stride_first: bool = False
    squeeze_excite: bool = False
    dropout: Any = functools.partial(nn.Dropout, 0.0)
    stochastic_depth: float = 0.0
    scan: BlockScan | None = None
    remat: tuple[str, ...] = ()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool, features: tuple[str, ...] = (), start: str | None = None) -> Any:
        """Returns the last map, or with `features` the named ones; see `features.py`.

        The names are `stem`, `stage1`, ... and, with pre-activation blocks, `norm`: the norm and activation at the end.
        With `start` the input is the output of that part.
        """
        ops = {"norm": self.norm, "activation": self.activation, "conv": self.conv, "train": train}
        preact = is_preact(self.block)
        again = self.remat if train else ()  # without a way back nothing is kept anyway
        stem = nn.remat(ResNetStem) if "stem" in again else ResNetStem
        layers: dict[str, Any] = {
            "stem": stem(self.stem_width or self.width, self.stem, preact, pool=self.pool, name="stem", **ops)
        }
        rates = self._drop_rates()
        for index, num_blocks in enumerate(self.stage_sizes):
            name, stage_rates, rates = f"stage{index + 1}", rates[:num_blocks], rates[num_blocks:]
            options = self._block_options(self.width * 2**index, ops)
            layers[name] = ResNetStage(
                1 if index == 0 else 2, self.block, options, stage_rates, self.scan, name in again, name=name
            )
        if preact:
            layers["norm"] = lambda x: self.activation(self.norm(name="norm", train=train)(x))
        return pass_through(layers, x, features, start)

    def _block_options(self, features: int, ops: dict[str, Any]) -> dict[str, Any]:
        return dict(
            features=features,
            shortcut=self.shortcut,
            dropout=self.dropout,
            last_scale_init=nn.initializers.zeros if self.zero_last_scale else nn.initializers.ones,
            squeeze_excite=self.squeeze_excite,
            groups=self.groups,
            widening=self.widening,
            stride_first=self.stride_first,
            **ops,
        )

    def _drop_rates(self) -> tuple[float, ...]:
        """Stochastic depth's rate for block l of L: l / L of that of the last (Huang et al. 2016, equation 4)."""
        total = sum(self.stage_sizes)
        return tuple(self.stochastic_depth * index / total for index in range(1, total + 1))

    @property
    def num_features(self) -> int:
        """Channels of the last map."""
        return self.width * 2 ** (len(self.stage_sizes) - 1) * self.block.expansion

    @property
    def part_names(self) -> tuple[str, ...]:
        """The parts in order, by which `features` and `start` go."""
        stages = (f"stage{index + 1}" for index in range(len(self.stage_sizes)))
        return ("stem", *stages, *(("norm",) if is_preact(self.block) else ()))

    @property
    def total_stride(self) -> int:
        """Pixels of the image for one pixel of the last map; a smaller image is an error."""
        return (1 if self.stem == "small" else 4) * 2 ** (len(self.stage_sizes) - 1)
