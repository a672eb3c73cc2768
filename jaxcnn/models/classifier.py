"""The whole network: backbone -> neck or mean over the map -> dropout -> head."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxcnn.models.layers import dense_init, global_mean


class Classifier(nn.Module):
    """Images [N, H, W, C], float and normalised -> logits [N, num_classes], float32.

    Apply always through this module: the paths `backbone/...`, `neck/...` and `head/...` begin here.

    Attributes:
      backbone: module from images to a map [N, H', W', F]; it has a `total_stride`.
      num_classes: outputs of the head.
      neck: module from the map to features [N, F']; none: the mean over H' and W'.
      dropout: probability of dropping a feature before the head (Srivastava et al. 2014).
    """

    backbone: nn.Module
    num_classes: int
    neck: nn.Module | None = None
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """Returns logits. With `train`, batch norm uses and updates batch statistics and dropout needs its rng."""
        stride = self.backbone.total_stride
        if min(x.shape[1:3]) < stride:
            raise ValueError(
                f"images of {x.shape[1]}x{x.shape[2]} are too small for a network that divides them by {stride}: "
                f"use at least {stride}x{stride} (data.image_size), or fewer strides"
            )
        x = self.backbone(x, train=train)  # [N, H', W', F]
        x = global_mean(x) if self.neck is None else self.neck(x, train=train)  # [N, F]
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        # float32 whatever the compute type (float64 in, float64 out, for tests that compare in it).
        dtype = jnp.promote_types(x.dtype, jnp.float32)
        return nn.Dense(self.num_classes, kernel_init=dense_init, dtype=dtype, name="head")(x.astype(dtype))
