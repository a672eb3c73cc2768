"""Which network is transferred to which tasks."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jaxcnn.config import DataConfig, ModelConfig
from jaxcnn.data import loader
from jaxcnn.data.sources import open_splits
from jaxcnn.data.split_expressions import data_set_name
from jaxcnn.studies.reading import quietly
from jaxcnn.studies.setting import Setting
from jaxcnn.weights.files import HUB_PREFIX

ANIMALS = ("bird", "cat", "deer", "dog", "frog", "horse")
"""Of CIFAR-10; the others are vehicles. Yosinski et al. 2014, section 4.2, divide ImageNet in this way."""

MODELS = {"quick": ModelConfig(name="resnet8", width=8), "cpu": ModelConfig(name="resnet20"),
          "paper": ModelConfig(name="resnet20")}  # fmt: skip
"""What is trained, by size."""


@dataclass(frozen=True)
class Transfer:
    """What is studied.

    Attributes:
      model: the network.
      source: the task of its weights; none: it is not known, or not probed.
      targets: other tasks; from few images of the first, networks are trained too.
      init_from: its weights: run, file or hub name; none: it is trained on the source, a network a seed.
      trains: whether networks are fine-tuned, and trained from nothing, from few images.
    """

    model: ModelConfig
    source: DataConfig | None
    targets: tuple[DataConfig, ...]
    init_from: str | None = None
    trains: bool = True


def transfer_of(setting: Setting) -> Transfer:
    """Returns what is studied where nothing else is said: a network of some classes of the data, and two targets.

    The first target is the classes that the data's config names, or else half of them: of CIFAR-10, animals are the
    source and vehicles the target. The second one is far from both: digits or, for grey images, drawn shapes.
    """
    data = setting.data
    with quietly():
        train = open_splits(replace(data, classes=None)).train
    names = train.class_names
    near = data.classes
    if near is None:
        animals = set(ANIMALS) < set(names)
        near = tuple(name for name in names if name not in ANIMALS) if animals else names[len(names) // 2 :]
    source = tuple(name for name in names if name not in near)
    height, _, channels = loader.input_shape(train, data.image_size, data.channels)
    images: dict[str, Any] = {"image_size": height, "channels": channels}
    far = DataConfig(source="synthetic", **images) if channels == 1 else DataConfig(**images)
    return Transfer(MODELS[setting.size], replace(data, classes=source), (replace(data, classes=near), far))


def task_name(data: DataConfig) -> str:
    """Returns the name of a task in titles: its data set and, if they are chosen, its classes."""
    named = {"tfds": data.name, "synthetic": "shapes"}
    name = named.get(data.source) or Path(data_set_name(data)).name
    return name if data.classes is None else f"{name} ({', '.join(data.classes)})"


def short(place: str) -> str:
    """Returns the name of weights in titles: without the folders that they lie in."""
    return place if place.startswith(HUB_PREFIX) else Path(place).name
