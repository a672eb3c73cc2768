"""What is measured: networks with their images and batches, and the task a worker process is given."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from jaxcnn.config import ModelConfig
from jaxcnn.config_reader import check
from jaxcnn.errors import InputError, did_you_mean

Kind = Literal["train", "forward"]


@dataclass(frozen=True)
class Workload:
    """A network on batches of random images.

    Attributes:
      title: what tables and figures call it.
      model: name in our registry.
      image_px: side of the images, of three channels.
      batch: images a step on a CPU.
      gpu_batch: images a step on a GPU.
      num_classes: outputs of the head.
      options: fields of `ModelConfig` that differ from their defaults; the peers know `width` alone of them.
    """

    title: str
    model: str
    image_px: int = 32
    batch: int = 128
    gpu_batch: int = 512
    num_classes: int = 10
    options: tuple[tuple[str, Any], ...] = ()


WORKLOADS = {
    "resnet18": Workload("ResNet-18, small stem", "resnet18"),
    "vgg11_bn": Workload("VGG-11-BN", "vgg11", options=(("norm", "batch"),)),
    "resnet50": Workload("ResNet-50", "resnet50", image_px=224, batch=16, gpu_batch=256, num_classes=1000),
    "resnet20": Workload("ResNet-20", "resnet20"),
    "resnet110": Workload("ResNet-110", "resnet110"),
}
TIMED = {"cpu": ("resnet18", "vgg11_bn", "resnet50", "resnet20"), "gpu": ("resnet50", "resnet18")}
"""What is timed where unless other networks are asked for; ResNet-110 is there for its compilation."""


@dataclass(frozen=True)
class Task:
    """What a worker builds: plain values, so that it crosses to the process as JSON.

    Attributes:
      candidate: a name of `candidates.py`.
      kind: a training step, or a forward pass in evaluation mode.
      model, image_px, batch, num_classes, options: see `Workload`; `options` as a dictionary.
      dtype: compute type; parameters are float32.
      device: where it runs.
      weights: file that `fairness.write_weights` made; empty where only shapes matter.
      steps: training steps, or passes, a turn.
    """

    candidate: str
    kind: Kind
    model: str
    image_px: int
    batch: int
    num_classes: int
    options: dict[str, Any]
    dtype: Literal["float32", "bfloat16"] = "float32"
    device: Literal["cpu", "gpu"] = "cpu"
    weights: str = ""
    steps: int = 1

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return (self.image_px, self.image_px, 3)

    @property
    def architecture(self) -> "Architecture":
        """What the peers build."""
        architecture = ARCHITECTURES[self.model]
        return dataclasses.replace(
            architecture,
            width=self.options.get("width", architecture.width),
            stem="small" if self.image_px < 96 else "imagenet",
        )

    def config(self, dtype: str) -> ModelConfig:
        """Returns the config of our network; raises InputError for options that it does not have."""
        known = {field.name for field in dataclasses.fields(ModelConfig)} - {"name", "dtype"}
        for name in self.options:
            if name not in known:
                raise InputError(f"--option {name}: no such field of ModelConfig; {did_you_mean(name, known)}")
        return check(ModelConfig(name=self.model, dtype=dtype, **self.options), "--option")  # type: ignore[arg-type]


@dataclass(frozen=True)
class Architecture:
    """A network as the peers, which know nothing of our registry, are told it.

    Attributes:
      family: residual, or a VGG with batch norm and a linear head on the mean of the last map.
      sizes: blocks, or convolutions, of each stage.
      width: channels of the first stage.
      block: of the residual networks.
      shortcut: pad is He et al. 2015's option A.
      stem: small is one 3x3; imagenet is 7x7 stride 2 and a max-pool.
    """

    family: Literal["resnet", "vgg"]
    sizes: tuple[int, ...]
    width: int = 64
    block: Literal["basic", "bottleneck"] = "basic"
    shortcut: Literal["projection", "pad"] = "projection"
    stem: Literal["small", "imagenet"] = "small"


ARCHITECTURES = {
    "resnet18": Architecture("resnet", (2, 2, 2, 2)),
    "resnet50": Architecture("resnet", (3, 4, 6, 3), block="bottleneck"),
    "resnet20": Architecture("resnet", (3, 3, 3), width=16, shortcut="pad"),
    "resnet110": Architecture("resnet", (18, 18, 18), width=16, shortcut="pad"),
    "vgg11": Architecture("vgg", (1, 1, 2, 2, 2)),
}


def task_of(workload: Workload, candidate: str, kind: Kind, **settings: Any) -> Task:
    """Returns the task of a candidate on a workload; settings may be any of Task's fields, `options` is added to."""
    device = settings.get("device", "cpu")
    fields = {
        "model": workload.model,
        "image_px": workload.image_px,
        "batch": workload.gpu_batch if device == "gpu" else workload.batch,
        "num_classes": workload.num_classes,
        **settings,
        "options": {**dict(workload.options), **settings.get("options", {})},
    }
    return Task(candidate, kind, **fields)
