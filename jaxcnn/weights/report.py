"""What does not fit between named tensors and a network, in one line: missing, unexpected, mismatched, not finite."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from jaxcnn.errors import InputError

_SHOWN = 20  # names of each kind


@dataclass
class Report:
    """Names that do not fit, theirs beside ours.

    Attributes:
      missing: leaves of the network that the source lacks: "their name (our path)".
      unexpected: tensors of the source that no leaf takes.
      mismatched: tensors of another shape: "their name is (3, 3), expected (4, 4) for our path", in their axes.
    """

    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    mismatched: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.mismatched)

    def __str__(self) -> str:
        return "; ".join(f"{len(names)} {title}: {_some(names)}" for title, names in vars(self).items() if names)


def check_finite(tensors: Mapping[str, np.ndarray], place: str) -> None:
    """Raises InputError that names the tensors with a NaN or an infinity, and how many of each."""
    counts = {name: int(np.size(array) - np.isfinite(array).sum()) for name, array in tensors.items()}
    wrong = [f"{name} ({count:,} of {tensors[name].size:,} values)" for name, count in counts.items() if count]
    if wrong:
        raise InputError(f"{place} holds NaN or infinite weights: {_some(wrong)}")


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
