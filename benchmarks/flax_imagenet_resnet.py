"""ResNet-50 as the flax ImageNet example writes it: what our figures are compared with, and nothing of ours in it.

After google/flax, examples/imagenet/{models,train}.py, for bfloat16 ("half precision"): `nn.Conv`, `nn.BatchNorm` with
momentum 0.9 and epsilon 1e-5, 'SAME' padding, the last scale of each block 0, the loss with its L2 term, SGD with
Nesterov momentum. Under jit with the batch sharded, batch norm is over the global batch, as there.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax


class BottleneckResNetBlock(nn.Module):
    filters: int
    conv: Any
    norm: Any
    strides: tuple[int, int] = (1, 1)

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        residual = x
        y = nn.relu(self.norm()(self.conv(self.filters, (1, 1))(x)))
        y = nn.relu(self.norm()(self.conv(self.filters, (3, 3), self.strides)(y)))
        y = self.norm(scale_init=nn.initializers.zeros_init())(self.conv(self.filters * 4, (1, 1))(y))
        if residual.shape != y.shape:
            residual = self.conv(self.filters * 4, (1, 1), self.strides, name="conv_proj")(residual)
            residual = self.norm(name="norm_proj")(residual)
        return nn.relu(residual + y)


class ResNet(nn.Module):
    stage_sizes: tuple[int, ...] = (3, 4, 6, 3)
    num_classes: int = 1000
    num_filters: int = 64
    dtype: Any = jnp.bfloat16

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = True) -> jax.Array:
        conv = functools.partial(nn.Conv, use_bias=False, dtype=self.dtype)
        norm = functools.partial(
            nn.BatchNorm, use_running_average=not train, momentum=0.9, epsilon=1e-5, dtype=self.dtype, axis_name=None
        )
        x = conv(self.num_filters, (7, 7), (2, 2), padding=[(3, 3), (3, 3)], name="conv_init")(x)
        x = nn.relu(norm(name="bn_init")(x))
        x = nn.max_pool(x, (3, 3), strides=(2, 2), padding="SAME")
        for stage, num_blocks in enumerate(self.stage_sizes):
            for block in range(num_blocks):
                strides = (2, 2) if stage > 0 and block == 0 else (1, 1)
                x = BottleneckResNetBlock(self.num_filters * 2**stage, conv=conv, norm=norm, strides=strides)(x)
        x = jnp.mean(x, axis=(1, 2))
        x = nn.Dense(self.num_classes, dtype=self.dtype)(x)
        return jnp.asarray(x, self.dtype)


def make_step(model: nn.Module, label_smoothing: float = 0.1, weight_decay: float = 1e-4) -> tuple[Any, Any]:
    """Returns (initial state as a function of the key and an image, step: (state, images, labels) -> state, metrics).

    The state is {"params", "batch_stats", "opt_state", "step"}; images are [B, H, W, 3] in the compute type, already
    normalised, as the example's input pipeline hands them over.
    """
    optimizer = optax.sgd(optax.cosine_decay_schedule(0.1, 100_000), momentum=0.9, nesterov=True)

    def initial(key: jax.Array, image: jax.Array) -> dict[str, Any]:
        variables = model.init(key, image)
        opt_state = optimizer.init(variables["params"])
        return {**variables, "opt_state": opt_state, "step": jnp.zeros((), jnp.int32)}

    def step(state: dict[str, Any], images: jax.Array, labels: jax.Array) -> tuple[dict[str, Any], dict[str, Any]]:
        def loss_of(params: Any) -> Any:
            variables = {"params": params, "batch_stats": state["batch_stats"]}
            logits, new = model.apply(variables, images, mutable=["batch_stats"])
            targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), label_smoothing)
            loss = jnp.mean(optax.softmax_cross_entropy(logits=logits, labels=targets))
            penalty = sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params) if leaf.ndim > 1)
            return loss + weight_decay * 0.5 * penalty, (new["batch_stats"], loss, logits)

        (_, (batch_stats, loss, logits)), grads = jax.value_and_grad(loss_of, has_aux=True)(state["params"])
        updates, opt_state = optimizer.update(grads, state["opt_state"], state["params"])
        params = optax.apply_updates(state["params"], updates)
        accuracy = jnp.mean(jnp.argmax(logits, -1) == labels)
        new = {"params": params, "batch_stats": batch_stats, "opt_state": opt_state, "step": state["step"] + 1}
        return new, {"loss": loss, "accuracy": accuracy}

    return initial, step
