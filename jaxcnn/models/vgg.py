"""VGG backbones: stacks of 3x3 convolutions, each ended by a 2x2 max-pool (Simonyan & Zisserman 2014, table 1)."""

import functools
from typing import Any

import flax.linen as nn
import jax

from jaxcnn.models.conv import Conv
from jaxcnn.models.features import pass_through
from jaxcnn.models.layers import Activation, adaptive_mean, max_pool, relu
from jaxcnn.models.norms import NoNorm, Norm

# Convolutions in each of the five stages; the number in the name counts these and the three dense layers.
STAGE_SIZES: dict[str, tuple[int, ...]] = {
    "vgg11": (1, 1, 2, 2, 2),
    "vgg13": (2, 2, 2, 2, 2),
    "vgg16": (2, 2, 3, 3, 3),
    "vgg19": (2, 2, 4, 4, 4),
}


class VGGStage(nn.Module):
    """Convolutions of equal width, each with norm and activation, then a 2x2 max-pool and, if wanted, dropout."""

    num_convs: int
    features: int
    norm: Norm
    activation: Activation
    conv: Any
    dropout: Any
    train: bool
    pool: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for index in range(1, self.num_convs + 1):
            x = self.conv(self.features, 3, use_bias=True, name=f"conv{index}")(x)
            x = self.activation(self.norm(name=f"norm{index}", train=self.train)(x))
        x = self.pool(x, window=2, stride=2)
        return self.dropout(deterministic=not self.train, name="dropout")(x)


class VGG(nn.Module):
    """VGG backbone: image [N, H, W, C] -> map [N, H // 32, W // 32, num_features].

    Attributes:
      stage_sizes: convolutions in each stage; see STAGE_SIZES.
      width: channels of the first stage; they double from stage to stage, up to eight times the first.
      norm: factory of the normalisation between convolution and activation; the paper has none. The convolutions
        keep their biases in any case, as torchvision's do.
      activation: function after each convolution.
      conv: `Conv`, or a partial of it that fixes initialiser and dtype.
      pool: `max_pool`, or a partial of it.
      dropout: factory of the dropout after each stage; the paper has none. See `layers.dropout`.
      remat: stages ("stage1", ...) of which only the input is kept for the way back: their maps are computed anew when
        it is their turn (Chen et al. 2016, Training Deep Nets with Sublinear Memory Cost).
    """

    stage_sizes: tuple[int, ...]
    width: int = 64
    norm: Norm = NoNorm()
    activation: Activation = relu
    conv: Any = Conv
    dropout: Any = functools.partial(nn.Dropout, 0.0)
    pool: Any = max_pool
    remat: tuple[str, ...] = ()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool, features: tuple[str, ...] = (), start: str | None = None) -> Any:
        """Returns the last map, or with `features` the named ones (`stage1`, ...), each after its max-pool.

        With `start` the input is the output of that part.
        """
        ops = (self.norm, self.activation, self.conv, self.dropout, train, self.pool)
        layers = {}
        for index, num_convs in enumerate(self.stage_sizes):
            name = f"stage{index + 1}"
            stage = nn.remat(VGGStage) if train and name in self.remat else VGGStage
            layers[name] = stage(num_convs, self._features(index), *ops, name=name)
        return pass_through(layers, x, features, start)

    def _features(self, stage: int) -> int:
        return self.width * min(2**stage, 8)

    @property
    def num_features(self) -> int:
        """Channels of the last map."""
        return self._features(len(self.stage_sizes) - 1)

    @property
    def part_names(self) -> tuple[str, ...]:
        """The parts in order, by which `features` and `start` go."""
        return tuple(f"stage{index + 1}" for index in range(len(self.stage_sizes)))

    @property
    def total_stride(self) -> int:
        """Pixels of the image for one pixel of the last map; a smaller image is an error."""
        return 2 ** len(self.stage_sizes)


class VGGNeck(nn.Module):
    """The dense layers before the head: the map averaged to 7x7, then two of 4,096 units with dropout.

    The average makes any image size fit the weights, as in torchvision; at 224 pixels it is the identity.
    """

    activation: Activation = relu
    dropout: float = 0.5
    features: int = 4096
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        x = adaptive_mean(x, 7)
        x = x.reshape(x.shape[0], -1)  # [N, 7 · 7 · C], in the order H, W, C
        for layer in (1, 2):
            init = nn.initializers.normal(0.01)  # as torchvision; the paper, section 3.1, has the same
            x = self.activation(nn.Dense(self.features, kernel_init=init, dtype=self.dtype, name=f"fc{layer}")(x))
            x = nn.Dropout(self.dropout, deterministic=not train, name=f"dropout{layer}")(x)
        return x

    @property
    def num_features(self) -> int:
        """Features of the output."""
        return self.features
