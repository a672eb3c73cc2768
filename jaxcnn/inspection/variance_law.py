"""The scale of kernels at which a layer keeps variances, measured on the live modules, and the law fitted to it.

He et al. 2015 (Delving Deep), sections 2.2 and 2.3: a convolution after ReLU multiplies the variance of what comes
before that ReLU by std² · fan_in / 2, and on the way back that of gradients by std² · fan_out / 2, so that
std = sqrt(2 / fan) keeps it. Here nothing of this is assumed: the factor is measured at several std, and the std at
which it is 1 is read off the line through them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn.models.conv import Conv
from jaxcnn.models.layers import ACTIVATIONS, initializer

Way = Literal["forward", "backward"]

_FACTORS = tuple(np.geomspace(0.25, 4.0, 12).tolist())  # of 1 / sqrt(fan), at which variances are measured
_VALUES = 100_000  # of the input, about: the variance of a sample of so many is right to 0.5 %


@dataclass(frozen=True)
class Layer:
    """The shape of a convolution: side of its kernel, channels before and after it."""

    side: int
    inputs: int
    outputs: int

    def fan(self, way: Way) -> int:
        return self.side**2 * (self.inputs if way == "forward" else self.outputs)


@dataclass(frozen=True)
class Law:
    """std = sqrt(constant / fan), and std = scale · fan^exponent, fitted by least squares of the logarithms.

    Attributes:
      exponent: -1/2 if the law holds.
      constant: of the first form; 2 after ReLU.
      worst: largest relative deviation of a std from the first form.
    """

    exponent: float
    constant: float
    worst: float


def kept_std(layer: Layer, activation: str, seed: int) -> dict[Way, float]:
    """Returns the std of normal kernels at which activation and convolution keep the variance, each way.

    Before the activation are values of N(0, 1), and after the convolution gradients of N(0, 1). There is no padding;
    gradients are taken at the pixel that all places of the kernel see.
    """
    side = 2 * layer.side - 1  # so that there is such a pixel, in the centre
    count = max(16, _VALUES // (side**2 * min(layer.inputs, layer.outputs)))
    drawn = jax.random.split(jax.random.key(seed), 2 + len(_FACTORS))
    before = jax.random.normal(drawn[0], (count, side, side, layer.inputs))
    later = jax.random.normal(drawn[1], (count, layer.side, layer.side, layer.outputs))
    conv, centre = Conv(layer.outputs, layer.side, padding=0, plain=True), layer.side - 1

    @jax.jit
    def variances(kernel: jax.Array) -> dict[Way, jax.Array]:
        def forward(x: jax.Array) -> jax.Array:
            return conv.apply({"params": {"kernel": kernel}}, ACTIVATIONS[activation](x))  # type: ignore[return-value]

        y, back = jax.vjp(forward, before)
        # Mean squares, not variances over images: an activation whose mean is not 0 shifts each channel by what its
        # kernel draws, and that belongs to the variance over draws, which is what the law is about.
        gradient = back(later)[0][:, centre, centre]
        return {"forward": jnp.mean(jnp.square(y)), "backward": jnp.mean(jnp.square(gradient))}

    stds = [factor / (layer.fan("forward") * layer.fan("backward")) ** 0.25 for factor in _FACTORS]
    shape = (layer.side, layer.side, layer.inputs, layer.outputs)
    kernels = [initializer("normal", std=std)(key, shape) for std, key in zip(stds, drawn[2:], strict=True)]
    measured = jax.device_get([variances(kernel) for kernel in kernels])
    return {way: _crossing(stds, [float(one[way]) for one in measured]) for way in ("forward", "backward")}


def _crossing(stds: Sequence[float], factors: Sequence[float]) -> float:
    """Where the line through the logarithms crosses a factor of 1."""
    slope, offset = np.polyfit(np.log(stds), np.log(factors), 1)
    return float(np.exp(-offset / slope))


def fitted_law(fans: Sequence[int], stds: Sequence[float]) -> Law:
    """Returns the law of stds [n] that keep the variance at fans [n]."""
    x, y = np.log(np.asarray(fans, np.float64)), np.log(np.asarray(stds, np.float64))
    constant = float(np.exp(np.mean(2 * y + x)))
    worst = np.max(np.abs(np.exp(y - 0.5 * (np.log(constant) - x)) - 1))
    return Law(float(np.polyfit(x, y, 1)[0]), constant, float(worst))
