"""How long a step takes at least, by the published peaks of a chip (Williams et al. 2009), and so a run."""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxcnn.plan.program import Collective
from jaxcnn.plan.topology import Place


@dataclass(frozen=True)
class Roofline:
    """Seconds that a step takes at least, for each of three limits.

    Attributes:
      compute: all its operations at the peak.
      memory: all its bytes at the bandwidth of the chip's memory.
      interconnect: what its collectives send, over the ports that the least connected chip uses.
    """

    compute: float
    memory: float
    interconnect: float

    @property
    def seconds(self) -> float:
        """The step, if the three overlap wholly: the longest of them."""
        return max(self.compute, self.memory, self.interconnect)

    @property
    def bound(self) -> str:
        """Which it is: "compute", "memory" or "interconnect"."""
        return max(("compute", "memory", "interconnect"), key=lambda name: getattr(self, name))

    @property
    def summed(self) -> float:
        """The step, if nothing overlaps."""
        return self.compute + self.memory + self.interconnect


def roofline(
    flops: float, bytes_accessed: float, collectives: Sequence[Collective], place: Place, dtype: str
) -> Roofline:
    """Returns the bounds of a step.

    Args:
      flops, bytes_accessed: of a chip.
      collectives: of a chip.
      place: the chips.
      dtype: compute type of the config, which says which peak counts.
    """
    chip, sent = place.chip, sum(each.sent_bytes for each in collectives)
    return Roofline(
        compute=flops / chip.peak(dtype),
        memory=bytes_accessed / chip.memory_bandwidth,
        interconnect=sent / place.send_bandwidth if sent else 0.0,
    )
