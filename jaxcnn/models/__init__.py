"""Networks: pure Flax modules. Needs flax and jax only.

from jaxcnn.models import ResNet, BasicBlock, GroupNorm, Classifier
model = Classifier(ResNet((2, 2, 2, 2), BasicBlock, norm=GroupNorm(32)), num_classes=10)
"""

from jaxcnn.models.blocks import BasicBlock, BottleneckBlock, PlainBlock, PreActBlock, PreActBottleneckBlock
from jaxcnn.models.classifier import Classifier, replace_head
from jaxcnn.models.conv import Conv, conv
from jaxcnn.models.norms import BatchNorm, GroupNorm, InstanceNorm, LayerNorm, NoNorm, Norm
from jaxcnn.models.registry import NETWORKS, build_model, describe
from jaxcnn.models.resnet import ResNet
from jaxcnn.models.vgg import VGG, VGGNeck

__all__ = [
    "NETWORKS",
    "VGG",
    "BasicBlock",
    "BatchNorm",
    "BottleneckBlock",
    "Classifier",
    "Conv",
    "GroupNorm",
    "InstanceNorm",
    "LayerNorm",
    "NoNorm",
    "Norm",
    "PlainBlock",
    "PreActBlock",
    "PreActBottleneckBlock",
    "ResNet",
    "VGGNeck",
    "build_model",
    "conv",
    "describe",
    "replace_head",
]
