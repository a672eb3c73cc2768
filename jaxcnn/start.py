"""The variables a run starts from: drawn from the seed, and those of `init_from` put in."""

import dataclasses
import logging
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn.config import TrainConfig
from jaxcnn.errors import InputError
from jaxcnn.network import Network, load_variables
from jaxcnn.paths import GlobRule, flatten
from jaxcnn.run_folder import RunFolder, is_run
from jaxcnn.runtime import drawing_options
from jaxcnn.weights.files import Hints, Weights, read_weights
from jaxcnn.weights.imported_run import is_numbered
from jaxcnn.weights.importer import Fitted, filled, fit

LOG = logging.getLogger("jaxcnn")


def initial_variables(
    config: TrainConfig, network: Network, class_counts: Sequence[int] | None = None
) -> dict[str, Any]:
    """Returns {"params", "batch_stats"} before step 0: drawn from the seed, then those of `init_from` put in.

    Args:
      config: what to train.
      network: the network of it.
      class_counts: training examples of each class, for `head_init="prior"`; none: equally many.

    Raises:
      InputError: `init_from` does not fit the network. A head for other classes is no error: it starts anew.
    """
    image = jnp.zeros((1, *network.preprocessing.image_shape), jnp.float32)
    drawn = jax.jit(network.model.init, compiler_options=drawing_options())(jax.random.key(config.seed), image)
    head = {**drawn["params"]["head"], **_head(config.model.head_init, drawn["params"]["head"], class_counts)}
    variables = {"params": {**drawn["params"], "head": head}, "batch_stats": drawn.get("batch_stats", {})}
    if config.init_from is None:
        return variables
    fitted = fit_start(config, variables, network.class_names)[1]
    for note in fitted.notes:
        LOG.info(f"init_from {config.init_from}: {note}")
    return filled(variables, fitted)


def _head(kind: str, drawn: dict[str, Any], class_counts: Sequence[int] | None) -> dict[str, jax.Array]:
    """The leaves of a new head that do not start as drawn.

    "prior": softmax of the bias is the share of each class (Lin et al. 2017, section 3.3, for several classes); one
    without examples counts as half an example.
    """
    if kind == "default":
        return {}
    zeros = jax.tree.map(jnp.zeros_like, drawn)
    if kind == "zero" or class_counts is None:
        return zeros
    counts = jnp.maximum(jnp.asarray(class_counts, zeros["bias"].dtype), 0.5)
    return {**zeros, "bias": jnp.log(counts / counts.sum())}


def fit_start(config: TrainConfig, shapes: dict[str, Any], class_names: tuple[str, ...]) -> tuple[Weights, Fitted]:
    """Returns the weights of `init_from` as they are and in the form of the network; raises as `initial_variables`."""
    assert config.init_from is not None
    weights = dataclasses.replace(read_start(config.init_from), place=f"init_from={config.init_from!r}")
    other = _other_class(weights.class_names, class_names)
    why = {
        "always": "replace_head=always",
        "auto": f"{other} (replace_head=never keeps it)" if other and not is_numbered(class_names) else None,
        "never": None,
    }[config.replace_head]
    fitted = fit(weights, flatten(shapes), f"model.name={config.model.name!r}", why)
    if "params/head/kernel" in fitted.anew:
        if config.replace_head == "never":
            raise InputError(
                f"{weights.place} has no head for {len(class_names)} classes to keep: leave replace_head to auto"
            )
        return weights, fitted
    if config.model.head_init != "default":
        raise InputError(
            f"model.head_init={config.model.head_init!r}: the head of {weights.place} is kept; replace_head=always "
            "starts it anew"
        )
    note = f"the head is kept, but {other}" if other else None
    if weights.class_names is None:
        note = "the head is kept; of which classes it is, the source does not say (replace_head=always starts it anew)"
    return weights, dataclasses.replace(fitted, notes=(*fitted.notes, *([note] if note else [])))


def _other_class(theirs: tuple[str, ...] | None, ours: tuple[str, ...]) -> str | None:
    """What is said of the first class that has another name; none: all have the same, or theirs have none."""
    if theirs is None or len(theirs) != len(ours) or theirs == ours or is_numbered(theirs):
        return None
    label = next(label for label, (other, name) in enumerate(zip(theirs, ours, strict=True)) if other != name)
    return f"its class {label} was {theirs[label]!r} and is {ours[label]!r} now"


def check_frozen_start(config: TrainConfig, anew: Sequence[str], rules: Sequence[tuple[float, GlobRule]]) -> None:
    """Raises InputError where a leaf that starts at random, such as `params/head/kernel`, is frozen in all phases."""
    for path in anew:
        own = path.removeprefix("params/")
        if all(rule.matches(own) for _, rule in rules):
            part = own.split("/")[0]
            raise InputError(
                f"freeze={config.freeze}: {own} starts anew, as it is not taken from init_from={config.init_from!r}, "
                f"and would stay so; take it out with '!{part}/**'"
            )


def read_start(place: str) -> Weights:
    """Returns the weights to start from: the best of a run folder, or those of a file or a hub name."""
    if not is_run(place):
        return read_weights(place)
    folder = RunFolder(place)
    leaves = {path: np.asarray(leaf) for path, leaf in flatten(load_variables(folder)[0]).items()}
    images = folder.preprocessing
    hints = Hints(images.mean, images.std, image_size=images.image_shape[0], crop_share=images.crop_share)
    return Weights(place, leaves, hints, folder.class_names)
