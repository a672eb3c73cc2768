"""The whole network: backbone -> neck or mean over the map -> dropout -> head."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxcnn.errors import InputError
from jaxcnn.models.layers import dense_init, global_mean

POOLED = "pooled"


class Classifier(nn.Module):
    """Images [N, H, W, C], float and normalised -> logits [N, num_classes], float32.

    Apply always through this module: the paths `backbone/...`, `neck/...` and `head/...` begin here. The variables of
    the whole network serve in all three forms, so features are had from trained weights by
    `model.clone(features=("stage3", "stage4")).apply(variables, images)`, and what follows from features by
    `model.clone(start="stage3").apply(variables, maps)`.

    Attributes:
      backbone: module from images to a map [N, H', W', F]; it has a `total_stride` and `num_features`.
      num_classes: outputs of the head; 0: no head, the output is the pooled features [N, F] or those of the neck,
        float32 and before dropout.
      neck: module from the map to features [N, F']; none: the mean over H' and W'.
      dropout: probability of dropping a feature before the head (Srivastava et al. 2014).
      features: names of parts of the backbone, such as ("stage3", "stage4"): the output is {name: map [N, H', W', F]},
        in the compute dtype, and nothing after the last of them is computed.
      start: one of `points`, whose output is the input: a map [N, H', W', F] of the backbone, or "pooled" features
        [N, F]; nothing before it is computed. None: the input is images.
    """

    backbone: nn.Module
    num_classes: int
    neck: nn.Module | None = None
    dropout: float = 0.0
    features: tuple[str, ...] = ()
    start: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> Any:
        """Returns logits, pooled features or maps, as the attributes say.

        With `train`, batch norm uses and updates batch statistics and dropout needs its rng.

        Raises:
          InputError: features that are not computed, or no such part.
          ValueError: images smaller than the total stride, whose last map would have no pixel.
        """
        stride = self.backbone.total_stride
        if self.start is None and min(x.shape[1:3]) < stride:
            raise ValueError(
                f"images of {x.shape[1]}x{x.shape[2]} are too small for a network that divides them by {stride}: "
                f"use at least {stride}x{stride} (data.image_size), or fewer strides"
            )
        if self.start == POOLED and self.features:
            raise InputError(f"features={self.features[0]!r} is not computed from start={POOLED!r}: it comes before")
        if self.start != POOLED:
            x = self.backbone(x, train=train, features=self.features, start=self.start)  # [N, H', W', F]
            if self.features:
                return x
            x = global_mean(x) if self.neck is None else self.neck(x, train=train)  # [N, F]
        # float32 whatever the compute type (float64 in, float64 out, for tests that compare in it).
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        if self.num_classes == 0:
            return x
        x = nn.Dropout(self.dropout, deterministic=not train, name="dropout")(x)
        return nn.Dense(self.num_classes, kernel_init=dense_init, dtype=x.dtype, name="head")(x)

    @property
    def points(self) -> tuple[str, ...]:
        """Where the network can be cut, in order: the outputs of the backbone's parts, and the inputs of the head."""
        return (*self.backbone.part_names, POOLED)

    @property
    def part_paths(self) -> tuple[str, ...]:
        """The paths of the parts in order: `backbone/stem`, ..., `neck` if there is one, `head`."""
        backbone = (f"backbone/{name}" for name in self.backbone.part_names)
        return (*backbone, *(() if self.neck is None else ("neck",)), "head")

    @property
    def num_features(self) -> int:
        """Inputs of the head."""
        return (self.backbone if self.neck is None else self.neck).num_features


def output_at(model: Classifier, variables: dict[str, Any], x: jax.Array, point: str) -> jax.Array:
    """Returns one of `model.points` in evaluation mode: a map [N, H', W', F], or "pooled" features [N, F], float32.

    `model.clone(start=point)` goes on from it.
    """
    cut = model.clone(num_classes=0, features=()) if point == POOLED else model.clone(features=(point,))
    output: Any = cut.apply(variables, x, train=False)
    return output if point == POOLED else output[point]


def replace_head(
    model: Classifier, variables: dict[str, Any], num_classes: int, key: jax.Array
) -> tuple[Classifier, dict[str, Any]]:
    """Returns the network with a new head, and its variables: all others are kept, the head's are drawn anew.

    Args:
      model: with a head of any number of classes, or none.
      variables: {"params", ...} of it; not changed.
      num_classes: outputs of the new head; 0 takes the head away.
      key: of the random numbers of the new kernel.
    """
    params = {name: tree for name, tree in variables["params"].items() if name != "head"}
    if num_classes:
        head = nn.Dense(num_classes, kernel_init=dense_init)
        params["head"] = head.init(key, jnp.zeros((1, model.num_features)))["params"]
    return model.clone(num_classes=num_classes), {**variables, "params": params}
