"""Forward passes of a Flax network, ours or a plain one."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.program import draw_images, normalised
from benchmarks.workloads import Task


def make_logits(model: nn.Module, variables: dict[str, Any]) -> Callable[[np.ndarray], np.ndarray]:
    """Returns images -> logits of a float32 network, in full float32 also where the device would round its inputs."""

    def logits(images: np.ndarray) -> np.ndarray:
        with jax.default_matmul_precision("highest"):
            return np.asarray(jax.jit(model.apply)(variables, images))

    return logits


def make_passer(
    model: nn.Module, task: Task, variables: dict[str, Any], options: dict[str, str] | None = None
) -> Callable[[int], None]:
    """Returns what does so many forward passes of the task's batch, compiled with XLA's `options`."""
    images = jnp.array(normalised(draw_images(task, 1)[0][0]))
    placed = jax.tree.map(jnp.array, variables)
    forward = jax.jit(model.apply, compiler_options=options)

    def run(num_passes: int) -> None:
        for _ in range(num_passes):
            logits = forward(placed, images)
        jax.block_until_ready(logits)

    return run
