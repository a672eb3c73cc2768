"""Which pixels of the image reach an output of a layer: its theoretical receptive field, from the traced program.

No table of networks and none of layers: the program of the network, as JAX traces it, is walked from the image on, and
each operation says where its outputs look. Along an axis an output at i sees the pixels from `stride · i + first` to
`stride · i + last`, so a window of K with step s, dilation d and p pixels of padding before it makes of that

    stride' = s · stride,   first' = first - p · stride,   last' = last + (d · (K - 1) - p) · stride

(Araujo et al. 2019, Computing Receptive Fields of Convolutional Neural Networks, equations 2 to 4), and where branches
meet the outer ends count. Nothing is allocated and no arithmetic done.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
from jax.extend.core import Literal


@dataclass(frozen=True)
class Extent:
    """What the outputs of a map see along one axis of the image, in pixels.

    Attributes:
      stride: pixels of the image from one output to the next.
      first, last: the ends of what output 0 sees, pixels counted from 0; they may lie outside the image.
    """

    stride: int = 1
    first: int = 0
    last: int = 0

    @property
    def size(self) -> int:
        """Pixels that one output sees."""
        return self.last - self.first + 1

    @property
    def centre(self) -> float:
        """The middle of what output 0 sees; 0 is the middle of the first pixel."""
        return (self.first + self.last) / 2

    def seen_by(self, index: int) -> tuple[int, int]:
        """Returns the first and the last pixel that the output at this index sees."""
        return self.stride * index + self.first, self.stride * index + self.last


@dataclass(frozen=True)
class Field:
    """The receptive field of the outputs of a map.

    Attributes:
      rows, columns: what they see along H and W by convolutions and pools; none: there is no such axis any more, and
        all of the image is seen.
      is_global: whether beside that all pixels reach each output, through statistics over the map: those of group,
        layer and instance norm, or squeeze and excitation.
    """

    rows: Extent | None
    columns: Extent | None
    is_global: bool = False


@dataclass(frozen=True)
class _Traced:
    """The field of an array in the program, and which of its axes is H and which W; none: that axis is gone."""

    extents: tuple[Extent | None, Extent | None]
    axes: tuple[int | None, int | None]
    is_global: bool = False

    @property
    def field(self) -> Field:
        return Field(*self.extents, self.is_global and None not in self.extents)

    def moved(self, move: Callable[[int], int | None]) -> "_Traced":
        """The same with each axis where `move` says; an axis that it takes away was looked over as a whole."""
        axes = tuple(None if axis is None else move(axis) for axis in self.axes)
        extents = tuple(None if axis is None else extent for axis, extent in zip(axes, self.extents, strict=True))
        return _Traced(extents, axes, self.is_global)  # type: ignore[arg-type]

    def windowed(self, windows: Mapping[int, tuple[int, int, int, int]]) -> "_Traced":
        """The same after windows (size, step, padding before, dilation) along axes."""
        extents = []
        for axis, extent in zip(self.axes, self.extents, strict=True):
            if axis is not None and axis in windows and extent is not None:
                size, step, before, dilation = windows[axis]
                extent = Extent(
                    step * extent.stride,
                    extent.first - before * extent.stride,
                    extent.last + (dilation * (size - 1) - before) * extent.stride,
                )
            extents.append(extent)
        return dataclasses.replace(self, extents=tuple(extents))  # type: ignore[arg-type]


def fields_of(function: Callable[..., Any], image: jax.ShapeDtypeStruct, *others: Any) -> Any:
    """Returns the fields of what a function makes of an image, in the structure of its outputs.

    Args:
      function: (image [N, H, W, C], *others) -> a tree of arrays; traced, not run.
      image: shape and type of the image.
      others: shapes of arguments that do not depend on the image, such as the variables of a network.

    Returns:
      A `Field` in the place of each array; none where it does not depend on the image.

    Raises:
      NotImplementedError: the program has an operation of which it is not known where it looks.
    """
    program, outputs = jax.make_jaxpr(function, return_shape=True)(image, *others)
    inputs: list[_Traced | None] = [None] * len(program.jaxpr.invars)
    inputs[0] = _Traced((Extent(), Extent()), (1, 2))
    traced = _walk(program.jaxpr, inputs)
    fields = [None if each is None else each.field for each in traced]
    return jax.tree.unflatten(jax.tree.structure(outputs), fields)


def _walk(program: Any, inputs: Sequence[_Traced | None]) -> list[_Traced | None]:
    known: dict[Any, _Traced | None] = dict(zip(program.invars, inputs, strict=True))

    def read(variable: Any) -> _Traced | None:
        return None if isinstance(variable, Literal) else known.get(variable)

    for equation in program.eqns:
        operands = [read(variable) for variable in equation.invars]
        if all(operand is None for operand in operands):
            continue
        outputs = _after(equation, operands)
        known.update(zip(equation.outvars, outputs, strict=True))
    return [read(variable) for variable in program.outvars]


# fmt: off
_ELEMENTWISE = frozenset((
    "abs", "add", "add_any", "and", "atan2", "cbrt", "ceil", "clamp", "convert_element_type", "copy", "copy_p", "cos",
    "div", "eq", "erf", "erf_inv", "erfc", "exp", "exp2", "expm1", "floor", "ge", "gt", "integer_pow", "is_finite",
    "le", "log", "log1p", "logistic", "lt", "max", "min", "mul", "name", "ne", "neg", "nextafter", "not",
    "optimization_barrier", "or", "pow", "reduce_precision", "rem", "round", "rsqrt", "select_n", "sharding_constraint",
    "sign", "sin", "sqrt", "square", "stop_gradient", "sub", "tan", "tanh", "xor",
))
# fmt: on


def _after(equation: Any, operands: list[_Traced | None]) -> list[_Traced | None]:
    """The fields of the outputs of one operation."""
    name, parameters = equation.primitive.name, equation.params
    given = [operand for operand in operands if operand is not None]
    if name in _ELEMENTWISE:
        return [_union(given)] * len(equation.outvars)
    if name in _RULES:
        return [_RULES[name](equation, operands)] * len(equation.outvars)
    if name.startswith("reduce_window"):
        sizes, steps = parameters["window_dimensions"], parameters["window_strides"]
        dilations = parameters.get("window_dilation") or (1,) * len(sizes)
        _refuse(set(parameters.get("base_dilation") or (1,)) != {1}, f"{name} with base dilation")
        return [given[0].windowed(dict(enumerate(zip(sizes, steps, _befores(parameters), dilations, strict=True))))]
    if name.startswith(("reduce_", "argm")):
        return [given[0].moved(lambda axis: _left(axis, parameters["axes"]))] * len(equation.outvars)
    inner = parameters.get("jaxpr", parameters.get("call_jaxpr", parameters.get("fun_jaxpr")))
    if inner is not None and name not in ("scan", "while", "cond"):
        return _walk(getattr(inner, "jaxpr", inner), operands)
    raise NotImplementedError(f"the receptive field through {name!r} is not known")


def _union(given: Sequence[_Traced]) -> _Traced:
    """Where arrays meet element by element: the outer ends of what they see."""
    local = [each for each in given if None not in each.extents]
    if not local:
        return given[0]
    extents = []
    for side in (0, 1):
        parts: list[Any] = [each.extents[side] for each in local]
        _refuse(len({part.stride for part in parts}) > 1, "a sum of maps of different strides")
        extents.append(Extent(parts[0].stride, min(p.first for p in parts), max(p.last for p in parts)))
    _refuse(len({each.axes for each in local}) > 1, "a sum of maps whose axes differ")
    is_global = any(each.is_global or None in each.extents for each in given)
    return _Traced((extents[0], extents[1]), local[0].axes, is_global)


def _refuse(wrong: bool, what: str) -> None:
    if wrong:
        raise NotImplementedError(f"the receptive field of {what} is not known")


def _left(axis: int, taken: Sequence[int]) -> int | None:
    """Where an axis is after others were taken away."""
    return None if axis in taken else axis - sum(other < axis for other in taken)


def _befores(parameters: Mapping[str, Any]) -> list[int]:
    return [before for before, _ in parameters["padding"]]


def _image_operand(operands: list[_Traced | None], what: str) -> _Traced:
    """The first operand, the only one that may depend on the image."""
    _refuse(operands[0] is None or any(operand is not None for operand in operands[1:]), f"{what} by another map")
    assert operands[0] is not None
    return operands[0]


def _convolution(equation: Any, operands: list[_Traced | None]) -> _Traced:
    parameters = equation.params
    image = _image_operand(operands, "a convolution")
    _refuse(set(parameters["lhs_dilation"]) != {1}, "a convolution with gaps in its input")
    numbers, kernel = parameters["dimension_numbers"], equation.invars[1].aval.shape
    windows = {}
    for place, axis in enumerate(numbers.lhs_spec[2:]):
        size, step = kernel[numbers.rhs_spec[2 + place]], parameters["window_strides"][place]
        windows[axis] = (size, step, _befores(parameters)[place], parameters["rhs_dilation"][place])
    to = dict(zip(numbers.lhs_spec[2:], numbers.out_spec[2:], strict=True))
    return image.windowed(windows).moved(to.get)


def _slice(equation: Any, operands: list[_Traced | None]) -> _Traced:
    starts, steps = equation.params["start_indices"], equation.params["strides"]
    steps = steps or (1,) * len(starts)
    windows = {axis: (1, step, -start, 1) for axis, (start, step) in enumerate(zip(starts, steps, strict=True))}
    return _image_operand(operands, "a slice").windowed(windows)


def _pad(equation: Any, operands: list[_Traced | None]) -> _Traced:
    windows = {}
    for axis, (before, _, inside) in enumerate(equation.params["padding_config"]):
        _refuse(bool(inside), "gaps put between pixels")
        windows[axis] = (1, 1, before, 1)
    return _image_operand(operands, "padding").windowed(windows)


def _concatenate(equation: Any, operands: list[_Traced | None]) -> _Traced:
    given = [operand for operand in operands if operand is not None]
    _refuse(any(equation.params["dimension"] in each.axes for each in given), "maps put side by side")
    return _union(given)


def _broadcast(equation: Any, operands: list[_Traced | None]) -> _Traced:
    places, shape = equation.params["broadcast_dimensions"], equation.params["shape"]
    before = equation.invars[0].aval.shape

    def move(axis: int) -> int | None:
        return places[axis] if before[axis] == shape[places[axis]] else None

    return _image_operand(operands, "a broadcast").moved(move)


def _reshape(equation: Any, operands: list[_Traced | None]) -> _Traced:
    before, after = equation.invars[0].aval.shape, equation.outvars[0].aval.shape

    def move(axis: int) -> int | None:
        """An axis stays where the shapes agree up to it, or from it on; else it was mixed with others."""
        if before[: axis + 1] == after[: axis + 1]:
            return axis
        place = axis + len(after) - len(before)
        return place if place >= 0 and before[axis:] == after[place:] else None

    return _image_operand(operands, "a reshape").moved(move)


def _product(equation: Any, operands: list[_Traced | None]) -> _Traced:
    """A matrix product: the axes that it sums over are gone, and were seen as a whole."""
    (contracted, batch) = equation.params["dimension_numbers"]
    side = 0 if operands[0] is not None else 1
    _refuse(all(operand is not None for operand in operands), "a product of two maps")
    operand = operands[side]
    assert operand is not None
    own_batch, own_contracted = list(batch[side]), contracted[side]
    free = [
        axis for axis in range(equation.invars[side].aval.ndim) if axis not in own_batch and axis not in own_contracted
    ]
    before = len(own_batch) + (0 if side == 0 else equation.outvars[0].aval.ndim - len(own_batch) - len(free))

    def move(axis: int) -> int | None:
        if axis in own_batch:
            return own_batch.index(axis)
        return before + free.index(axis) if axis in free else None

    return operand.moved(move)


_RULES: dict[str, Callable[[Any, list[_Traced | None]], _Traced]] = {
    "conv_general_dilated": _convolution,
    "slice": _slice,
    "pad": _pad,
    "concatenate": _concatenate,
    "broadcast_in_dim": _broadcast,
    "reshape": _reshape,
    "dot_general": _product,
    "transpose": lambda equation, operands: _image_operand(operands, "a transpose").moved(
        list(equation.params["permutation"]).index
    ),
    "squeeze": lambda equation, operands: _image_operand(operands, "a squeeze").moved(
        lambda axis: _left(axis, equation.params["dimensions"])
    ),
}
