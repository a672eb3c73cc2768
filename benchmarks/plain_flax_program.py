"""The candidates `flax` and `flax-frozen`: one jitted training step as the flax examples write it, SGD of optax.

`flax-frozen` differentiates with respect to all parameters too, with the norms in evaluation mode, and leaves the
backbone as it is by optax's mask: XLA then removes the gradients that nothing reads, as long as nothing reads them.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from benchmarks.jax_passes import make_logits, make_passer
from benchmarks.plain_flax import Network
from benchmarks.program import (
    LEARNING_RATE,
    MOMENTUM,
    Compilable,
    Program,
    draw_images,
    normalised,
    read_weights,
)
from benchmarks.workloads import Task
from jaxcnn.paths import unflatten

FROZEN = "flax-frozen"


def network_of(task: Task, dtype: str) -> Network:
    """Returns the network of a task."""
    return Network(task.architecture, task.num_classes, jnp.dtype(dtype))


def build(task: Task) -> Program:
    """Returns the program of a task with the weights of its file."""
    variables = unflatten(read_weights(task))
    exact, model = network_of(task, "float32"), network_of(task, task.dtype)
    image = jax.ShapeDtypeStruct((1, *task.image_shape), jnp.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), image)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))
    run = _trainer(task, variables) if task.kind == "train" else make_passer(model, task, variables)
    return Program(parameters, make_logits(exact, variables), run)


def train_program(task: Task) -> Compilable:
    """Returns the training step of a task, to be compiled without any weights."""
    model = network_of(task, task.dtype)
    image = jax.ShapeDtypeStruct((task.batch, *task.image_shape), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), image)
    frozen = task.candidate == FROZEN
    state = jax.eval_shape(functools.partial(_first_state, frozen), variables)
    return Compilable(make_step(model, frozen), (state, image, jax.ShapeDtypeStruct((task.batch,), jnp.int32)))


def _optimizer(frozen: bool) -> optax.GradientTransformation:
    """SGD, for the head alone where the backbone is frozen."""
    sgd = optax.sgd(LEARNING_RATE, MOMENTUM)
    if not frozen:
        return sgd
    return optax.partition(
        {"train": sgd, "freeze": optax.set_to_zero()},
        lambda params: {name: "train" if name == "head" else "freeze" for name in params},
    )


def _first_state(frozen: bool, variables: Any) -> dict[str, Any]:
    opt_state = _optimizer(frozen).init(variables["params"])
    return {**variables, "opt_state": opt_state, "step": jnp.zeros((), jnp.int32)}


def make_step(model: Network, frozen: bool) -> Any:
    """Returns jitted (state, images, labels) -> (state, loss)."""

    def step(state: dict[str, Any], images: jax.Array, labels: jax.Array) -> tuple[dict[str, Any], jax.Array]:
        dropout = jax.random.fold_in(jax.random.key(0), state["step"])

        def loss_of(params: Any) -> tuple[jax.Array, Any]:
            variables = {"params": params, "batch_stats": state["batch_stats"]}
            logits, new = model.apply(
                variables, images, train=not frozen, mutable=["batch_stats"], rngs={"dropout": dropout}
            )
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            return jnp.mean(losses), new["batch_stats"]

        (loss, batch_stats), grads = jax.value_and_grad(loss_of, has_aux=True)(state["params"])
        updates, opt_state = _optimizer(frozen).update(grads, state["opt_state"], state["params"])
        params = optax.apply_updates(state["params"], updates)
        new = {"params": params, "batch_stats": batch_stats, "opt_state": opt_state, "step": state["step"] + 1}
        return new, loss

    return jax.jit(step, donate_argnums=0)


def _trainer(task: Task, variables: dict[str, Any]) -> Callable[[int], None]:
    """Returns what does so many training steps, one dispatch each, on a batch that is normalised already."""
    images, labels = draw_images(task, 1)
    batch = jnp.array(normalised(images[0])), jnp.array(labels[0])
    frozen = task.candidate == FROZEN
    state = _first_state(frozen, jax.tree.map(jnp.array, variables))
    step = make_step(network_of(task, task.dtype), frozen)

    def run(num_steps: int) -> None:
        nonlocal state
        for _ in range(num_steps):
            state, loss = step(state, *batch)
        jax.block_until_ready((state, loss))

    return run
