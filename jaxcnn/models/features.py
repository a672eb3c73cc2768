"""Maps inside a backbone, by the names of its parts: where to end, and where to begin."""

from collections.abc import Callable, Mapping

import jax

from jaxcnn.errors import InputError, did_you_mean


def pass_through(
    layers: Mapping[str, Callable[[jax.Array], jax.Array]],
    x: jax.Array,
    features: tuple[str, ...],
    start: str | None = None,
) -> jax.Array | dict[str, jax.Array]:
    """Returns the output of the last layer or, where `features` names some, {name: output} of these.

    Args:
      layers: the parts of a backbone, in order.
      x: image [N, H, W, C], or with `start` a map.
      features: names of parts, in any order; what comes after the last of them is not computed.
      start: the part whose output `x` is; it and what comes before it are not computed.

    Raises:
      InputError: a name that the backbone does not have, or features that come before the start.
    """
    for name in (*features, start):
        if name is not None and name not in layers:
            what = "start" if name == start else "features"
            raise InputError(f"{what}={name!r}: no such part of the network; {did_you_mean(name, layers)}")
    names = list(layers)
    left = names if start is None else names[names.index(start) + 1 :]
    if early := [name for name in features if name not in left]:
        raise InputError(f"features={early[0]!r} is not computed from start={start!r}: it comes before")
    maps = {}
    for name in left:
        layer = layers[name]
        x = maps[name] = layer(x)
        if features and set(features) <= maps.keys():
            return {wanted: maps[wanted] for wanted in features}
    return x
