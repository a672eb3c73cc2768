"""Signal and gradient by layer: how large activations are on their way forward, and gradients on their way back.

Glorot & Bengio 2010, section 4.2, and He et al. 2015 (Delving Deep), section 2.2, ask that both are kept from layer to
layer. A network of depth L that changes them by c a layer changes them by c^L: `factor_a_step` reads c from
measurements.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn.models.taps import backward, unscanned
from jaxcnn.paths import flatten
from jaxcnn.runtime import compiler_options
from jaxcnn.training.losses import cross_entropy


@dataclass(frozen=True)
class Signal:
    """Figures of each layer that has a kernel, in the order in which they are computed; of the sum of the losses.

    They are computed without squaring what is very small or large: 32 layers of sigmoid leave 1e-20 of a gradient,
    whose square float32 does not hold.

    Attributes:
      layers: their paths.
      mean_square: of the values of the layer's input, which is what the activation before it gave.
      variance: of the same values, over images, places and channels.
      gradient: mean square of the gradient with respect to the layer's input.
      kernel_gradient: norm of the gradient with respect to the layer's kernel, of the mean of the losses.
    """

    layers: tuple[str, ...]
    mean_square: tuple[float, ...]
    variance: tuple[float, ...]
    gradient: tuple[float, ...]
    kernel_gradient: tuple[float, ...]


def make_signal(model: nn.Module) -> Callable[[Any, Any, Any], Signal]:
    """Returns (variables, normalised images [N, H, W, C], labels [N]) -> `Signal`, in training mode; compiled once.

    Dropout is drawn by the key 0. Variables of other initialisers serve the same program.
    """
    plain = unscanned(model)

    def figures(variables: Any, images: jax.Array, labels: jax.Array) -> Any:
        def objective(logits: jax.Array) -> jax.Array:
            return jnp.sum(cross_entropy(logits, labels))

        found = backward(plain, variables, images, objective, train=True, rngs={"dropout": jax.random.key(0)})
        kernels = flatten(found.params)
        return OrderedDict(
            (
                path,
                {
                    "mean_square": _scaled(x, jnp.mean),
                    "variance": _scaled(x, jnp.mean, centred=True),
                    "gradient": _scaled(found.inputs[path], jnp.mean),
                    "kernel_gradient": _scaled(kernels[f"{path}/kernel"], jnp.sum),
                },
            )
            for path, x in found.seen.inputs.items()
        )

    run = jax.jit(figures, compiler_options=compiler_options())

    def signal(variables: Any, images: Any, labels: Any) -> Signal:
        found = jax.device_get(run(variables, images, labels))

        def column(name: str, power: float = 1.0, factor: float = 1.0) -> tuple[float, ...]:
            squares = (np.float64(one[name][0]) ** 2 * np.float64(one[name][1]) for one in found.values())
            return tuple(float(factor * square**power) for square in squares)

        return Signal(
            layers=tuple(found),
            mean_square=column("mean_square"),
            variance=column("variance"),
            gradient=column("gradient"),
            kernel_gradient=column("kernel_gradient", 0.5, 1 / len(labels)),
        )

    return signal


def _scaled(values: jax.Array, over: Callable, centred: bool = False) -> tuple[jax.Array, jax.Array]:
    """(largest magnitude m, mean or sum of (values / m)²): their product with m² is taken in float64."""
    values = values.astype(jnp.float32)
    if centred:
        most = jnp.max(jnp.abs(values))
        values = values - most * jnp.mean(values / jnp.where(most > 0, most, 1))  # a sum of large values overflows
    most = jnp.max(jnp.abs(values))
    return most, over(jnp.square(values / jnp.where(most > 0, most, 1)))


def factor_a_step(values: Sequence[float], steps: Sequence[float] | None = None) -> float:
    """Returns c of the line log(value) = step · log(c) + constant, fitted by least squares; nan if a value is not > 0.

    Args:
      values: [n].
      steps: [n], such as depths; none: 0, 1, 2, ...
    """
    places = np.arange(len(values)) if steps is None else np.asarray(steps, np.float64)
    own = np.asarray(values, np.float64)
    if not np.all((own > 0) & np.isfinite(own)):
        return float("nan")
    return float(np.exp(np.polyfit(places, np.log(own), 1)[0]))
