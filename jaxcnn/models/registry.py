"""Names of networks -> networks: the one place where strings of a config become modules."""

from collections.abc import Mapping
from dataclasses import dataclass

from jaxcnn.config import ModelConfig
from jaxcnn.errors import InputError, did_you_mean
from jaxcnn.models.classifier import Classifier
from jaxcnn.models.families import Builder, Parts, cifar_resnet, resnet, resnet_d, vgg, wide_resnet
from jaxcnn.models.resnet import ResNet
from jaxcnn.paths import GlobRule

SMALL_IMAGE_PX = 96  # below this side an image gets the small stem, and VGG the pooled head


@dataclass(frozen=True)
class Network:
    """One line of the registry.

    Attributes:
      build: (parts, number of classes) -> module.
      parameters: as published, with `num_classes` classes and images of three channels.
      paper: where the network comes from.
      image_px: side of the images it was made for.
      num_classes: classes of the data set it was made for: 1000 of ImageNet, or 10 of CIFAR-10.
    """

    build: Builder
    parameters: int
    paper: str
    image_px: int = 224
    num_classes: int = 1000


def _cifar(build: Builder, parameters: int, paper: str) -> Network:
    return Network(build, parameters, paper, image_px=32, num_classes=10)


VGG_2014 = "Simonyan & Zisserman 2014, Very Deep Convolutional Networks, arXiv:1409.1556"
HE_2015 = "He et al. 2015, Deep Residual Learning for Image Recognition, arXiv:1512.03385"
HE_2016 = "He et al. 2016, Identity Mappings in Deep Residual Networks, arXiv:1603.05027"
WIDE_2016 = "Zagoruyko & Komodakis 2016, Wide Residual Networks, arXiv:1605.07146"
RESNEXT_2016 = "Xie et al. 2016, Aggregated Residual Transformations, arXiv:1611.05431"
SE_2017 = "Hu et al. 2017, Squeeze-and-Excitation Networks, arXiv:1709.01507"
GROUP_2018 = "Wu & He 2018, Group Normalization, arXiv:1803.08494"
BAG_2018 = "He et al. 2018, Bag of Tricks for Image Classification, arXiv:1812.01187"

_18 = (2, 2, 2, 2)
_50 = (3, 4, 6, 3)  # also ResNet-34, of basic blocks
_101 = (3, 4, 23, 3)
_152 = (3, 8, 36, 3)

