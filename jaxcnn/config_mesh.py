"""The part of a config on devices: how many, and what each of them holds."""

from dataclasses import dataclass
from typing import Literal

from jaxcnn.config_strict import Count, Strict


@dataclass(frozen=True)
class MeshConfig(Strict):
    """The devices, as a grid of `data` x `fsdp`. Each batch is divided over all of them."""

    data: Count | None = None
    """Devices along the `data` axis, each of which holds the whole state; none: all there are, divided by fsdp."""
    fsdp: Count = 1
    """Devices along the `fsdp` axis, over which parameters and optimizer state are divided; 1: none is."""
    shard: tuple[str, ...] = ("**",)
    """Globs of the parameters that fsdp divides, with their moments and averages; `!` takes back, the last match wins.
    A leaf is divided along its longest axis that fsdp divides evenly; what has none is whole on each device."""
    shard_min: Count = 65_536
    """Fewest numbers of a parameter for it to be divided: below, the time to gather it outweighs its memory."""
    batch_norm: Literal["global", "device"] = "global"
    """Images that share batch statistics. global: the whole batch, on any number of devices; device: those of one
    device, which saves sums over all devices. Between them is model.virtual_batch_size."""
