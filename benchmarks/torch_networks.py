"""The networks in PyTorch, written for the benchmark, with torchvision's names."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.workloads import Architecture


def build_network(architecture: Architecture, num_classes: int) -> nn.Module:
    """Returns the network; images are [N, 3, H, W]."""
    return (VGG if architecture.family == "vgg" else ResNet)(architecture, num_classes)


def _conv(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)


class PadShortcut(nn.Module):
    """Every second pixel, new channels zero: He et al. 2015, option A."""

    def __init__(self, new_channels: int, stride: int) -> None:
        super().__init__()
        self.half, self.stride = new_channels // 2, stride

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.half, self.half))


def _shortcut(architecture: Architecture, inputs: int, outputs: int, stride: int) -> nn.Module:
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    if architecture.shortcut == "pad":
        return PadShortcut(outputs - inputs, stride)
    return nn.Sequential(_conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))


class BasicBlock(nn.Module):
    """3x3 and 3x3 beside a shortcut."""

    expansion = 1

    def __init__(self, architecture: Architecture, inputs: int, features: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv(inputs, features, 3, stride), nn.BatchNorm2d(features)
        self.conv2, self.bn2 = _conv(features, features, 3), nn.BatchNorm2d(features)
        self.downsample = _shortcut(architecture, inputs, features, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        return F.relu(y + self.downsample(x), inplace=True)


class Bottleneck(nn.Module):
    """1x1, 3x3 with the stride (v1.5) and 1x1 beside a shortcut."""

    expansion = 4

    def __init__(self, architecture: Architecture, inputs: int, features: int, stride: int) -> None:
        super().__init__()
        outputs = features * self.expansion
        self.conv1, self.bn1 = _conv(inputs, features, 1), nn.BatchNorm2d(features)
        self.conv2, self.bn2 = _conv(features, features, 3, stride), nn.BatchNorm2d(features)
        self.conv3, self.bn3 = _conv(features, outputs, 1), nn.BatchNorm2d(outputs)
        self.downsample = _shortcut(architecture, inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.bn3(self.conv3(y))
        return F.relu(y + self.downsample(x), inplace=True)


class ResNet(nn.Module):
    """Stem, `layer1`, ..., mean over the map, `fc`."""

    def __init__(self, architecture: Architecture, num_classes: int) -> None:
        super().__init__()
        block = BasicBlock if architecture.block == "basic" else Bottleneck
        inputs = architecture.width
        small = architecture.stem == "small"
        self.conv1 = _conv(3, inputs, 3) if small else _conv(3, inputs, 7, 2)
        self.bn1 = nn.BatchNorm2d(inputs)
        self.maxpool = nn.Identity() if small else nn.MaxPool2d(3, 2, padding=1)
        for index, size in enumerate(architecture.sizes):
            features, blocks = architecture.width * 2**index, []
            for place in range(size):
                blocks.append(block(architecture, inputs, features, 2 if index and not place else 1))
                inputs = features * block.expansion
            self.add_module(f"layer{index + 1}", nn.Sequential(*blocks))
        self.depth = len(architecture.sizes)
        self.fc = nn.Linear(inputs, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(F.relu(self.bn1(self.conv1(x)), inplace=True))
        for index in range(self.depth):
            x = getattr(self, f"layer{index + 1}")(x)
        return self.fc(torch.mean(x, dim=(2, 3)))


class VGG(nn.Module):
    """`features` of convolution, norm, activation and max-pool, mean over the map, dropout, `classifier`."""

    def __init__(self, architecture: Architecture, num_classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for index, size in enumerate(architecture.sizes):
            outputs = architecture.width * min(2**index, 8)
            for _ in range(size):
                conv = nn.Conv2d(inputs, outputs, 3, padding=1)
                layers += [conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
                inputs = outputs
            layers.append(nn.MaxPool2d(2, 2))
        self.features = nn.Sequential(*layers)
        self.dropout = nn.Dropout(0.5)
        self.classifier = nn.Linear(inputs, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.mean(self.features(x), dim=(2, 3))
        return self.classifier(self.dropout(x))
