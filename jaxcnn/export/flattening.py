"""The program of a function as single operations: calls opened, and what does not depend on its input computed."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

Rule = Callable[..., Any]
"""(operands, parameters of the operation) -> its output, by other operations."""


def flattened(function: Callable[..., Any], image: jax.ShapeDtypeStruct, rules: Mapping[str, Rule]) -> Callable:
    """Returns a function of the same values whose program has no calls in it and no arithmetic on constants.

    `jax.jit`, and functions with derivatives of their own, are opened. Operations on weights alone, such as the square
    root of a running variance, are carried out once, here.

    Args:
      function: of one array, whose type is `image`, to one array.
      image: the type; sizes may be symbolic.
      rules: what takes the place of an operation, by the name of its primitive. It is asked when the function that is
        returned is traced, and returns `NotImplemented` to leave an operation as it is.
    """
    program = jax.make_jaxpr(function)(image)

    def run(images: Any) -> Any:
        return _run(program.jaxpr, program.consts, [images], rules)[0]

    return run


def _run(jaxpr: Jaxpr, constants: Sequence[Any], arguments: Sequence[Any], rules: Mapping[str, Rule]) -> list[Any]:
    values: dict[Any, Any] = dict(zip(jaxpr.constvars, constants, strict=True))
    values |= dict(zip(jaxpr.invars, arguments, strict=True))

    def value(variable: Any) -> Any:
        return variable.val if isinstance(variable, Literal) else values[variable]

    for equation in jaxpr.eqns:
        outputs = _outputs(equation, [value(variable) for variable in equation.invars], rules)
        values.update(zip(equation.outvars, outputs, strict=True))
    return [value(variable) for variable in jaxpr.outvars]


def _outputs(equation: JaxprEqn, operands: list[Any], rules: Mapping[str, Rule]) -> list[Any]:
    primitive, parameters = equation.primitive, equation.params
    inner = parameters.get("jaxpr", parameters.get("call_jaxpr"))
    if isinstance(inner, ClosedJaxpr):
        return _run(inner.jaxpr, inner.consts, operands, rules)
    known = not any(isinstance(operand, jax.core.Tracer) for operand in operands)
    outputs: Any = NotImplemented
    if known and all(isinstance(size, int) for output in equation.outvars for size in _shape(output)):
        with jax.ensure_compile_time_eval():
            outputs = primitive.bind(*operands, **parameters)
    else:
        if primitive.name in rules:
            outputs = rules[primitive.name](*operands, **parameters)
        if outputs is NotImplemented:
            outputs = primitive.bind(*operands, **parameters)
    return list(outputs) if primitive.multiple_results else [outputs]


def _shape(variable: Any) -> tuple[Any, ...]:
    return variable.aval.shape
