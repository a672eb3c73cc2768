"""What dropout does to a network: which units it drops, what gradient they get, and how alike features are."""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn.models.taps import unscanned
from jaxcnn.runtime import compiler_options
from jaxcnn.training.losses import cross_entropy


@dataclass(frozen=True)
class Dropped:
    """Figures of one dropout in one draw, over the units that were not 0 before it.

    Attributes:
      path: of the module.
      rate: the probability that it was made with.
      share: of the units that were dropped.
      gradient_of_dropped: largest magnitude of the gradient of the loss with respect to one of them.
      gradient_of_kept: largest magnitude among the others.
      scale, backward_scale: what those were multiplied by, forward and backward, if it was the same for all: mean.
      scale_error: largest relative deviation of either from 1 / (1 - rate).
    """

    path: str
    rate: float
    share: float
    gradient_of_dropped: float
    gradient_of_kept: float
    scale: float
    backward_scale: float
    scale_error: float


def dropped_units(
    model: nn.Module, variables: Mapping[str, Any], x: jax.Array, labels: jax.Array, key: jax.Array
) -> list[Dropped]:
    """Returns the figures of each active `nn.Dropout` of a network in training, in the order of the network.

    Args:
      model: any module that takes `train`.
      variables: of it.
      x: [N, ...], its input.
      labels: [N]; the loss is the mean cross-entropy.
      key: of the draw.
    """

    open_model = unscanned(model)

    def forward(before: Any, after: Any) -> Any:
        seen: OrderedDict[str, Any] = OrderedDict()

        def look(next_call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
            module: Any = context.module
            if not isinstance(module, nn.Dropout) or module.rate == 0 or context.method_name != "__call__":
                return next_call(*args, **kwargs)
            path, given = "/".join(module.path), args[0]
            given = given + before.get(path, 0)
            gives = next_call(given, *args[1:], **kwargs) + after.get(path, 0)
            seen[path] = (given, gives, jnp.float32(module.rate))
            return gives

        with nn.intercept_methods(look):
            logits, _ = open_model.apply(variables, x, train=True, rngs={"dropout": key}, mutable=["batch_stats"])
        return jnp.mean(cross_entropy(logits, labels)), seen

    def figures() -> Any:
        shapes = jax.eval_shape(forward, {}, {})[1]
        before, after = ({path: jnp.zeros_like(one[place]) for path, one in shapes.items()} for place in (0, 1))
        (into, outof), seen = jax.grad(forward, argnums=(0, 1), has_aux=True)(before, after)
        return OrderedDict((path, (*one, into[path], outof[path])) for path, one in seen.items())

    found = jax.device_get(jax.jit(figures, compiler_options=compiler_options())())
    return [_figures(path, *map(np.asarray, one)) for path, one in found.items()]


def _figures(
    path: str, given: np.ndarray, gives: np.ndarray, rate: Any, into: np.ndarray, outof: np.ndarray
) -> Dropped:
    live = given != 0
    lost, kept = live & (gives == 0), live & (gives != 0)
    reached = kept & (np.abs(outof) > 1e-30)
    forward, backward = gives[kept] / given[kept], into[reached] / outof[reached]
    expected, rest = 1 / (1 - float(rate)), np.concatenate([forward, backward])
    return Dropped(
        path=path,
        rate=float(rate),
        share=float(lost.sum() / max(live.sum(), 1)),
        gradient_of_dropped=float(np.abs(into[lost]).max(initial=0.0)),
        gradient_of_kept=float(np.abs(into[kept]).max(initial=0.0)),
        scale=float(np.mean(forward)) if forward.size else float("nan"),
        backward_scale=float(np.mean(backward)) if backward.size else float("nan"),
        scale_error=float(np.max(np.abs(rest / expected - 1), initial=0.0)),
    )


def mean_correlation(features: np.ndarray) -> float:
    """Returns the mean magnitude, 0..1, of the correlation of two different features over examples; nan without two.

    Cogswell et al. 2015 (DeCov) measure redundancy by the covariance of hidden units, and Hinton et al. 2012 mean by
    co-adaptation that a unit is of use only beside others. Features that are constant have no correlation and do not
    count. Unrelated features of N examples have about 0.8 / sqrt(N).

    Args:
      features: [N, F].
    """
    values = np.asarray(features, np.float64)
    std = values.std(axis=0)
    values = values[:, std > 1e-6 * max(float(std.max(initial=0.0)), 1e-30)]
    count = values.shape[1]
    if count < 2:
        return float("nan")
    size = np.abs(np.corrcoef(values, rowvar=False))
    return float((size.sum() - count) / (count * (count - 1)))
