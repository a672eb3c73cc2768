"""Where in an image the evidence for a class lies: Grad-CAM (Selvaraju et al. 2017)."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxcnn.errors import InputError, did_you_mean
from jaxcnn.models.classifier import Classifier, output_at


def grad_cam(
    model: Classifier, variables: Any, images: jax.Array, labels: jax.Array, part: str
) -> tuple[jax.Array, jax.Array]:
    """Returns (heat [N, H', W'], logits [N, K]) of images, for one class each.

    With maps A [N, H', W', F] of the part and the logit y of the class, heat = relu(sum over F of a · A), where a is
    the mean over H' and W' of dy / dA (Selvaraju et al. 2017, equations 1 and 2): in what follows the part, y is taken
    to be linear and alike everywhere. Where that is so, in a network whose last map is averaged and goes into a dense
    layer, it is the class activation map of Zhou et al. 2016, equation 2, cut off at 0 and divided by H' · W'.

    Args:
      model: the network, in evaluation mode.
      variables: {"params", "batch_stats"} of it.
      images: float [N, H, W, C], as the network takes them.
      labels: int [N], the classes.
      part: whose map is looked at; see `check_part`.
    """
    maps = output_at(model, variables, images, part)
    after: Any = model.clone(start=part)

    def evidence(maps: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits = after.apply(variables, maps, train=False)
        return jnp.sum(jnp.take_along_axis(logits, labels[:, None], axis=1)), logits

    gradient, logits = jax.grad(evidence, has_aux=True)(maps)
    weights = jnp.mean(gradient.astype(jnp.float32), axis=(1, 2))  # [N, F]
    heat = jnp.einsum("nf,nhwf->nhw", weights, maps.astype(jnp.float32), precision=jax.lax.Precision.HIGHEST)
    return jax.nn.relu(heat), logits


def check_part(model: Classifier, part: str | None) -> str:
    """Returns the name of a part of the backbone; none: the last one, as in the paper, section 3.1.

    Raises:
      InputError: the network has no such part.
    """
    names = model.backbone.part_names
    if part is not None and part not in names:
        raise InputError(f"--layer {part!r}: the network has no such part; {did_you_mean(part, names)}")
    return part or names[-1]
