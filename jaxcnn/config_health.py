"""The part of a config on what is watched of each layer while a run trains."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Interval

from jaxcnn.config_strict import Positive, Strict


@dataclass(frozen=True)
class HealthConfig(Strict):
    """Figures of each layer every n steps, and steps whose loss is out of line; none of it changes the result."""

    every_steps: Annotated[int, Ge(0)] | None = None
    """Steps between looks at each layer; 0: none; none: as often as `share` allows, a look taken to be two steps."""
    share: Annotated[float, Interval(gt=0.0, le=1.0)] = 0.03
    """Most time that the looks may take, as a part of that of the steps, where every_steps is left open; to compile
    the program of a look comes once on top of it, beside the first steps."""
    spike_factor: Positive = 3.0
    """A step is told as a spike where its loss rises above the median of the last 100 by so many times their spread
    (from the 5th to the 95th percentile); the log names its examples."""