# Names and parameter counts are torchvision's and, for d, se, gn and v2, timm's. Those of the CIFAR networks round to
# the papers' (He et al. 2015, table 6; Zagoruyko & Komodakis 2016, table 5); resnet8 and resnetv2_110 follow the
# papers' rules, but are not in them.
NETWORKS: Mapping[str, Network] = {
    "vgg11": Network(vgg("vgg11"), 132_863_336, VGG_2014),
    "vgg13": Network(vgg("vgg13"), 133_047_848, VGG_2014),
    "vgg16": Network(vgg("vgg16"), 138_357_544, VGG_2014),
    "vgg19": Network(vgg("vgg19"), 143_667_240, VGG_2014),
    "resnet18": Network(resnet("basic", _18), 11_689_512, HE_2015),
    "resnet34": Network(resnet("basic", _50), 21_797_672, HE_2015),
    "resnet50": Network(resnet("bottleneck", _50), 25_557_032, HE_2015),
    "resnet101": Network(resnet("bottleneck", _101), 44_549_160, HE_2015),
    "resnet152": Network(resnet("bottleneck", _152), 60_192_808, HE_2015),
    "resnetv2_18": Network(resnet("preact", _18), 11_687_720, HE_2016),
    "resnetv2_34": Network(resnet("preact", _50), 21_795_880, HE_2016),
    "resnetv2_50": Network(resnet("preact_bottleneck", _50), 25_549_352, HE_2016),
    "resnetv2_101": Network(resnet("preact_bottleneck", _101), 44_541_480, HE_2016),
    "resnetv2_152": Network(resnet("preact_bottleneck", _152), 60_185_128, HE_2016),
    "wide_resnet50_2": Network(resnet("bottleneck", _50, widening=2), 68_883_240, WIDE_2016),
    "wide_resnet101_2": Network(resnet("bottleneck", _101, widening=2), 126_886_696, WIDE_2016),
    "resnext50_32x4d": Network(resnet("bottleneck", _50, groups=32, widening=2), 25_028_904, RESNEXT_2016),
    "resnext101_32x8d": Network(resnet("bottleneck", _101, groups=32, widening=4), 88_791_336, RESNEXT_2016),
    "resnext101_64x4d": Network(resnet("bottleneck", _101, groups=64, widening=4), 83_455_272, RESNEXT_2016),
    "resnet18d": Network(resnet_d("basic", _18), 11_708_744, BAG_2018),
    "resnet34d": Network(resnet_d("basic", _50), 21_816_904, BAG_2018),
    "resnet50d": Network(resnet_d("bottleneck", _50), 25_576_264, BAG_2018),
    "resnet101d": Network(resnet_d("bottleneck", _101), 44_568_392, BAG_2018),
    "resnet152d": Network(resnet_d("bottleneck", _152), 60_212_040, BAG_2018),
    "seresnet18": Network(resnet("basic", _18, squeeze_excite=True), 11_779_624, SE_2017),
    "seresnet34": Network(resnet("basic", _50, squeeze_excite=True), 21_960_416, SE_2017),
    "seresnet50": Network(resnet("bottleneck", _50, squeeze_excite=True), 28_088_024, SE_2017),
    "seresnet101": Network(resnet("bottleneck", _101, squeeze_excite=True), 49_326_872, SE_2017),
    "seresnet152": Network(resnet("bottleneck", _152, squeeze_excite=True), 66_821_848, SE_2017),
    "resnet50_gn": Network(resnet("bottleneck", _50, norm="group"), 25_557_032, GROUP_2018),
    "resnet8": _cifar(cifar_resnet(8), 75_290, HE_2015),
    "resnet20": _cifar(cifar_resnet(20), 269_722, HE_2015),
    "resnet32": _cifar(cifar_resnet(32), 464_154, HE_2015),
    "resnet44": _cifar(cifar_resnet(44), 658_586, HE_2015),
    "resnet56": _cifar(cifar_resnet(56), 853_018, HE_2015),
    "resnet110": _cifar(cifar_resnet(110), 1_727_962, HE_2015),
    "resnetv2_110": _cifar(cifar_resnet(110, "preact"), 1_727_962, HE_2016),
    "resnetv2_164": _cifar(cifar_resnet(164, "preact_bottleneck", shortcut="projection"), 1_703_258, HE_2016),
    "wrn_16_4": _cifar(wide_resnet(16, 4), 2_748_890, WIDE_2016),
    "wrn_28_10": _cifar(wide_resnet(28, 10), 36_479_194, WIDE_2016),
}


def build_model(
    config: ModelConfig, image_shape: tuple[int, int, int], num_classes: int, freeze: GlobRule | None = None
) -> Classifier:
    """Returns the network of a config.

    Args:
      config: what to build.
      image_shape: height, width and channels of the input: the stem (and VGG's neck) follow from the size.
      num_classes: outputs of the head; 0: pooled features.
      freeze: paths that do not train: batch norms among them use their running statistics.

    Raises:
      InputError: an unknown name (the nearest are offered), or options that the network does not have.
    """
    if config.name not in NETWORKS:
        raise InputError(f"model.name={config.name!r}: no such network; {did_you_mean(config.name, NETWORKS)}")
    small = min(image_shape[:2]) < SMALL_IMAGE_PX
    return NETWORKS[config.name].build(Parts(config, freeze or GlobRule(), small), num_classes)


def describe(model: Classifier) -> str:
    """Returns in a few words what was built, with the choices that followed from the data."""
    backbone = model.backbone
    if isinstance(backbone, ResNet):
        parts = [f"{backbone.stem} stem", f"{backbone.shortcut} shortcuts"]
        parts += ["equal blocks scanned"] if backbone.scan else []
    else:
        parts = ["pooled head" if model.neck is None else "dense neck"]
    parts += [f"maps of {' '.join(backbone.remat)} computed anew on the way back"] if backbone.remat else []
    return ", ".join([*parts, type(backbone.norm).__name__, f"{model.num_classes} classes"])
