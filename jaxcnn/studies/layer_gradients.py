"""The gradient of the loss, layer by layer, of a network before and after it is trained: a measure of trials."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from jaxcnn.config import Preprocessing, TrainConfig
from jaxcnn.job import Job
from jaxcnn.models.taps import tapped, unscanned
from jaxcnn.network import build_network
from jaxcnn.paths import flatten
from jaxcnn.runtime import compiler_options
from jaxcnn.studies.trials import Trial
from jaxcnn.training.losses import Targets
from jaxcnn.training.state import TrainState
from jaxcnn.training.step import Drawn, StepOptions, make_gradients


def at_both_ends(job: Job, state: TrainState) -> dict[str, Any]:
    """Returns the gradients of a run's first batch before its first step and after its last: a measure of `Trials.run`.

    Returns:
      layers: paths of the convolutions and dense layers, in the order of the network.
      initial, final: norms of the gradients of their kernels; of a trained network, those of the weights it has.
    """
    order = layers_in_order(job)
    return {
        "layers": order,
        **{
            name: [norms[path] for path in order]
            for name, norms in (
                ("initial", gradient_norms(job, job.initial_state())),
                ("final", gradient_norms(job, state)),
            )
        },
    }


def gradient_norms(job: Job, state: TrainState) -> dict[str, float]:
    """Returns the norm of the gradient of the mean loss of the run's first batch, by the path of each layer.

    Images are normalised and otherwise as they are; batch norms use the statistics of the batch, as in training.
    """
    batch = job.feed.take(job.feed.source, jax.tree.map(lambda leaf: leaf[0], job.feed.inputs(0, 1)))
    program = _program(dataclasses.replace(job.config, seed=0), job.network.preprocessing, job.network.class_names)
    return {path: float(norm) for path, norm in jax.device_get(program(state, batch.images, batch.labels)).items()}


def layers_in_order(job: Job) -> list[str]:
    """Returns the paths of the layers that have a kernel, in the order in which they are computed; nothing is run."""
    network = job.network
    image = jax.ShapeDtypeStruct((1, *network.preprocessing.image_shape), np.float32)
    return list(jax.eval_shape(functools.partial(tapped, unscanned(network.model)), network.shapes, image).inputs)


def draw_gradients(axes: Any, trials: Sequence[Trial], colour: str, label: str, style: str) -> None:
    """Draws the norms before the first step against the layer's place, 0..1, logarithmic: the mean of trials."""
    norms = np.mean([trial.measured["initial"] for trial in trials], axis=0)
    axes.plot(np.linspace(0, 1, len(norms)), norms, style, color=colour, label=label, linewidth=1.5)
    axes.set_yscale("log")


@functools.lru_cache(maxsize=1)
def _program(config: TrainConfig, preprocessing: Preprocessing, class_names: tuple[str, ...]) -> Callable:
    """The jitted (state, uint8 images, labels) -> norm of the gradient by layer: one for all seeds of a config."""
    network = build_network(config, preprocessing, class_names)
    gradients = make_gradients(network.model, StepOptions(seed=0))

    def norms(state: TrainState, images: jax.Array, labels: jax.Array) -> dict[str, jax.Array]:
        drawn = Drawn(network.normalise(images), Targets(labels), jax.random.key(0))
        flat = flatten(gradients(state, drawn)[0])
        return {
            path.removesuffix("/kernel"): jax.numpy.linalg.norm(leaf)
            for path, leaf in flat.items()
            if path.endswith("/kernel")
        }

    return jax.jit(norms, compiler_options=compiler_options(training=True))
