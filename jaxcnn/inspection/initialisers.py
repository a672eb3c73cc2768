"""How each leaf of a network is drawn: the initialiser its module names, with the mean and deviation that follow.

The modules are asked, not a table of paths: a scope of flax, which every `self.param` and `self.variable` goes through,
notes what it is given while shapes alone are evaluated. So it holds for any flax module.
"""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import Scope


@dataclass(frozen=True)
class Drawn:
    """How a leaf starts: the initialiser's name, and mean and standard deviation of what it draws; none: not known."""

    name: str
    mean: float | None = None
    std: float | None = None


def initialisers_of(model: nn.Module, image_shape: tuple[int, int, int]) -> dict[str, Drawn]:
    """Returns how each leaf is drawn, by path (`params/head/kernel`, `batch_stats/...`), as the network makes them.

    Nothing is allocated: the network is traced.

    Args:
      model: from images to anything.
      image_shape: [H, W, C] of an image.
    """
    found: dict[str, Drawn] = {}

    def trace(key: jax.Array, image: jax.Array) -> None:
        scope = _Noting({}, {"params": key}, mutable=True, flags={"initializing": True})
        scope.noted = found
        model.clone(parent=scope)(image)  # type: ignore[operator]

    jax.eval_shape(trace, jax.random.key(0), jax.ShapeDtypeStruct((1, *image_shape), jnp.float32))
    return found


class _Noting(Scope):
    """A scope of flax, and those inside it, that notes how each variable is made."""

    noted: dict[str, Drawn]

    def push(self, *arguments: Any, **keywords: Any) -> Scope:
        child = super().push(*arguments, **keywords)
        child.__class__ = _Noting  # flax makes the scopes of submodules by the name of the class
        child.noted = self.noted  # type: ignore[attr-defined]
        return child

    def param(self, name: str, init_fn: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
        value = super().param(name, init_fn, *arguments, **keywords)
        self._note("params", name, init_fn, value)
        return value

    def variable(self, col: str, name: str, init_fn: Any = None, *arguments: Any, **keywords: Any) -> Any:
        variable = super().variable(col, name, init_fn, *arguments, **keywords)
        self._note(col, name, init_fn, variable.value)
        return variable

    def _note(self, kind: str, name: str, init: Any, value: Any) -> None:
        if hasattr(value, "shape"):
            self.noted.setdefault("/".join((kind, *self.path, name)), drawn_by(init, value.shape))


def drawn_by(init: Any, shape: Sequence[int]) -> Drawn:
    """Returns what an initialiser of `jax.nn.initializers` (or zeros and ones of jnp) draws for a shape.

    The standard deviation is the closed form: gain / sqrt(fan) whatever the distribution (JAX widens the cut normal so
    that it holds), 1 / sqrt(rows) of an orthogonal matrix. Any other function keeps its name, with no figures.
    """
    kind = getattr(init, "__qualname__", type(init).__name__).split(".")[0]
    if kind in ("zeros", "ones"):
        return Drawn(kind, float(kind == "ones"), 0.0)
    try:
        given = inspect.getclosurevars(init).nonlocals
        return _DESCRIBED[kind](given, shape)
    except (KeyError, TypeError, ValueError):  # none of JAX's, or of a version that keeps it elsewhere
        return Drawn(kind)


def _variance_scaling(given: Mapping[str, Any], shape: Sequence[int]) -> Drawn:
    scale, mode, distribution = float(given["scale"]), given["mode"], given["distribution"]
    fan_in, fan_out = _fans(shape, given["in_axis"], given["out_axis"])
    fan = {
        "fan_in": fan_in,
        "fan_out": fan_out,
        "fan_avg": (fan_in + fan_out) / 2,
        "fan_geo_avg": math.sqrt(fan_in * fan_out),
    }[mode]
    return Drawn(_name(scale, mode, distribution), 0.0, math.sqrt(scale / fan))


def _name(scale: float, mode: str, distribution: str) -> str:
    """The name in the field, which is that of the config; else the parts."""
    short = distribution.removeprefix("truncated_")
    if scale == 1 and mode == "fan_avg" and distribution != "normal":
        return f"xavier_{short}"
    if scale == 1 and mode == "fan_in" and distribution == "truncated_normal":
        return "lecun_normal"
    if math.isclose(scale, 1 / 3) and distribution == "uniform" and mode == "fan_in":
        return "uniform 1/sqrt(fan_in)"  # ± that, as PyTorch's dense layers
    if mode in ("fan_in", "fan_out") and distribution in ("normal", "uniform"):
        return f"kaiming_{mode}_{distribution}"
    return f"{distribution} {scale:g}/{mode}"


def _fans(shape: Sequence[int], in_axis: Any, out_axis: Any) -> tuple[float, float]:
    ins, outs = (
        math.prod(shape[axis] for axis in ((axes,) if isinstance(axes, int) else axes)) for axes in (in_axis, out_axis)
    )
    field = math.prod(shape) / ins / outs
    return ins * field, outs * field


def _truncated_normal(given: Mapping[str, Any], shape: Sequence[int]) -> Drawn:
    """The moments of a normal cut at lower and upper standard deviations, which JAX does not widen here."""
    std, low, high = (float(given[name]) for name in ("stddev", "lower", "upper"))
    density = [math.exp(-0.5 * x * x) / math.sqrt(2 * math.pi) for x in (low, high)]
    inside = 0.5 * (math.erf(high / math.sqrt(2)) - math.erf(low / math.sqrt(2)))
    mean = (density[0] - density[1]) / inside
    variance = 1 + (low * density[0] - high * density[1]) / inside - mean**2
    return Drawn(f"truncated_normal {std:g}", std * mean, std * math.sqrt(variance))


def _orthogonal(given: Mapping[str, Any], shape: Sequence[int]) -> Drawn:
    columns = shape[given["column_axis"]]
    longer = max(math.prod(shape) // columns, columns)  # of unit vectors of this length
    return Drawn("orthogonal", 0.0, float(given["scale"]) / math.sqrt(longer))


_DESCRIBED: dict[str, Callable[[Mapping[str, Any], Sequence[int]], Drawn]] = {
    "variance_scaling": _variance_scaling,
    "truncated_normal": _truncated_normal,
    "orthogonal": _orthogonal,
    "normal": lambda given, _: Drawn(f"normal {given['stddev']:g}", 0.0, float(given["stddev"])),
    "uniform": lambda given, _: Drawn(
        f"uniform 0..{given['scale']:g}", given["scale"] / 2, given["scale"] / math.sqrt(12)
    ),
    "constant": lambda given, _: Drawn(f"constant {given['value']:g}", float(given["value"]), 0.0),
}
