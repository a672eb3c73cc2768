"""The network of the same name elsewhere: whether it gives the same logits for the same weights as the one here.

Names and shapes do not tell: a stride, an activation or a group norm leaves no trace in a file. So a network is only
exported where its options are those of the network that the other library has under that name.
"""

import re
from typing import Any

from jaxcnn.config import ModelConfig
from jaxcnn.errors import InputError
from jaxcnn.models.classifier import Classifier
from jaxcnn.models.norms import GroupNorm
from jaxcnn.models.registry import NETWORKS, build_model
from jaxcnn.models.resnet import ResNet
from jaxcnn.weights.names import Dialect

_CIFAR = {"resnet8", "resnet20", "resnet32", "resnet44", "resnet56", "resnet110"}
_NOWHERE = {"resnetv2_110", "resnetv2_164", "wrn_16_4", "wrn_28_10"}  # for CIFAR, of which there is no one version
_ONLY_TIMM = re.compile(r"(seresnet|resnetv2_).+|resnet\d+(d|_gn)")


def owner_of(config: ModelConfig, model: Classifier, form: Dialect) -> Dialect:
    """Returns whose names an exported network gets: those of `form`, or akamaster's for a CIFAR ResNet.

    Options that act in training alone (dropout, stochastic depth, initialisers, ghost batches, dtype) may be any.
    VGG's pooled head is no option of theirs either, but has no dense layers, which strict loading would tell.

    Args:
      config: of the network.
      model: the network itself, with the choices that followed from its images.
      form: the library to export for.

    Raises:
      InputError: it has no network of that name, or one with other options.
    """
    name = config.name
    owner: Dialect = "akamaster" if name in _CIFAR else form
    if owner == "timm" and config.norm == "group" and f"{name}_gn" in NETWORKS:
        name = f"{name}_gn"
    if name in _NOWHERE or (owner == "torchvision" and _ONLY_TIMM.fullmatch(name)):
        remedy = "" if name in _NOWHERE else "; --format timm has it"
        raise InputError(f"model.name={config.name!r}: {form} has no such network{remedy}")
    has_twin = name.startswith("vgg") and config.norm == "batch"  # vgg16_bn
    theirs = ModelConfig(name, norm="batch" if has_twin else None)
    side = NETWORKS[name].image_px
    there = _options(theirs, build_model(theirs, (side, side, 3), model.num_classes))
    for option, ours in _options(config, model).items():
        if ours != there.get(option):
            raise InputError(
                f"model.{option} is {ours} here and {there.get(option)} in {owner}'s {name}, "
                "which would give other logits for these weights: they are not exported"
            )
    return owner


def _options(config: ModelConfig, model: Classifier) -> dict[str, Any]:
    """What the logits for given weights depend on, by the name of the option."""
    backbone = model.backbone
    options = {
        "width": backbone.width,
        "norm": type(backbone.norm).__name__,
        "activation": config.activation,
        "weight_standardisation": config.weight_standardisation,
    }
    if isinstance(backbone.norm, GroupNorm):
        options["num_groups"] = backbone.norm.num_groups
    if isinstance(backbone, ResNet):
        options |= {
            "block": backbone.block.__name__,
            "stem": backbone.stem,
            "shortcut": backbone.shortcut,
            "squeeze_excite": backbone.squeeze_excite,
            "bottleneck_stride": "1x1" if backbone.stride_first else "3x3",
        }
    return options
