"""Our candidates of `python -m benchmarks frozen`: what a step costs when only the head trains.

ours-forward  the whole network in evaluation mode: the least that a step on images can cost
ours-probe    the training step with the backbone frozen: gradient and optimizer for the head alone
ours-clip     the same, and the gradient is clipped by its norm (which every step of ours sums for the log)
ours-head     the training step of the head on pooled features computed before, all steps of a turn in one dispatch

All but the last take the same uint8 images and normalise them in the program; a step of training is `make_chunk`
around `make_step`, one dispatch each, as in a run.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.ours import Chunk, make_trainer, model_of, program_of, shapes_of
from benchmarks.program import MEAN, STD, Compilable, Program, draw_images, read_weights
from benchmarks.workloads import Task
from jaxcnn.augment.normalise import normalise
from jaxcnn.augment.pipeline import Augment
from jaxcnn.data.loader import Arrays
from jaxcnn.models.classifier import POOLED, Classifier
from jaxcnn.paths import GlobRule, unflatten
from jaxcnn.runtime import compiler_options
from jaxcnn.training.state import TrainState

PROBE = GlobRule(("backbone/**",))
_CLIP_NORM = 1.0


def build(task: Task) -> Program:
    """Returns the program of a task with the weights of its file."""
    variables = unflatten(read_weights(task))
    if task.candidate == "ours-forward":
        return program_of(task, variables, _make_passer(task, variables))
    run = make_trainer(chunk_of(task), variables, one_by_one=task.candidate != "ours-head")
    return program_of(task, variables, run)


def train_program(task: Task) -> Compilable:
    """Returns the program of a step, or of the forward pass, to be compiled without any weights."""
    shapes = shapes_of(task)
    if task.candidate == "ours-forward":
        images = jax.ShapeDtypeStruct((task.batch, *task.image_shape), jnp.uint8)
        return Compilable(_forward(task), (shapes, images))
    return chunk_of(task).compilable(shapes)


def chunk_of(task: Task) -> Chunk:
    """Returns the chunk of a candidate that trains the head alone."""
    if task.candidate == "ours-head":
        return _Head(task)
    return Chunk(task, PROBE, _CLIP_NORM if task.candidate == "ours-clip" else None)


def _forward(task: Task) -> Any:
    """Jitted (variables, uint8 images) -> logits, compiled as for prediction."""
    model = model_of(task, task.dtype)

    def forward(variables: dict[str, Any], images: jax.Array) -> jax.Array:
        return model.apply(variables, normalise(images, (MEAN,) * 3, (STD,) * 3))

    return jax.jit(forward, compiler_options=compiler_options())


def _make_passer(task: Task, variables: dict[str, Any]) -> Callable[[int], None]:
    images = jnp.asarray(draw_images(task, 1)[0][0])
    placed = jax.tree.map(jnp.array, variables)
    forward = _forward(task)

    def run(num_passes: int) -> None:
        for _ in range(num_passes):
            logits = forward(placed, images)
        jax.block_until_ready(logits)

    return run


class _Head(Chunk):
    """The chunk of the head on pooled features; they are random, since no time depends on their values."""

    def model(self) -> Classifier:
        return super().model().clone(start=POOLED)

    def augment(self) -> Augment:
        return lambda key, features: (features, None)

    def state_of(self, variables: dict[str, Any]) -> TrainState:
        return super().state_of({"params": {"head": variables["params"]["head"]}})

    def batch_shapes(self) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
        features = jax.ShapeDtypeStruct((self.task.batch, self.model().num_features), jnp.float32)
        return features, jax.ShapeDtypeStruct((self.task.batch,), jnp.int32)

    def data(self) -> tuple[None, Arrays]:
        random, (features, labels) = np.random.default_rng(0), self.batch_shapes()
        rows = max(self.task.steps, 2)
        drawn = random.uniform(0, 1, (rows, *features.shape)).astype(np.float32)
        of_classes = random.integers(0, self.task.num_classes, (rows, *labels.shape)).astype(np.int32)
        return None, Arrays(jnp.asarray(drawn), jnp.asarray(of_classes))
