"""A row a module of a network: what it returns, what it costs by XLA's count, what its outputs see of the image.

Nothing is allocated and nothing compiled: each module is lowered by itself from shapes, equal ones once.

Conventions. *FLOPs* are those of `Lowered.cost_analysis()`: XLA counts a multiplication and an addition as two, and of
a convolution only the products with pixels that exist, not those with the zeros of its padding, which makes a 3x3
convolution of a 7x7 map 18 % cheaper than the closed form 2 · K² · C · O · H' · W'. *Multiply-adds* are that closed
form without the 2, as papers count (`models/cost.py`). *Backward* is the gradient with respect to the parameters and to
the input of a module; in training the first layer needs no gradient of its input, and frozen layers none of their
parameters. All is for one image, in evaluation mode: batch norms use their running statistics.

Only layers are measured, that is modules with parameters of their own, and pools; the other modules are the sums of
those inside them. What lies between layers (activations, additions, the mean over the map) is in no row; `Layers.whole`
has the forward pass as a whole, so that one sees how little it is.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxcnn.inspection.modules import Call, calls_of, plain_form
from jaxcnn.inspection.receptive_field import Field
from jaxcnn.models.cost import count_multiply_adds


@dataclass(frozen=True)
class LayerRow:
    """One module.

    Attributes:
      path: such as `backbone/stage1/block1/conv1`; "" for the whole.
      kind: name of its class, or `max_pool`.
      is_layer: whether it was measured by itself; else it is the sum of the layers inside it.
      output: shape of what it returns, without the images: (H, W, C) or (F,).
      parameters: numbers in "params".
      multiply_adds: of convolutions and products, forward, one image.
      flops_forward, flops_backward: by XLA's count, one image; none: XLA would not say.
      activation_bytes: of the outputs of its layers, one image, in the compute type.
      field: receptive field of its output; none: not known.
    """

    path: str
    kind: str
    is_layer: bool
    output: tuple[int, ...]
    parameters: int
    multiply_adds: int
    flops_forward: float | None
    flops_backward: float | None
    activation_bytes: int
    field: Field | None

    @property
    def depth(self) -> int:
        """Names in the path."""
        return self.path.count("/") + 1 if self.path else 0


@dataclass(frozen=True)
class Layers:
    """The modules of a network.

    Attributes:
      image_shape: height, width and channels of the image.
      rows: in the order of computation, each before those inside it; the first is the whole.
      whole: FLOPs of the forward pass lowered as one, with what lies between layers; none: XLA would not say.
    """

    image_shape: tuple[int, int, int]
    rows: tuple[LayerRow, ...]
    whole: float | None

    def folded(self, depth: int | None) -> tuple[LayerRow, ...]:
        """Returns the rows of at most `depth` names, without the whole; none: all."""
        return tuple(row for row in self.rows if row.path and (depth is None or row.depth <= depth))

    @property
    def layers(self) -> tuple[LayerRow, ...]:
        """The rows that were measured, of which the others are sums."""
        return tuple(row for row in self.rows if row.is_layer)


def layers_of(model: Any, image_shape: tuple[int, int, int]) -> Layers:
    """Returns the modules of a network for one image of the given height, width and channels.

    Args:
      model: a `Classifier`, or any flax module that takes `train`.
      image_shape: any size that the network takes.

    Raises:
      ValueError: the images are too small for the network.
    """
    calls = calls_of(model, image_shape)
    measured: dict[Any, tuple[int, float | None, float | None]] = {}
    costs = {}
    for call in calls:
        if call.is_layer:
            if call.key not in measured:
                measured[call.key] = _cost(call)
            costs[call.path] = measured[call.key]
    outputs = {call.path: _num_bytes(call.returned) for call in calls if call.is_layer}
    rows = [_row(call, costs, outputs) for call in calls]
    # What neither has parameters nor pools (dropout that is off, a norm that is none) computes nothing.
    return Layers(image_shape, tuple(row for row in rows if row.is_layer or row.parameters), _whole(model, image_shape))


def _row(call: Call, costs: dict[str, Any], outputs: dict[str, int]) -> LayerRow:
    inside = [path for path in costs if not call.path or path == call.path or path.startswith(f"{call.path}/")]
    forward, backward = (
        None if any(costs[path][place] is None for path in inside) else sum(costs[path][place] for path in inside)
        for place in (1, 2)
    )
    return LayerRow(
        path=call.path,
        kind=call.kind,
        is_layer=call.is_layer,
        output=call.returned.shape[1:],
        parameters=sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(call.shapes.get("params", {}))),
        multiply_adds=sum(costs[path][0] for path in inside),
        flops_forward=forward,
        flops_backward=backward,
        activation_bytes=sum(outputs[path] for path in inside),
        field=call.field,
    )


def _num_bytes(array: jax.ShapeDtypeStruct) -> int:
    return math.prod(array.shape) * array.dtype.itemsize


def _cost(call: Call) -> tuple[int, float | None, float | None]:
    """(multiply-adds, FLOPs forward, FLOPs backward) of a layer by itself."""
    program = jax.make_jaxpr(call.apply)(call.shapes, call.given)

    def forward_and_back(params: Any, x: jax.Array, rest: Any, dy: jax.Array) -> Any:
        output, back = jax.vjp(lambda params, x: call.apply({**rest, "params": params}, x), params, x)
        return output, back(dy)  # the output too, or tracing leaves out what only it needs

    rest = {kind: tree for kind, tree in call.shapes.items() if kind != "params"}
    forward = flops_of(call.apply, call.shapes, call.given)
    both = flops_of(forward_and_back, call.shapes.get("params", {}), call.given, rest, call.returned)
    backward = None if forward is None or both is None else max(both - forward, 0.0)
    return count_multiply_adds(program.jaxpr), forward, backward


def _whole(model: Any, image_shape: tuple[int, int, int]) -> float | None:
    plain = plain_form(model)
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    shapes = jax.eval_shape(plain.init, jax.random.key(0), image)
    return flops_of(functools.partial(plain.apply, train=False), shapes, image)


def flops_of(function: Callable[..., Any], *shapes: Any) -> float | None:
    """Returns XLA's count of the floating-point operations of a function, which is lowered, not compiled.

    None where the backend gives no count.
    """
    try:
        analysis: Any = jax.jit(function).lower(*shapes).cost_analysis()
    except (NotImplementedError, jax.errors.JaxRuntimeError):
        return None
    return None if not analysis or "flops" not in analysis else float(analysis["flops"])
