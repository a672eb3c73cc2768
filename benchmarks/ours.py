"""The candidate `ours`: the training program of jaxcnn as its loop compiles it, and its network in evaluation mode.

ours        one dispatch a step, the batch on the device already
ours-chunk  all steps of a turn in one dispatch of the same program
ours-input  the same, and batches are gathered from a set on the device, cropped and flipped, as in a run
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.jax_passes import make_logits, make_passer
from benchmarks.program import LEARNING_RATE, MEAN, MOMENTUM, STD, Compilable, Program, draw_images, read_weights
from benchmarks.workloads import Task
from jaxcnn.augment.pipeline import Augment, make_augment
from jaxcnn.config import AffineConfig, AugmentConfig, CutoutConfig, FlipConfig, OptimConfig, PadCropConfig
from jaxcnn.data import loader, order
from jaxcnn.data.loader import Arrays
from jaxcnn.models.classifier import Classifier
from jaxcnn.models.registry import build_model
from jaxcnn.paths import GlobRule, unflatten
from jaxcnn.runtime import compiler_options
from jaxcnn.training.optim import make_optimizer
from jaxcnn.training.partition import trains_backbone
from jaxcnn.training.state import TrainState, create_state
from jaxcnn.training.step import StepOptions, make_chunk, make_step, zero_sums

_PLAIN = AugmentConfig(PadCropConfig(prob=0.0), AffineConfig(prob=0.0), FlipConfig(0.0), CutoutConfig(0.0))
_CIFAR = AugmentConfig(PadCropConfig(pad_px=4), AffineConfig(prob=0.0), FlipConfig(0.5), CutoutConfig(0.0))
_RESIDENT_BATCHES = 8  # in the set that `ours-input` gathers from


def model_of(task: Task, dtype: str, freeze: GlobRule = GlobRule()) -> Classifier:
    """Returns the network of a task, whose norms under `freeze` use their running statistics."""
    return build_model(task.config(dtype), task.image_shape, task.num_classes, freeze)


def shapes_of(task: Task) -> dict[str, Any]:
    """Returns the shapes of the variables: {"params", "batch_stats"}."""
    image = jax.ShapeDtypeStruct((1, *task.image_shape), jnp.float32)
    return jax.eval_shape(model_of(task, task.dtype).init, jax.random.key(0), image)


def build(task: Task) -> Program:
    """Returns the program of a task with the weights of its file."""
    variables = unflatten(read_weights(task))
    if task.kind == "train":
        return program_of(task, variables, make_trainer(Chunk(task), variables, task.candidate == "ours"))
    model = model_of(task, task.dtype)
    return program_of(task, variables, make_passer(model, task, variables, compiler_options()))


def program_of(task: Task, variables: dict[str, Any], run: Callable[[int], None]) -> Program:
    """Returns what is measured of a task: `run`, and of the whole network parameters and logits."""
    parameters = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    return Program(parameters, make_logits(model_of(task, "float32"), variables), run)


def train_program(task: Task) -> Compilable:
    """Returns the chunk of a task, to be compiled without any weights."""
    return Chunk(task).compilable(shapes_of(task))


class Chunk:
    """The chunk of a task, put together as `jaxcnn.build` does it from a config."""

    def __init__(self, task: Task, freeze: GlobRule = GlobRule(), clip_norm: float | None = None) -> None:
        self.task, self._freeze = task, freeze
        self._gathers = task.candidate == "ours-input"
        config = OptimConfig(
            peak_lr=LEARNING_RATE, momentum=MOMENTUM, nesterov=False, weight_decay=0.0, clip_norm=clip_norm
        )
        self._optimizer = make_optimizer(config, optax.constant_schedule(LEARNING_RATE))
        self.step = make_step(self.model(), self._optimizer, self.augment(), StepOptions(seed=0))
        params = jax.eval_shape(self.state_of, shapes_of(task)).params
        self.jitted = jax.jit(
            make_chunk(self.step, self._take),
            donate_argnums=(0, 1),
            compiler_options=compiler_options(training=trains_backbone(params)),
        )

    def model(self) -> Classifier:
        return model_of(self.task, self.task.dtype, self._freeze)

    def augment(self) -> Augment:
        return make_augment(_CIFAR if self._gathers else _PLAIN, (MEAN,) * 3, (STD,) * 3)

    def _take(self, source: Arrays | None, batch: Any) -> Arrays:
        return batch if source is None else loader.take(source, batch)

    def state_of(self, variables: dict[str, Any]) -> TrainState:
        return create_state(variables, self._freeze, self._optimizer, use_ema=False)

    def zero_sums(self, state: TrainState) -> dict[str, Any]:
        return zero_sums(self.step, state, *self.batch_shapes())

    def batch_shapes(self) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
        """What one step takes: (images, labels)."""
        images = jax.ShapeDtypeStruct((self.task.batch, *self.task.image_shape), jnp.uint8)
        return images, jax.ShapeDtypeStruct((self.task.batch,), jnp.int32)

    def data(self) -> tuple[Arrays | None, Any]:
        """(source, inputs) of the chunk: whole batches, or a set of images and the places of each batch in it."""
        rows = max(self.task.steps, 2)  # as in a run; for one row XLA makes another program
        if not self._gathers:
            images, labels = draw_images(self.task, rows)
            return None, Arrays(jnp.asarray(images), jnp.asarray(labels))
        images, labels = draw_images(self.task, _RESIDENT_BATCHES)
        source = Arrays(jnp.asarray(images.reshape(-1, *images.shape[2:])), jnp.asarray(labels.reshape(-1)))
        places = order.TrainingOrder(len(source), self.task.batch, seed=0)(0, rows)
        return source, jnp.asarray(places)

    def compilable(self, shapes: dict[str, Any]) -> Compilable:
        """The chunk and the shapes of its arguments, for the shapes of the variables."""
        state = jax.eval_shape(self.state_of, shapes)
        source, inputs = jax.eval_shape(self.data)
        return Compilable(self.jitted, (state, self.zero_sums(state), source, inputs, np.int32(0)))


def make_trainer(program: Chunk, variables: dict[str, Any], one_by_one: bool) -> Callable[[int], None]:
    """Returns what does training steps, in one dispatch or in as many as there are steps."""
    state = program.state_of(jax.tree.map(jnp.array, variables))  # copies, since they are donated
    sums = jax.tree.map(jnp.array, program.zero_sums(state))
    source, inputs = program.data()
    compiled = program.jitted.lower(state, sums, source, inputs, np.int32(0)).compile()

    def run(num_steps: int) -> None:
        nonlocal state, sums
        for count in [1] * num_steps if one_by_one else [num_steps]:
            state, sums, progress = compiled(state, sums, source, inputs, np.int32(count))
        jax.block_until_ready((state, sums, progress))

    return run
