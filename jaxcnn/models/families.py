"""From the options of a config to the modules of a network: one builder a family, which refuses what does not fit."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import jax.numpy as jnp

from jaxcnn.config import ModelConfig
from jaxcnn.errors import InputError
from jaxcnn.models.blocks import BLOCKS, PlainBlock, Shortcut, is_bottleneck, is_preact
from jaxcnn.models.classifier import Classifier
from jaxcnn.models.conv import Conv
from jaxcnn.models.layers import ACTIVATIONS, Activation, dropout, initializer, max_pool
from jaxcnn.models.norms import BatchNorm, GroupNorm, InstanceNorm, LayerNorm, NoNorm, Norm
from jaxcnn.models.resnet import ResNet, Stem
from jaxcnn.models.scan import BlockScan
from jaxcnn.models.vgg import STAGE_SIZES, VGG, VGGNeck
from jaxcnn.paths import GlobRule

_DEFAULTS = {field.name: field.default for field in fields(ModelConfig)}


@dataclass(frozen=True)
class Parts:
    """The options of a config as values, in the forms that all families use."""

    config: ModelConfig
    freeze: GlobRule
    """Paths that do not train: batch norms among them use their running statistics."""
    small_image: bool

    def norm(self, own: str) -> Norm:
        """Returns the norm of the config, or else the network's own."""
        config, name = self.config, self.config.norm or own
        if config.virtual_batch_size is not None and name != "batch":
            raise InputError(f"model.virtual_batch_size={config.virtual_batch_size}: of norm=batch only, not {name}")
        norms: dict[str, Norm] = {
            "batch": BatchNorm(frozen=self.freeze, virtual_batch_size=config.virtual_batch_size, plain=config.plain),
            "layer": LayerNorm(),
            "instance": InstanceNorm(),
            "group": GroupNorm(config.num_groups),
            "none": NoNorm(),
        }
        return norms[name]

    @property
    def activation(self) -> Activation:
        return ACTIVATIONS[self.config.activation]

    @property
    def conv(self) -> Callable[..., Conv]:
        config = self.config
        kernel_init = initializer(config.init, config.activation, config.init_std)
        dtype = jnp.dtype(config.dtype)
        standardise = config.weight_standardisation
        return functools.partial(
            Conv, kernel_init=kernel_init, dtype=dtype, standardise=standardise, plain=config.plain
        )

    @property
    def pool(self) -> Callable[..., Any]:
        return functools.partial(max_pool, plain=self.config.plain)

    def block_dropout(self, own: float) -> Callable[..., Any]:
        """Returns the factory of dropout inside the backbone."""
        rate = self.config.block_dropout
        return dropout(own if rate is None else rate, self.config.block_dropout_kind)

    def remat(self, names: Sequence[str]) -> tuple[str, ...]:
        """Returns the parts of a backbone, of these names, whose maps are computed anew on the way back."""
        config = self.config
        rule = GlobRule(tuple("*" if glob == "all" else glob for glob in config.remat))
        for glob, given in zip(rule.patterns, config.remat, strict=True):
            if not any(GlobRule((glob.removeprefix("!"),)).matches(name) for name in names):
                raise InputError(f"model.remat={given!r}: {config.name} has {', '.join(names)}; or all")
        return tuple(name for name in names if rule.matches(name))

    def refuse(self, *names: str) -> None:
        """Raises InputError where an option is set that the network does not have."""
        for name in names:
            if (value := getattr(self.config, name)) != _DEFAULTS[name]:
                raise InputError(f"model.{name}={value!r}: {self.config.name} has no {name} to choose")


Builder = Callable[[Parts, int], Classifier]


def stage_names(sizes: Sequence[int]) -> tuple[str, ...]:
    """Returns the names of stages of these sizes, in order."""
    return tuple(f"stage{index + 1}" for index in range(len(sizes)))


