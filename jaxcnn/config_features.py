"""The part of a config on what a frozen part of the network gives: computed anew in each step, or once and kept."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Interval

from jaxcnn.config_strict import Count, Strict


@dataclass(frozen=True)
class FeaturesConfig(Strict):
    """Whether the frozen part of the network is run once an image and its output kept on disk, to train the rest on."""

    cache: str = "off"
    """off: in each step; auto: once, up to the latest point before which nothing trains in the whole run; or up to a
    named point: the output of a stage, such as `stage5`, or `pooled`, the inputs of the head."""
    views: Count = 1
    """Versions of each training image that are kept. 1: as evaluation sees it, which wants augmentation off; K from 2
    on: K draws of the configured augmentation, of which each epoch sees one and any K epochs in a row see all."""
    seed: Annotated[int, Interval(ge=0, lt=2**31)] = 0
    """Seed of the views, apart from that of the run, so that runs of several seeds share what is kept."""
