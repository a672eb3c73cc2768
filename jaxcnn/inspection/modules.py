"""The modules of a network as they are called: each by its path, with the shapes of what it is given and returns.

Max-pooling is a function, not a module; it is listed as `.../pool` below the module that calls it.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxcnn.inspection.receptive_field import Field, fields_of
from jaxcnn.models.taps import unscanned


@dataclass(frozen=True)
class Call:
    """One module of a network, called once.

    Attributes:
      path: such as `backbone/stage1/block1/conv1`; "" for the whole.
      kind: name of its class.
      given, returned: shapes and types, of N images; of several maps the last.
      shapes: of its variables: {"params", "batch_stats"}, those of the modules inside among them.
      field: of what it returns; none where it is not known.
      apply: (variables, input) -> output.
      key: equal for modules that compute the same.
    """

    path: str
    kind: str
    given: jax.ShapeDtypeStruct
    returned: jax.ShapeDtypeStruct
    shapes: dict[str, Any]
    field: Field | None
    apply: Callable[[dict[str, Any], jax.Array], Any]
    key: Any

    @property
    def depth(self) -> int:
        """Names in the path."""
        return self.path.count("/") + 1 if self.path else 0

    @property
    def has_kernel(self) -> bool:
        """Whether it is a convolution or a dense layer."""
        return "kernel" in self.shapes.get("params", {})

    @property
    def is_layer(self) -> bool:
        """Whether it has parameters of its own, or is a pool: what the other modules are made of."""
        own = self.shapes.get("params", {})
        return self.kind == "max_pool" or any(not isinstance(leaf, dict) for leaf in own.values())


def plain_form(model: Any, dtype: Any = None) -> Any:
    """Returns a classifier whose convolutions and pools are those of JAX on every platform; the same variables.

    That is the form in which operations are counted and followed: on CPU ours compute the same in several steps. Blocks
    in a loop become single ones.

    Args:
      model: the network; what has neither `conv` nor `pool` to choose is returned as it is.
      dtype: compute type, in the place of its own.
    """
    model, own = unscanned(model), {} if dtype is None else {"dtype": dtype}
    backbone: Any = getattr(model, "backbone", None)
    changes = {}
    if hasattr(backbone, "conv"):
        changes["conv"] = functools.partial(backbone.conv, plain=True, **own)
    if hasattr(backbone, "pool"):
        changes["pool"] = functools.partial(backbone.pool, plain=True)
    return model.clone(backbone=backbone.clone(**changes)) if changes else model


def calls_of(model: Any, image_shape: tuple[int, int, int], batch: int = 1) -> list[Call]:
    """Returns the modules of a network in the order in which they are entered, each before those inside it.

    It is traced in evaluation mode for images of the given height, width and channels; nothing is allocated.

    Raises:
      ValueError: the images are too small for it (`Classifier`).
    """
    images = jax.ShapeDtypeStruct((batch, *image_shape), jnp.float32)
    plain = plain_form(model)
    variables = jax.eval_shape(plain.init, jax.random.key(0), images)
    seen: dict[str, dict[str, Any]] = {}

    def trace(images: jax.Array, variables: Any) -> list[jax.Array]:
        seen.clear()
        look = _Look(seen)
        with nn.intercept_methods(look):
            look.watching_pools(plain).apply(variables, images, train=False)
        return [call["output"] for call in seen.values()]

    try:
        fields = fields_of(trace, images, variables)
    except NotImplementedError:  # a network of somebody's own, with an operation that is not followed
        jax.eval_shape(trace, images, variables)
        fields = [None] * len(seen)
    return [
        Call(
            path,
            call["kind"],
            call["given"],
            _shape_of(call["output"]),
            call["shapes"],
            field,
            call["apply"],
            call["key"],
        )
        for (path, call), field in zip(seen.items(), fields, strict=True)
    ]


class _Look:
    """An interceptor of calls that notes each one."""

    def __init__(self, seen: dict[str, dict[str, Any]]):
        self.seen = seen
        self.stack: list[str] = []

    def __call__(self, next_call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        module = context.module
        if context.method_name != "__call__" or not args or not isinstance(args[0], jax.Array):
            return next_call(*args, **kwargs)
        path = "/".join(module.path)
        note = self.seen.setdefault(path, {})
        note |= {"kind": type(module).__name__.lstrip("_"), "given": _shape_of(args[0])}
        self.stack.append(path)
        output = next_call(*args, **kwargs)
        self.stack.pop()
        alone = module.clone(parent=None, name=None)
        shapes = {kind: jax.tree.map(_shape_of, dict(module.variables[kind])) for kind in module.variables}
        note["output"] = list(output.values())[-1] if isinstance(output, dict) else output
        note["shapes"], note["apply"] = shapes, lambda variables, x: alone.apply(variables, x, *args[1:], **kwargs)
        note["key"] = (alone, args[1:], tuple(kwargs.items()), _hashable([note["given"], shapes]))
        return output

    def watching_pools(self, model: Any) -> Any:
        """The network with a pool that notes its calls too."""
        backbone: Any = getattr(model, "backbone", None)
        if not hasattr(backbone, "pool"):
            return model
        own = backbone.pool

        def pool(x: jax.Array, **options: Any) -> jax.Array:
            output = own(x, **options)
            given = _shape_of(x)
            self.seen["/".join([*self.stack[-1:], "pool"])] = {
                "kind": "max_pool",
                "given": given,
                "output": output,
                "shapes": {},
                "apply": lambda variables, x: own(x, **options),
                "key": ("max_pool", tuple(options.items()), _hashable([given])),
            }
            return output

        return model.clone(backbone=backbone.clone(pool=pool))


def _shape_of(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)


def _hashable(tree: Any) -> tuple[Any, ...]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return tuple((jax.tree_util.keystr(path), leaf.shape, str(leaf.dtype)) for path, leaf in leaves)