def resnet(
    block: str,
    sizes: tuple[int, ...],
    *,
    width: int = 64,
    stem: Stem = "imagenet",
    stem_width: int | None = None,
    shortcut: Shortcut = "projection",
    norm: str = "batch",
    block_dropout: float = 0.0,
    squeeze_excite: bool = False,
    groups: int = 1,
    widening: int = 1,
) -> Builder:
    """Returns the builder of a ResNet: its own choices (see the class), which the config may change.

    The stem of small images is "small", unless the config says otherwise.
    """

    def build(parts: Parts, num_classes: int) -> Classifier:
        config = parts.config
        parts.refuse("neck")
        chosen, stages = config.squeeze_excite, config.stage_sizes or sizes
        backbone = ResNet(
            stage_sizes=stages,
            block=BLOCKS[config.block or block],
            width=config.width or width,
            stem=config.stem or ("small" if parts.small_image else stem),
            stem_width=stem_width,
            shortcut=config.shortcut or shortcut,
            norm=parts.norm(norm),
            activation=parts.activation,
            conv=parts.conv,
            pool=parts.pool,
            zero_last_scale=config.zero_last_scale,
            stride_first=config.bottleneck_stride == "1x1",
            squeeze_excite=squeeze_excite if chosen is None else chosen,
            dropout=parts.block_dropout(block_dropout),
            stochastic_depth=config.stochastic_depth,
            groups=groups,
            widening=widening,
            scan=BlockScan(parts.freeze) if config.scan_blocks else None,
            remat=parts.remat(("stem", *stage_names(stages))),
        )
        _check(config, backbone)
        return Classifier(backbone, num_classes, dropout=config.dropout or 0.0)

    return build


def _check(config: ModelConfig, backbone: ResNet) -> None:
    """Raises InputError for options that contradict each other."""
    block, name = backbone.block, config.name
    if backbone.stem == "deep" and (backbone.stem_width or backbone.width) < 2:
        raise InputError(f"model.width={config.width}: the deep stem begins with half as many channels; at least 2")
    if not is_bottleneck(block):
        if backbone.groups != 1 or backbone.widening != 1:
            raise InputError(f"model.block={config.block!r}: {name} is made of bottlenecks; preact_bottleneck would do")
        if config.bottleneck_stride is not None:
            raise InputError(f"model.bottleneck_stride={config.bottleneck_stride!r}: {name} has no bottlenecks")
    if block is PlainBlock:
        for option in ("zero_last_scale", "stochastic_depth", "shortcut"):
            if value := getattr(config, option):
                raise InputError(f"model.{option}={value!r}: a plain network has no shortcut past its blocks")
    if config.scan_blocks and config.plain:
        raise InputError("model.scan_blocks=True: blocks in a loop have no forward derivatives, which plain is for")
    if config.scan_blocks and config.stochastic_depth:
        raise InputError("model.scan_blocks=True: stochastic_depth gives each block its own rate, so none are equal")
    if config.zero_last_scale and (is_preact(block) or isinstance(backbone.norm, NoNorm)):
        raise InputError(f"model.zero_last_scale=True: the blocks of {name} do not end with a norm here")


def resnet_d(block: str, sizes: tuple[int, ...]) -> Builder:
    """Returns the builder of a ResNet-D: deep stem, shortcuts that average (He et al. 2018, section 4)."""
    return resnet(block, sizes, stem="deep", shortcut="pool")


def cifar_resnet(depth: int, block: str = "basic", shortcut: Shortcut = "pad") -> Builder:
    """Returns the builder of He et al.'s networks for 32x32 images: three stages from 16 channels, option A.

    `depth` is 6n + 2 with n basic blocks a stage, 9n + 2 with bottlenecks (2015, section 4.2; 2016, table 4).
    """
    blocks = (depth - 2) // (9 if "bottleneck" in block else 6)
    return resnet(block, (blocks,) * 3, width=16, stem="small", shortcut=shortcut)


def wide_resnet(depth: int, widening: int) -> Builder:
    """Returns the builder of WRN-depth-widening for 32x32 images, 6n + 4 layers deep.

    Zagoruyko & Komodakis 2016, table 1. Dropout is 0.3, their value for CIFAR (section 3, table 6).
    """
    blocks = (depth - 4) // 6
    width = 16 * widening
    return resnet("preact", (blocks,) * 3, width=width, stem="small", stem_width=16, block_dropout=0.3)


def vgg(name: str) -> Builder:
    """Returns the builder of a VGG, without norm unless the config names one, as torchvision's."""

    def build(parts: Parts, num_classes: int) -> Classifier:
        config = parts.config
        parts.refuse("block", "bottleneck_stride", "stem", "shortcut", "squeeze_excite", "zero_last_scale")
        parts.refuse("stochastic_depth", "scan_blocks")
        stages = config.stage_sizes or STAGE_SIZES[name]
        backbone = VGG(
            stages,
            config.width or 64,
            parts.norm("none"),
            parts.activation,
            parts.conv,
            parts.block_dropout(0.0),
            pool=parts.pool,
            remat=parts.remat(stage_names(stages)),
        )
        rate = 0.5 if config.dropout is None else config.dropout
        if (config.neck or ("pooled" if parts.small_image else "dense")) == "pooled":
            return Classifier(backbone, num_classes, dropout=rate)
        return Classifier(backbone, num_classes, VGGNeck(parts.activation, rate, dtype=jnp.dtype(config.dtype)))

    return build
