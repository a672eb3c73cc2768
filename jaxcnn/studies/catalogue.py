"""The studies by name."""

from collections.abc import Callable
from importlib import import_module

from jaxcnn.errors import InputError, did_you_mean
from jaxcnn.studies.findings import Findings
from jaxcnn.studies.setting import Setting

STUDIES = {
    "norm-axes": "over which axes each norm normalises, and what small batches do to it",
    "receptive-field": "what three 3x3 convolutions see, what they cost, and how much of it counts",
    "degradation": "why plain deep networks get worse, and residual ones do not",
    "activations": "why sigmoid vanishes: gradients by depth",
    "initialisation": "why weights are drawn as they are: variance by layer",
    "dropout": "what dropping units does to the gap, to gradients and to features",
    "augmentation": "what each operation is worth on a small sample",
    "preprocessing": "why inputs are normalised, and what wrong statistics cost",
    "transferability": "what each stage of a pretrained network is good for",
    "optimisation": "what the loss looks like around a plain and a residual network",
}
"""In the order of the course."""


def find_study(name: str) -> Callable[[Setting], Findings]:
    """Returns the study of a name: its module's `study`.

    Raises:
      InputError: there is none.
    """
    if name not in STUDIES:
        raise InputError(f"no study {name!r}; {did_you_mean(name, STUDIES)}")
    return import_module(f"jaxcnn.studies.{name.replace('-', '_')}").study
