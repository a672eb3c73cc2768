"""Writes golden.json and gradients.json: what PyTorch's and Keras's networks give for rebuilt weights.

Run by hand, where torch, torchvision, timm and keras are installed (keras runs on torch):

    KERAS_BACKEND=torch python -m tests.golden.make_golden

Each network gets weights and running statistics from `filling.fill`, 10 classes, and two images at 64 and at 75 px (the
odd size shows a wrong padding); its logits and the mean absolute value after each stage are kept. Networks with batch
norm also do one training step at 64 px, of which the gradients' and statistics' summaries are kept. float64 throughout.
"""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import torchvision

from tests.golden.filling import fill, fingerprint, images, summary

FOLDER = Path(__file__).parent
SIZES = (64, 75)
CLASSES = 10
TORCHVISION = [
    *(f"vgg{depth}{norm}" for depth in (11, 13, 16, 19) for norm in ("", "_bn")),
    *(f"resnet{depth}" for depth in (18, 34, 50, 101, 152)),
    *("wide_resnet50_2", "wide_resnet101_2", "resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d"),
]
TIMM = [
    *(f"resnet{depth}d" for depth in (18, 34, 50, 101, 152)),
    *(f"seresnet{depth}" for depth in (18, 34, 50, 101, 152)),
    *(f"resnetv2_{depth}" for depth in (18, 34, 50, 101, 152)),
    *("resnet50_gn", "vgg11", "vgg11_bn"),
]
TRAINED = ("resnet18", "resnet50", "vgg11_bn")


class CifarBlock(torch.nn.Module):
    """The basic block with option-A shortcuts, with the names of akamaster/pytorch_resnet_cifar10."""

    def __init__(self, inputs: int, features: int, stride: int):
        super().__init__()
        self.conv1 = torch.nn.Conv2d(inputs, features, 3, stride, 1, bias=False)
        self.bn1 = torch.nn.BatchNorm2d(features)
        self.conv2 = torch.nn.Conv2d(features, features, 3, 1, 1, bias=False)
        self.bn2 = torch.nn.BatchNorm2d(features)
        self.stride, self.new = stride, features - inputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        half = self.new // 2
        shortcut = torch.nn.functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, half, half))
        return torch.relu(y + shortcut)


class CifarResNet(torch.nn.Module):
    """He et al. 2015, section 4.2: 6n + 2 layers."""

    def __init__(self, depth: int):
        super().__init__()
        self.conv1 = torch.nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = torch.nn.BatchNorm2d(16)
        for stage, (inputs, features) in enumerate(((16, 16), (16, 32), (32, 64)), 1):
            blocks = [CifarBlock(inputs, features, 1 if stage == 1 else 2)]
            blocks += [CifarBlock(features, features, 1) for _ in range((depth - 2) // 6 - 1)]
            self.add_module(f"layer{stage}", torch.nn.Sequential(*blocks))
        self.linear = torch.nn.Linear(64, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layer3(self.layer2(self.layer1(torch.relu(self.bn1(self.conv1(x))))))
        return self.linear(x.mean((2, 3)))


def networks() -> Iterable[tuple[str, torch.nn.Module]]:
    """Yields each network as LIBRARY/NAME and module."""
    for name in TORCHVISION:
        yield f"torchvision/{name}", getattr(torchvision.models, name)(num_classes=CLASSES)
    for name in TIMM:
        yield f"timm/{name}", timm.create_model(name, num_classes=CLASSES)
    for depth in (20, 32, 44, 56, 110):
        yield f"akamaster/resnet{depth}", CifarResNet(depth)


def load(model: torch.nn.Module) -> torch.nn.Module:
    """Returns the module with rebuilt weights, float64, without dropout."""
    state = {name: torch.from_numpy(fill(name, tuple(old.shape))) for name, old in model.state_dict().items()}
    model.load_state_dict(state)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model.double()


def stages(model: torch.nn.Module) -> list[torch.nn.Module]:
    """The modules at whose outputs a stage ends."""
    if hasattr(model, "features"):
        return [module for module in model.features if isinstance(module, torch.nn.MaxPool2d)]
    if hasattr(model, "stages"):
        return list(model.stages)
    return [getattr(model, f"layer{stage}") for stage in range(1, 5) if hasattr(model, f"layer{stage}")]


@torch.no_grad()
def evaluation(model: torch.nn.Module) -> dict[str, Any]:
    """Logits and the mean absolute value after each stage, at each size."""
    model.eval()
    result: dict[str, Any] = {"names": fingerprint({name: old.shape for name, old in model.state_dict().items()})}
    for size in SIZES:
        means: list[float] = []
        hooks = [
            stage.register_forward_hook(lambda module, given, output, means=means: means.append(output.abs().mean()))
            for stage in stages(model)
        ]
        logits = model(torch.from_numpy(images(size)).double())
        for hook in hooks:
            hook.remove()
        result[str(size)] = {"logits": rounded(logits.numpy()), "stages": rounded(np.array(means))}
    return result


def training(model: torch.nn.Module) -> dict[str, Any]:
    """Summaries of all gradients and of the new running statistics of one step on 8 images."""
    model.train()
    x = torch.from_numpy(images(64, 8)).double()
    loss = torch.nn.functional.cross_entropy(model(x), torch.arange(8) % CLASSES)
    loss.backward()
    arrays = {name: parameter.grad.numpy() for name, parameter in model.named_parameters()}
    arrays |= {name: buffer.numpy() for name, buffer in model.named_buffers() if name.endswith(("mean", "var"))}
    return {
        "loss": float(loss.detach()),
        **{name: rounded(np.array(summary(name, array))) for name, array in arrays.items()},
    }


def keras_networks() -> Iterable[tuple[str, Any]]:
    """Yields keras.applications networks with rebuilt weights, and their logits for images NHWC."""
    import keras

    for name, sizes in (("ResNet50", SIZES), ("VGG16", (224,)), ("VGG19", (224,))):
        result = {}
        for size in sizes:
            build: Callable[..., Any] = getattr(keras.applications, name)
            model = build(
                weights=None, classes=CLASSES, classifier_activation=None, input_shape=(size, size, 3), name=name
            )
            for layer in model.layers:
                old = layer.get_weights()
                leaves = ("scale", "bias", "mean", "var") if len(old) == 4 else ("kernel", "bias")
                layer.set_weights(
                    [
                        fill(f"{layer.name}.{leaf}", array.shape, inputs_first=True)
                        for leaf, array in zip(leaves, old, strict=False)
                    ]
                )
            bgr = images(size).transpose(0, 2, 3, 1)[..., ::-1]  # the test gives RGB
            result[str(size)] = {"logits": rounded(np.asarray(model.predict(bgr.copy(), verbose=0)))}
        yield f"keras/{name.lower()}", result


def rounded(array: np.ndarray) -> Any:
    return [float(f"{value:.7g}") if np.ndim(value) == 0 else rounded(value) for value in array]


def main() -> None:
    golden, gradients = {}, {}
    for name, module in networks():
        model = load(module)
        golden[name] = evaluation(model)
        library, _, short = name.partition("/")
        if library == "torchvision" and short in TRAINED:
            gradients[short] = training(model)
        print(name, golden[name]["64"]["logits"][0][:3], flush=True)
        del model, module
    golden |= dict(keras_networks())
    for file, content in (("golden.json", golden), ("gradients.json", gradients)):
        (FOLDER / file).write_text(
            "{\n" + ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in content.items()) + "\n}\n"
        )


if __name__ == "__main__":
    main()
