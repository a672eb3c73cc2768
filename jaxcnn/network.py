"""A network with its preprocessing and class names, and the variables that a run has left it with."""

import functools
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxcnn.augment.normalise import normalise
from jaxcnn.augment.test_time import crops_and_flips
from jaxcnn.checkpoint import Checkpoints
from jaxcnn.config import EvaluationConfig, Preprocessing, TrainConfig
from jaxcnn.data.source import Source
from jaxcnn.data.split_expressions import data_set_name
from jaxcnn.errors import InputError
from jaxcnn.models.classifier import Classifier
from jaxcnn.models.registry import build_model
from jaxcnn.paths import GlobRule, flatten, merge
from jaxcnn.run_folder import RunFolder
from jaxcnn.runtime import compiler_options
from jaxcnn.training.evaluation_step import make_evaluation_step
from jaxcnn.training.partition import partition_variables, phase_rules
from jaxcnn.weights.imported_run import numbered

LOG = logging.getLogger("jaxcnn")


@dataclass(frozen=True)
class Network:
    """A model with all it takes to apply it to images."""

    model: Classifier
    preprocessing: Preprocessing
    class_names: tuple[str, ...]
    evaluation: EvaluationConfig = EvaluationConfig()
    """How many views of an image are averaged where the network is measured."""
    deterministic: bool = False
    """Whether it is measured with the same bits each time on a GPU."""

    @functools.cached_property
    def shapes(self) -> dict[str, Any]:
        """Shapes of the variables: {"params", "batch_stats"}."""
        image = jax.ShapeDtypeStruct((1, *self.preprocessing.image_shape), jnp.float32)
        shapes = jax.eval_shape(self.model.init, jax.random.key(0), image)
        return {"params": shapes["params"], "batch_stats": shapes.get("batch_stats", {})}

    def normalise(self, images: jax.Array) -> jax.Array:
        """Returns uint8 images as the network's float32 input."""
        return normalise(images, self.preprocessing.mean, self.preprocessing.std)

    @functools.cached_property
    def evaluation_step(self) -> Callable:
        """The jitted evaluation step; see `training/evaluation_step.py`."""
        height, width, _ = self.preprocessing.image_shape

        def views(images: jax.Array) -> list[jax.Array]:
            cut = crops_and_flips(images, height, width, self.evaluation.crops, self.evaluation.flip)
            return [self.normalise(view) for view in cut]

        options = compiler_options(deterministic=self.deterministic)
        return jax.jit(make_evaluation_step(self.model, views), donate_argnums=1, compiler_options=options)

    @property
    def measured_on(self) -> tuple[tuple[int, int, int], float]:
        """(shape, share of the side that the centre crop keeps) of the images that the evaluation step takes."""
        inputs = self.preprocessing
        if self.evaluation.crops == 1:
            return inputs.image_shape, inputs.crop_share
        return larger(inputs.image_shape, inputs.crop_share), 1.0

    @property
    def num_parameters(self) -> int:
        return sum(math.prod(leaf.shape) for leaf in flatten(self.shapes["params"]).values())


def build_network(
    config: TrainConfig, preprocessing: Preprocessing, class_names: tuple[str, ...], freeze: GlobRule | None = None
) -> Network:
    """Returns the network of a config; raises InputError where its parts do not fit each other or the images.

    Batch norms use their running statistics in training where `freeze` has them; none: that of the first epoch.
    """
    wanted = config.model.num_classes
    if wanted is not None and wanted != len(class_names):
        raise InputError(
            f"model.num_classes={wanted}: {data_set_name(config.data)} has {len(class_names)} classes; "
            "leave the field out, and it follows from the data"
        )
    model = build_model(config.model, preprocessing.image_shape, len(class_names), freeze or GlobRule(config.freeze))
    network = Network(model, preprocessing, class_names, config.evaluation, config.train.deterministic)
    if config.evaluation.crops > 1 and network.measured_on[0] == preprocessing.image_shape:
        raise InputError(
            f"evaluation.crops={config.evaluation.crops}: crops differ only where they leave out a border; set "
            f"data.crop_share below {preprocessing.crop_share:g}, for instance 0.875"
        )
    try:
        network.shapes  # noqa: B018 - a dry run: no arithmetic, no compilation
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"model.name={config.model.name!r}: {error}") from None
    return network


def larger(shape: tuple[int, int, int], crop_share: float) -> tuple[int, int, int]:
    """Returns the shape of images of which a crop of `shape` keeps a part `crop_share` of each side."""
    return (round(shape[0] / crop_share), round(shape[1] / crop_share), shape[2])


def load_variables(folder: RunFolder, which: str = "best") -> tuple[dict[str, Any], int]:
    """Returns ({"params", "batch_stats"}, step) of a run, the moving averages where it kept them.

    Args:
      folder: the run.
      which: "best" (by validation top-1), "latest" or a step.

    Raises:
      InputError: no such checkpoint, or a damaged one.
    """
    config = folder.config
    shapes = _on_one_device(build_network(config, folder.preprocessing, folder.class_names).shapes)
    rules = phase_rules(config.freeze, config.unfreeze)

    def templates(progress: dict[str, Any]) -> dict[str, Any]:
        moving, _ = partition_variables(shapes, rules[progress.get("phase", 0)][1])
        if config.optim.ema_decay is None:
            return {"model": shapes}
        return {"model": shapes, "average": moving}

    if not has_checkpoint(folder):
        raise InputError(f"{folder.path} has no checkpoint yet")
    checkpoints = Checkpoints(folder.checkpoints, read_only=True)
    if which == "best":
        trees, _, step = checkpoints.restore_best(templates, LOG.warning)
    else:
        step = _step_named(checkpoints, which)
        trees, _ = checkpoints.restore(step, templates)
    variables = trees["model"]
    if "average" in trees:
        average = trees["average"]
        variables = {name: merge(variables[name], average[name]) for name in average}
    return variables, step


def has_checkpoint(folder: RunFolder) -> bool:
    """Returns whether there is anything to load from a run."""
    return folder.checkpoints.is_dir() and bool(Checkpoints(folder.checkpoints, read_only=True).steps())


def _step_named(checkpoints: Checkpoints, which: str) -> int:
    if which == "latest":
        return checkpoints.steps()[-1]
    if which.isdecimal():
        return int(which)
    raise InputError(f"--checkpoint {which!r}: best, latest or one of the steps {checkpoints.steps()}")


def _on_one_device(shapes: Any) -> Any:
    """The shapes, to be restored onto this process's first device, wherever they were saved."""
    place = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), shapes)


def check_same_classes(source: Source, network: Network, run: str) -> None:
    """Raises InputError where a data set has other classes than the run was trained on."""
    ours, theirs = network.class_names, source.class_names
    if len(ours) != len(theirs):
        raise InputError(f"{source.name} has {len(theirs)} classes, but {run} was trained on {len(ours)}")
    if ours == numbered(len(ours)):
        LOG.info(f"{run} has no names for its classes: they are taken to be those of {source.name}, in this order")
        return
    for label, (name, other) in enumerate(zip(ours, theirs, strict=True)):
        if name != other:
            raise InputError(f"{source.name}: class {label} is {other!r}, but {run} was trained with {name!r}")
