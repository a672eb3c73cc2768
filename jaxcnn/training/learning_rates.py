"""Learning rates of single leaves: by depth, and by name."""

from collections.abc import Sequence

from jaxcnn.errors import InputError
from jaxcnn.paths import GlobRule, Tree, flatten


def factors_of(
    params: Tree, part_paths: Sequence[str], layer_decay: float, multipliers: Sequence[tuple[str, float]]
) -> dict[str, float]:
    """Returns the factor of each leaf's learning rate, by path: decay by depth times that of the last matching glob.

    The last part, the head, has 1, the one before it `layer_decay`, the one before that `layer_decay`², ... (Howard &
    Ruder 2018, section 3.2, discriminative fine-tuning; there a layer, here a stage).

    Args:
      params: all parameters of the network.
      part_paths: its parts in order, such as `backbone/stem`, ..., `head`.
      layer_decay: factor from a part to the one before.
      multipliers: (glob, factor).

    Raises:
      InputError: a glob that matches nothing, or takes back.
    """
    for glob, _ in multipliers:
        if glob.startswith("!"):
            raise InputError(f"optim.lr_multipliers: {glob!r} takes back; give those leaves another factor instead")
        GlobRule((glob,)).check(flatten(params), "optim.lr_multipliers")
    depths = {part: depth for depth, part in enumerate(reversed(part_paths))}
    factors = {}
    for path in flatten(params):
        depth = next((depth for part, depth in depths.items() if path.startswith(f"{part}/")), 0)
        own = [factor for glob, factor in multipliers if GlobRule((glob,)).matches(path)]
        factors[path] = layer_decay**depth * (own[-1] if own else 1.0)
    return factors
