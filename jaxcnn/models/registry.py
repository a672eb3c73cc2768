"""Names of networks -> networks: the one place where strings of a config become modules."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import flax.linen as nn
import jax.numpy as jnp

from jaxcnn.config import ModelConfig
from jaxcnn.errors import InputError, did_you_mean
from jaxcnn.models.classifier import Classifier
from jaxcnn.models.conv import Conv
from jaxcnn.models.layers import ACTIVATIONS, INITIALIZERS
from jaxcnn.models.norms import BatchNorm, GroupNorm, InstanceNorm, LayerNorm, NoNorm, Norm
from jaxcnn.models.resnet import BLOCKS, ResNet
from jaxcnn.models.vgg import STAGE_SIZES, VGG, VGGNeck
from jaxcnn.paths import GlobRule

SMALL_IMAGE_PX = 96  # below this side an image gets the small stem, and VGG the pooled head


@dataclass(frozen=True)
class Parts:
    """The options of a config as values, shared by all families."""

    config: ModelConfig
    norm: Norm | None  # none: the network's own
    freeze: GlobRule
    activation: Callable
    conv: Callable
    small_image: bool


@dataclass(frozen=True)
class Network:
    """One line of the registry."""

    build: Callable[[Parts, int], Classifier]
    """(parts, number of classes) -> module."""
    paper: str


def _imagenet_resnet(block: str, sizes: tuple[int, ...]) -> Callable[[Parts, int], Classifier]:
    """Four stages from 64 channels, projection shortcuts, stem by image size."""

    def build(parts: Parts, num_classes: int) -> Classifier:
        stem = parts.config.stem or ("small" if parts.small_image else "imagenet")
        return _resnet(parts, num_classes, sizes, block, 64, stem, "projection")

    return build


def _cifar_resnet(depth: int) -> Callable[[Parts, int], Classifier]:
    """6n + 2 layers: three stages of n basic blocks from 16 channels, 3x3 stem, option-A shortcuts (section 4.2)."""

    def build(parts: Parts, num_classes: int) -> Classifier:
        sizes = ((depth - 2) // 6,) * 3
        return _resnet(parts, num_classes, sizes, "basic", 16, parts.config.stem or "small", "pad")

    return build


def _resnet(parts: Parts, num_classes: int, sizes: tuple[int, ...], block: str, width: int, stem, shortcut):
    config = parts.config
    if config.neck is not None:
        raise InputError(f"model.neck={config.neck!r}: {config.name} has no neck to choose")
    backbone = ResNet(
        stage_sizes=sizes,
        block=BLOCKS[config.block or block],
        width=config.width or width,
        stem=stem,
        shortcut=shortcut,
        norm=parts.norm or BatchNorm(frozen=parts.freeze),
        activation=parts.activation,
        conv=parts.conv,
        zero_last_scale=config.zero_last_scale,
    )
    return Classifier(backbone, num_classes, dropout=config.dropout or 0.0)


def _vgg(name: str) -> Callable[[Parts, int], Classifier]:
    def build(parts: Parts, num_classes: int) -> Classifier:
        config = parts.config
        for field in ("block", "stem"):
            if getattr(config, field) is not None:
                raise InputError(f"model.{field}={getattr(config, field)!r}: {name} has no {field} to choose")
        backbone = VGG(STAGE_SIZES[name], config.width or 64, parts.norm or NoNorm(), parts.activation, parts.conv)
        dropout = 0.5 if config.dropout is None else config.dropout
        if (config.neck or ("pooled" if parts.small_image else "dense")) == "pooled":
            return Classifier(backbone, num_classes, dropout=dropout)
        neck = VGGNeck(parts.activation, dropout, dtype=jnp.dtype(config.dtype))
        return Classifier(backbone, num_classes, neck)

    return build


HE_2015 = "He et al. 2015, Deep Residual Learning for Image Recognition, arXiv:1512.03385"
VGG_2014 = "Simonyan & Zisserman 2014, Very Deep Convolutional Networks, arXiv:1409.1556"

NETWORKS: dict[str, Network] = {
    "resnet8": Network(_cifar_resnet(8), HE_2015),
    "resnet20": Network(_cifar_resnet(20), HE_2015),
    "resnet32": Network(_cifar_resnet(32), HE_2015),
    "resnet44": Network(_cifar_resnet(44), HE_2015),
    "resnet56": Network(_cifar_resnet(56), HE_2015),
    "resnet110": Network(_cifar_resnet(110), HE_2015),
    "resnet18": Network(_imagenet_resnet("basic", (2, 2, 2, 2)), HE_2015),
    "resnet34": Network(_imagenet_resnet("basic", (3, 4, 6, 3)), HE_2015),
    "resnet50": Network(_imagenet_resnet("bottleneck", (3, 4, 6, 3)), HE_2015),
    "resnet101": Network(_imagenet_resnet("bottleneck", (3, 4, 23, 3)), HE_2015),
    "resnet152": Network(_imagenet_resnet("bottleneck", (3, 8, 36, 3)), HE_2015),
    "vgg11": Network(_vgg("vgg11"), VGG_2014),
    "vgg13": Network(_vgg("vgg13"), VGG_2014),
    "vgg16": Network(_vgg("vgg16"), VGG_2014),
    "vgg19": Network(_vgg("vgg19"), VGG_2014),
}


def build_model(
    config: ModelConfig, image_shape: tuple[int, int, int], num_classes: int, freeze: GlobRule | None = None
) -> Classifier:
    """Returns the network of a config.

    Args:
      config: what to build.
      image_shape: height, width and channels of the input: the stem (and VGG's neck) follow from the size.
      num_classes: outputs of the head.
      freeze: paths that do not train: batch norms among them use their running statistics.

    Raises:
      InputError: an unknown name (the nearest are offered), or options that the network does not have.
    """
    if config.name not in NETWORKS:
        raise InputError(f"model.name={config.name!r}: no such network; {did_you_mean(config.name, NETWORKS)}")
    freeze = freeze or GlobRule()
    conv = functools.partial(Conv, kernel_init=INITIALIZERS[config.init], dtype=jnp.dtype(config.dtype))
    small = min(image_shape[:2]) < SMALL_IMAGE_PX
    parts = Parts(config, _norm(config, freeze), freeze, ACTIVATIONS[config.activation], conv, small)
    return NETWORKS[config.name].build(parts, num_classes)


def _norm(config: ModelConfig, freeze: GlobRule) -> Norm | None:
    own: dict[str | None, Norm | None] = {
        None: None,
        "batch": BatchNorm(frozen=freeze),
        "layer": LayerNorm(),
        "instance": InstanceNorm(),
        "group": GroupNorm(config.num_groups),
        "none": NoNorm(),
    }
    return own[config.norm]


def describe(model: Classifier) -> str:
    """Returns in a few words what was built, with the choices that followed from the data."""
    backbone = model.backbone
    parts: list[str] = []
    if isinstance(backbone, ResNet):
        parts = [f"{backbone.stem} stem", f"{backbone.shortcut} shortcuts"]
    elif isinstance(backbone, VGG):
        parts = ["pooled head" if model.neck is None else "dense neck"]
    norm: nn.Module | Norm = getattr(backbone, "norm", None)
    return ", ".join([*parts, type(norm).__name__, f"{model.num_classes} classes"])
