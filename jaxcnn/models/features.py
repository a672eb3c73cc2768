"""Maps inside a backbone, by the names of its parts."""

from collections.abc import Callable, Mapping

import jax

from jaxcnn.errors import InputError, did_you_mean


def pass_through(
    layers: Mapping[str, Callable[[jax.Array], jax.Array]], x: jax.Array, features: tuple[str, ...]
) -> jax.Array | dict[str, jax.Array]:
    """Returns the output of the last layer or, where `features` names some, {name: output} of these.

    Args:
      layers: the parts of a backbone, in order.
      x: image [N, H, W, C].
      features: names of parts, in any order; what comes after the last of them is not computed.

    Raises:
      InputError: a name that the backbone does not have.
    """
    for name in features:
        if name not in layers:
            raise InputError(f"features={name!r}: no such part of the network; {did_you_mean(name, layers)}")
    maps = {}
    for name, layer in layers.items():
        x = maps[name] = layer(x)
        if features and set(features) <= maps.keys():
            return {wanted: maps[wanted] for wanted in features}
    return x
