"""Figures of each layer: what flows through it, its gradient, and how far a step moves it. Pure; changes nothing."""

import itertools
import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jaxcnn.models.taps import tapped, unscanned
from jaxcnn.paths import flatten
from jaxcnn.training.state import TrainState
from jaxcnn.training.step import Augment, StepOptions, make_draw, make_gradients

Look = Callable[[TrainState, jax.Array, jax.Array], dict[str, Any]]

_SATURATED = 0.05  # of the largest derivative
_LARGEST_RATIO = 0.1  # of an update to the weights; about 1e-3 is usual
_MOST_DEAD = 0.5
_EPSILON = 1e-12


def make_look(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    augment: Augment,
    options: StepOptions,
    activation: str,
) -> Look:
    """Returns (state, images uint8 [B, H, W, C], labels [B]) -> figures of the step that the state would do next.

    The arguments are those of `make_step`, and the step is the same one: same draws, same gradient.

    Args:
      activation: name of the network's activation: of ReLU units may be dead, of sigmoid and tanh saturated.

    Returns:
      layers: by the path of each layer, in the order of the network, figures of its input, which is what the activation
        before it gave: `activation_figures`. logits: the same of the output.
      leaves: by the path of each trainable parameter: grad_norm, weight_norm and, of kernels, update_ratio.
      objective, grad_norm: of the batch.
      nonfinite: how many values are not finite, of the images, of the inputs of each layer, the logits, each parameter
        and each gradient. They are counted, because means and norms of large finite values overflow.
    """
    draw, gradients, open_model = make_draw(augment, options), make_gradients(model, options), unscanned(model)

    def look(state: TrainState, images: jax.Array, labels: jax.Array) -> dict[str, Any]:
        drawn = draw(state.step, images, labels)
        grads, _, sums = gradients(state, drawn)
        updates, _ = optimizer.update(grads, state.opt_state, state.params)
        rngs = {"dropout": drawn.dropout_key}
        seen = tapped(open_model, state.current, drawn.images, train=True, rngs=rngs)
        inputs, first = seen.inputs, next(iter(seen.inputs))  # its input is the image, no activation
        return {
            "layers": OrderedDict(
                (path, activation_figures(x, "none" if path == first else activation)) for path, x in inputs.items()
            ),
            "logits": activation_figures(seen.logits, "none"),
            "leaves": leaf_figures(grads, updates, state.params),
            "objective": sums["objective"],
            "grad_norm": optax.tree.norm(grads),
            "nonfinite": {
                "images": _nonfinite(drawn.images),
                "inputs": OrderedDict((path, _nonfinite(x)) for path, x in inputs.items()),
                "logits": _nonfinite(seen.logits),
                "params": {path: _nonfinite(leaf) for path, leaf in flatten(state.current["params"]).items()},
                "grads": {path: _nonfinite(leaf) for path, leaf in flatten(grads).items()},
            },
        }

    return look


def _nonfinite(x: jax.Array) -> jax.Array:
    return jnp.sum(~jnp.isfinite(x))


def activation_figures(x: jax.Array, activation: str) -> dict[str, jax.Array]:
    """Returns figures of activations x [N, ..., C].

    Returns:
      mean, std: over all values.
      dead: share of the C units that are 0 for all examples and places; of ReLU. A unit that is dead in a batch may
        live in another; one that stays dead gets no gradient (Maas et al. 2013, section 2).
      saturated: share of values at which the derivative of sigmoid or tanh is below 5 % of its largest (Glorot & Bengio
        2010, section 3).
    """
    x = x.astype(jnp.float32)
    figures = {"mean": jnp.mean(x), "std": jnp.std(x)}
    if activation == "relu":
        figures["dead"] = jnp.mean(jnp.all(x == 0, axis=tuple(range(x.ndim - 1))))
    derivative = {"sigmoid": lambda y: 4 * y * (1 - y), "tanh": lambda y: 1 - y * y}.get(activation)
    if derivative is not None:
        figures["saturated"] = jnp.mean(derivative(x) < _SATURATED)
    return figures


def leaf_figures(grads: Any, updates: Any, params: Any) -> dict[str, dict[str, jax.Array]]:
    """Returns, by path, the norms of gradient and weights, and of kernels that of the update as a part of the weights'.

    The ratio says more than the learning rate: about 1e-3 a step is usual. Biases and scales have none: they may be 0.
    """
    flat_grads, flat_updates = flatten(grads), flatten(updates)
    figures = {}
    for path, leaf in flatten(params).items():
        weight_norm = jnp.linalg.norm(leaf)
        figures[path] = {"grad_norm": jnp.linalg.norm(flat_grads[path]), "weight_norm": weight_norm}
        if path.endswith("kernel"):
            figures[path]["update_ratio"] = jnp.linalg.norm(flat_updates[path]) / jnp.maximum(weight_norm, _EPSILON)
    return figures


def alarms(figures: dict[str, Any]) -> dict[str, str]:
    """Returns what is wrong in the figures of a look (numbers, not arrays): {what, such as "dead PATH": a sentence}."""
    found = {}
    for path, layer in figures["layers"].items():
        if layer.get("dead", 0.0) > _MOST_DEAD:
            found[f"dead {path}"] = f"{path}: {100 * layer['dead']:.0f} % of its inputs are 0 for the whole batch"
        if layer.get("saturated", 0.0) > _MOST_DEAD:
            found[f"saturated {path}"] = f"{path}: {100 * layer['saturated']:.0f} % of its inputs are saturated"
    for path, leaf in figures["leaves"].items():
        if not path.endswith("kernel"):
            continue
        if leaf["grad_norm"] == 0:
            found[f"gradient {path}"] = f"{path}: its gradient is 0"
        elif leaf["update_ratio"] > _LARGEST_RATIO:
            found[f"update {path}"] = f"{path}: a step moves it by {100 * leaf['update_ratio']:.0f} % of its norm"
    return found


def first_nonfinite(figures: dict[str, Any]) -> str:
    """Returns where in a step the first value appears that is not finite, from the figures of a look.

    In the order of a step: parameters, images, activations from the first layer to the last, loss; then the gradients
    from the last layer to the first.
    """
    counts = figures["nonfinite"]
    for path, count in counts["params"].items():
        if count:
            return f"in the parameter {path}"
    layers = list(counts["inputs"])
    if counts["images"] or counts["inputs"][layers[0]]:
        return "in the images, after augmentation and normalisation"
    for before, path in itertools.pairwise(layers):
        if counts["inputs"][path]:
            return f"after {before}"
    if counts["logits"]:
        return f"in the logits, after {layers[-1]}"
    if not math.isfinite(figures["objective"]):
        return "in the loss: its logits are finite"
    order = {path: place for place, path in enumerate(layers)}
    bad = [path for path, count in counts["grads"].items() if count]
    if bad:
        return f"in the gradient of {max(bad, key=lambda path: order.get(path.rpartition('/')[0], -1))}"
    return "in the norm of the gradient, which overflows: each gradient is finite"
