"""A network with its preprocessing and class names, and the variables it starts from or was left with by a run."""

import dataclasses
import functools
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

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
from jaxcnn.run_folder import RunFolder, is_run
from jaxcnn.runtime import compiler_options
from jaxcnn.training.evaluation_step import make_evaluation_step
from jaxcnn.training.partition import partition
from jaxcnn.weights.files import Hints, Weights, read_weights
from jaxcnn.weights.imported_run import numbered
from jaxcnn.weights.importer import Fitted, filled, fit

LOG = logging.getLogger("jaxcnn")


@dataclass(frozen=True)
class Network:
    """A model with all it takes to apply it to images."""

    model: Classifier
    preprocessing: Preprocessing
    class_names: tuple[str, ...]
    evaluation: EvaluationConfig = EvaluationConfig()
    """How many views of an image are averaged where the network is measured."""

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

        return jax.jit(make_evaluation_step(self.model, views), donate_argnums=1, compiler_options=compiler_options())

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


def build_network(config: TrainConfig, preprocessing: Preprocessing, class_names: tuple[str, ...]) -> Network:
    """Returns the network of a config; raises InputError where its parts do not fit each other or the images."""
    wanted = config.model.num_classes
    if wanted is not None and wanted != len(class_names):
        raise InputError(
            f"model.num_classes={wanted}: {data_set_name(config.data)} has {len(class_names)} classes; "
            "leave the field out, and it follows from the data"
        )
    model = build_model(config.model, preprocessing.image_shape, len(class_names), GlobRule(config.freeze))
    network = Network(model, preprocessing, class_names, config.evaluation)
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


def initial_variables(config: TrainConfig, network: Network) -> dict[str, Any]:
    """Returns {"params", "batch_stats"} before step 0: drawn from the seed, then those of `init_from` put in.

    Raises:
      InputError: `init_from` does not fit the network. A head for other classes is no error: it starts anew.
    """
    image = jnp.zeros((1, *network.preprocessing.image_shape), jnp.float32)
    drawn = jax.jit(network.model.init)(jax.random.key(config.seed), image)
    variables = {"params": drawn["params"], "batch_stats": drawn.get("batch_stats", {})}
    if config.init_from is None:
        return variables
    weights, fitted = fit_start(config, variables)
    for note in (*fitted.notes, *_other_names(weights, fitted, network.class_names)):
        LOG.info(f"init_from {config.init_from}: {note}")
    return filled(variables, fitted)


def fit_start(config: TrainConfig, shapes: dict[str, Any]) -> tuple[Weights, Fitted]:
    """Returns the weights of `init_from` as they are and in the form of the network; raises as `initial_variables`."""
    assert config.init_from is not None
    weights = dataclasses.replace(read_start(config.init_from), place=f"init_from={config.init_from!r}")
    return weights, fit(weights, flatten(shapes), f"model.name={config.model.name!r}")


def _other_names(weights: Weights, fitted: Fitted, names: tuple[str, ...]) -> list[str]:
    """A note where the head is kept, but was trained for classes of other names."""
    theirs = weights.class_names
    if theirs is None or theirs == numbered(len(theirs)) or theirs == names or "params/head/kernel" in fitted.anew:
        return []
    label = next((label for label, pair in enumerate(zip(theirs, names, strict=False)) if pair[0] != pair[1]), 0)
    return [f"the head is kept, but its class {label} was {theirs[label]!r} and is {names[label]!r} now"]


def read_start(place: str) -> Weights:
    """Returns the weights to start from: the best of a run folder, or those of a file or a hub name."""
    if not is_run(place):
        return read_weights(place)
    folder = RunFolder(place)
    leaves = {path: np.asarray(leaf) for path, leaf in flatten(load_variables(folder)[0]).items()}
    images = folder.preprocessing
    hints = Hints(images.mean, images.std, image_size=images.image_shape[0], crop_share=images.crop_share)
    return Weights(place, leaves, hints, folder.class_names)


def load_variables(folder: RunFolder, which: str = "best") -> tuple[dict[str, Any], int]:
    """Returns ({"params", "batch_stats"}, step) of a run, the moving averages where it kept them.

    Args:
      folder: the run.
      which: "best" (by validation top-1), "latest" or a step.

    Raises:
      InputError: no such checkpoint, or a damaged one.
    """
    config = folder.config
    shapes = build_network(config, folder.preprocessing, folder.class_names).shapes
    trainable, _ = partition(shapes["params"], GlobRule(config.freeze))
    templates = {"model": shapes}
    if config.optim.ema_decay is not None:
        templates["average"] = {"params": trainable, "batch_stats": shapes["batch_stats"]}
    checkpoints = Checkpoints(folder.checkpoints, read_only=True) if folder.checkpoints.is_dir() else None
    if checkpoints is None or not checkpoints.steps():
        raise InputError(f"{folder.path} has no checkpoint yet")
    templates = _on_one_device(templates)
    if which == "best":
        trees, _, step = checkpoints.restore_best(templates, LOG.warning)
    else:
        step = _step_named(checkpoints, which)
        trees, _ = checkpoints.restore(step, templates)
    variables = trees["model"]
    if "average" in trees:
        average = trees["average"]
        params = merge(variables["params"], average["params"])
        variables = {"params": params, "batch_stats": average["batch_stats"]}
    return variables, step


def _step_named(checkpoints: Checkpoints, which: str) -> int:
    if which == "latest":
        return checkpoints.steps()[-1]
    if which.isdecimal():
        return int(which)
    raise InputError(f"--checkpoint {which!r}: best, latest or one of the steps {checkpoints.steps()}")


def _on_one_device(shapes: Any) -> Any:
    """The shapes, to be restored onto the first device, wherever they were saved."""
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
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
