"""Derivatives of a function of one variable by numerics: slopes from either side, at ever smaller steps, in float64."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

STEPS = tuple(10.0**-power for power in range(1, 8))
"""Below 1e-8 the rounding of a difference in float64 is larger than what a step changes."""


@dataclass(frozen=True)
class Slopes:
    """Difference quotients of f at a point, one a step h.

    Attributes:
      steps: h, falling.
      right: (f(x + h) - f(x)) / h.
      left: (f(x) - f(x - h)) / h.
      second: (f(x + h) - 2 f(x) + f(x - h)) / h², which is (right - left) / h.
    """

    steps: tuple[float, ...]
    right: tuple[float, ...]
    left: tuple[float, ...]
    second: tuple[float, ...]

    @property
    def jump(self) -> tuple[float, ...]:
        """right - left: goes to 0 with h where f is differentiable, and does not where it has a kink."""
        return tuple(right - left for right, left in zip(self.right, self.left, strict=True))

    @property
    def order(self) -> float:
        """The power p of h with which the jump goes to 0, fitted: 1 where f is twice differentiable, 0 at a kink."""
        jumps = np.abs(self.jump)
        if not np.all(jumps > 0):
            return float("inf")  # there is no jump at all
        return float(np.polyfit(np.log(self.steps), np.log(jumps), 1)[0])


def slopes(function: Callable[[jax.Array], jax.Array], at: float = 0.0, steps: Sequence[float] = STEPS) -> Slopes:
    """Returns the difference quotients of a function that works elementwise."""
    with jax.enable_x64(True):
        h = np.asarray(steps, np.float64)
        above, here, below = (np.asarray(function(jnp.asarray(x))) for x in (at + h, np.full_like(h, at), at - h))
        if above.dtype != np.float64:
            raise ValueError(f"{function} gives {above.dtype}: at these steps float64 is needed")
    right, left = (above - here) / h, (here - below) / h
    second = (above - 2 * here + below) / h**2
    return Slopes(tuple(h.tolist()), tuple(right.tolist()), tuple(left.tolist()), tuple(second.tolist()))


def derivative(function: Callable[[jax.Array], jax.Array], x: np.ndarray) -> np.ndarray:
    """Returns f'(x) [n], float64, by the function's own derivative: what backpropagation multiplies by."""
    with jax.enable_x64(True):
        return np.asarray(jax.vmap(jax.grad(function))(jnp.asarray(x, jnp.float64)))
