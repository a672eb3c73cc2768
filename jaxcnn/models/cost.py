"""What a network costs, counted from its traced program: nothing is compiled and no arithmetic done."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


@dataclass(frozen=True)
class Cost:
    """Cost of a network.

    Attributes:
      parameters: numbers in "params"; running statistics are not among them.
      multiply_adds: of convolutions and dense layers, forward, for one image. The papers and torchvision call these
        FLOPs; floating-point operations in the strict sense are twice as many.
    """

    parameters: int
    multiply_adds: int


def cost_of(model: nn.Module, image_shape: tuple[int, int, int]) -> Cost:
    """Returns the cost of a network for one image of the given height, width and channels."""
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    program, variables = jax.make_jaxpr(model.init, return_shape=True)(jax.random.key(0), image)
    parameters = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables["params"]))
    return Cost(parameters, count_multiply_adds(program.jaxpr))


def count_multiply_adds(program: Any) -> int:
    """Returns the multiply-adds of the convolutions and products of a jaxpr, one turn of each loop."""
    return sum(_of_equation(equation) for equation in program.eqns)


def _of_equation(equation: Any) -> int:
    operands = [getattr(operand.aval, "shape", ()) for operand in equation.invars]
    if equation.primitive.name == "conv_general_dilated":
        out = math.prod(equation.outvars[0].aval.shape)
        kernel_features = operands[1][equation.params["dimension_numbers"].rhs_spec[0]]
        return out * math.prod(operands[1]) // kernel_features
    if equation.primitive.name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        return math.prod(equation.outvars[0].aval.shape) * math.prod(operands[0][axis] for axis in contracted)
    inner = [count_multiply_adds(program) for program in _programs_in(equation.params)]
    # The branches of a conditional are alternatives: one program for each platform, for instance.
    return max(inner, default=0) if equation.primitive.name == "cond" else sum(inner)


def _programs_in(params: dict[str, Any]) -> Iterator[Any]:
    for value in params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            inner = getattr(item, "jaxpr", item)
            if hasattr(inner, "eqns"):
                yield inner
