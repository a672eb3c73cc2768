"""A run folder made of weights from elsewhere: its config, its preprocessing, and checkpoint 0."""

import dataclasses
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from jaxcnn.checkpoint import Checkpoints
from jaxcnn.config import DataConfig, ModelConfig, OptimConfig, Preprocessing, TrainConfig
from jaxcnn.errors import InputError
from jaxcnn.run_folder import RunFolder, check_free
from jaxcnn.weights.files import Weights, checked_names
from jaxcnn.weights.importer import preprocessing_for
from jaxcnn.weights.names import count_classes

IMAGENET_CLASSES = 1000
KERAS_RESNET = "conv1_conv.kernel"  # the name tells where a ResNet is from


def numbered(count: int) -> tuple[str, ...]:
    """Returns "class 0", "class 1", ...: the names of classes that nobody named."""
    return tuple(f"class {label}" for label in range(count))


def is_numbered(names: tuple[str, ...]) -> bool:
    """Returns whether the names of classes are only their numbers."""
    return names == numbered(len(names))


def class_names_of(weights: Weights, given: str | None, data: DataConfig) -> tuple[str, ...]:
    """Returns the names of an imported run's classes.

    Args:
      weights: whose own names, or numbers for as many classes as its head has, are taken where nothing is given.
      given: a file (JSON list, or a name a line), a number of classes, or the name of a data set.
      data: where data sets are.
    """
    if given is None:
        return weights.class_names or numbered(count_classes(weights.tensors) or IMAGENET_CLASSES)
    if given.isdecimal() and int(given) > 0:
        return numbered(int(given))
    if Path(given).is_file():
        return _names_in_file(Path(given))
    from jaxcnn.data.tfds_source import open_builder, open_source

    builder = open_builder(dataclasses.replace(data, name=given))
    return open_source(builder, next(iter(builder.info.splits)), "--classes").class_names


def is_data_set(classes: str | None) -> bool:
    """Returns whether what was given for class names is neither nothing, nor a number, nor a file."""
    return classes is not None and not classes.isdecimal() and not Path(classes).is_file()


def _names_in_file(path: Path) -> tuple[str, ...]:
    try:
        text = path.read_text()
        is_json = text.lstrip().startswith(("[", "{"))
        names = json.loads(text) if is_json else [line for line in text.split("\n") if line.strip()]
    except (OSError, ValueError) as error:
        raise InputError(f"--classes {path}: {error}") from None
    return checked_names(names, f"--classes {path}: what it holds is")


def model_config(arch: str, weights: Weights, given: ModelConfig) -> ModelConfig:
    """Returns the config of the network that the weights are for; what `given` leaves open follows from the tensors.

    `vgg16_bn`, as torchvision has it, is vgg16 with batch norm.
    """
    name = arch.removesuffix("_bn") if arch.startswith("vgg") else arch
    own: dict[str, Any] = {"name": name}
    if name.startswith("vgg"):
        has_norm = arch.endswith("_bn") or "features.1.running_mean" in weights.tensors
        own |= {"norm": "batch" if has_norm else "none", "neck": "dense" if _has_neck(weights) else "pooled"}
    else:
        own["stem"] = _stem(weights)
    if KERAS_RESNET in weights.tensors:
        own["bottleneck_stride"] = "1x1"  # keras.applications.resnet has the paper's, "v1"
    chosen = {key: value for key, value in own.items() if getattr(given, key) is None or key == "name"}
    return dataclasses.replace(given, **chosen)


def _has_neck(weights: Weights) -> bool:
    names = ("classifier.0.weight", "pre_logits.fc1.weight", "fc1.kernel", "params/neck/fc1/kernel")
    return any(name in weights.tensors for name in names)


def _stem(weights: Weights) -> str | None:
    """The stem of a ResNet by the side of its first kernel, so that it does not depend on the size of the images."""
    if weights.tensors.keys() & {"conv1.0.weight", "params/backbone/stem/conv1/kernel"}:
        return "deep"
    for name in ("conv1.weight", "stem.conv.weight", KERAS_RESNET, "params/backbone/stem/conv/kernel"):
        if name in weights.tensors and weights.tensors[name].ndim == 4:
            return "small" if weights.tensors[name].shape.count(7) < 2 else "imagenet"
    return None


def preprocessing_of(weights: Weights, image_size: int | None, channels: int) -> Preprocessing:
    """Returns the preprocessing of an imported run: what the source says, else what is usual for such weights.

    Usual is ImageNet's mean and std; 32 pixels, whole, for a network whose first kernel is 3x3, else 224 of 256.
    """
    hints = weights.hints
    small = _stem(weights) == "small"
    size = image_size or hints.image_size or (32 if small else 224)
    crop_share = hints.crop_share or (1.0 if small else 0.875)
    return preprocessing_for(hints, (size, size, channels), crop_share)


def import_config(model: ModelConfig, data: DataConfig) -> TrainConfig:
    """Returns the config of an imported run: no averages are kept, since nothing was trained."""
    return TrainConfig(name=f"{model.name}-imported", model=model, data=data, optim=OptimConfig(ema_decay=None))


def write_run(
    out: Path,
    config: TrainConfig,
    class_names: tuple[str, ...],
    preprocessing: Preprocessing,
    variables: dict[str, Any],
    origin: dict[str, Any],
) -> RunFolder:
    """Returns a new run folder with the variables as checkpoint 0 and `origin` as weights.json; whole or not at all.

    Raises:
      InputError: the folder exists and is not empty, or cannot be made.
    """
    check_free(out, "--out")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    except OSError as error:
        raise InputError(f"--out {out}: {error.strerror}") from None
    try:
        folder = RunFolder.create(part / "run", config, class_names, preprocessing)
        folder.write_json("weights.json", origin)
        checkpoints = Checkpoints(folder.checkpoints)
        checkpoints.save(0, {"model": variables}, {})
        checkpoints.close()
        (part / "run").rename(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return RunFolder(out)
