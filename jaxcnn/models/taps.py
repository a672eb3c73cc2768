"""What flows through a network, layer by layer: the input of each convolution and dense layer, by its path.

The input of a layer is what the activation before it gave, so these maps are the activations of the network. They are
had from the modules as they are (`nn.intercept_methods`), so any flax module can be looked into.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxcnn.models.conv import Unevaluated


@dataclass(frozen=True)
class Tapped:
    """One pass through a network.

    Attributes:
      logits: what the network returns.
      inputs: of each layer that has a kernel, by its path, in the order in which they are computed: arrays [N, ...].
      batch_stats: the running statistics after the pass; of a pass in training mode.
    """

    logits: Any
    inputs: OrderedDict[str, jax.Array]
    batch_stats: Any


jax.tree_util.register_dataclass(Tapped, data_fields=["logits", "inputs", "batch_stats"], meta_fields=[])


def tapped(
    model: nn.Module,
    variables: Mapping[str, Any],
    x: jax.Array,
    *,
    train: bool = False,
    rngs: Any = None,
    shifts: Mapping[str, jax.Array] | None = None,
) -> Tapped:
    """Returns a pass of x [N, ...] through a network with the input of each layer that has a kernel.

    Args:
      model: any module that takes `train`; blocks in a loop (`model.scan_blocks`) and those that are computed twice
        (`model.remat`) cannot be looked into, see `unscanned`.
      variables: {"params", "batch_stats"} of it.
      x: its input.
      train: whether batch statistics and dropout are on.
      rngs: {"dropout": key}, if dropout is on.
      shifts: what is added to the input of layers, by path. The gradient with respect to zeros here is that with
        respect to the activations.
    """
    inputs: OrderedDict[str, jax.Array] = OrderedDict()  # jit keeps the order of these alone

    def look(next_call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        module = context.module
        if context.method_name != "__call__" or not args or not module.has_variable("params", "kernel"):
            return next_call(*args, **kwargs)
        path, (given, *others) = "/".join(module.path), args
        if isinstance(given, Unevaluated):
            given = given()
        if shifts is not None and path in shifts:
            given = given + shifts[path].astype(given.dtype)
        inputs[path] = given
        return next_call(given, *others, **kwargs)

    with nn.intercept_methods(look):
        logits, new = model.apply(variables, x, train=train, rngs=rngs, mutable=["batch_stats"])
    return Tapped(logits, inputs, new.get("batch_stats", {}))


@dataclass(frozen=True)
class Backward:
    """The gradients of an objective, beside the pass that they belong to.

    Attributes:
      seen: the pass.
      inputs: with respect to the input of each layer that has a kernel, by its path, in the order of the pass.
      params: with respect to the parameters, a tree of their form.
    """

    seen: Tapped
    inputs: OrderedDict[str, jax.Array]
    params: Any


jax.tree_util.register_dataclass(Backward, data_fields=["seen", "inputs", "params"], meta_fields=[])


def backward(
    model: nn.Module,
    variables: Mapping[str, Any],
    x: jax.Array,
    objective: Callable[[Any], jax.Array],
    *,
    train: bool = False,
    rngs: Any = None,
) -> Backward:
    """Returns a pass as `tapped` with the gradients of objective(logits), a scalar. What is not used is not computed
    under jit.
    """

    def forward(params: Any, shifts: Any) -> Any:
        seen = tapped(model, {**variables, "params": params}, x, train=train, rngs=rngs, shifts=shifts)
        return objective(seen.logits), seen

    params = variables["params"]
    given = jax.eval_shape(forward, params, {})[1].inputs
    zeros = {path: jnp.zeros(one.shape, one.dtype) for path, one in given.items()}
    (by_param, by_input), seen = jax.grad(forward, argnums=(0, 1), has_aux=True)(params, zeros)
    return Backward(seen, OrderedDict((path, by_input[path]) for path in given), by_param)


def unscanned(model: Any) -> Any:
    """Returns the classifier in a form that can be looked into; same variables.

    The blocks that `model.scan_blocks` puts in a loop are single ones, and no map is computed anew (`model.remat`).
    """
    backbone: Any = getattr(model, "backbone", None)
    hides = {"scan": None, "remat": ()}
    open_up = {name: off for name, off in hides.items() if getattr(backbone, name, off) != off}
    return model.clone(backbone=backbone.clone(**open_up)) if open_up else model
