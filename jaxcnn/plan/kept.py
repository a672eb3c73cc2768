"""Figures of compiled programs, kept: a minute or more of compiling is done once for a program and its chips."""

import dataclasses
import hashlib
import importlib.metadata
import json
from collections.abc import Callable
from pathlib import Path

import jax

from jaxcnn.plan.compiling import DoesNotFit, StepFigures
from jaxcnn.plan.program import Collective
from jaxcnn.runtime import cache_folder
from jaxcnn.whole import write_whole

_VERSION = 1  # of what is counted


def kept_figures(
    lowered: jax.stages.Lowered, place: str, chips: int, compiled: Callable[..., StepFigures]
) -> StepFigures:
    """Returns compiled(lowered, chips), from the cache folder where it was asked for before.

    Args:
      lowered: the program, which says all that XLA is given but the chips.
      place: their name.
      chips: how many they are.
      compiled: what compiles.

    Raises:
      DoesNotFit: it does not fit the memory; that is kept too.
    """
    versions = [importlib.metadata.version(name) for name in ("jaxlib", "libtpu")]
    key = "\n".join([str(_VERSION), place, *versions, lowered.as_text()])
    path = cache_folder() / "plans" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"
    if (held := _read(path)) is not None:
        return _figures(held)
    try:
        figures = compiled(lowered, chips)
    except DoesNotFit as refusal:
        _write(path, {"needed_bytes": refusal.needed_bytes})
        raise
    _write(path, dataclasses.asdict(figures))
    return figures


def _read(path: Path) -> dict | None:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def _figures(held: dict) -> StepFigures:
    if "needed_bytes" in held:
        raise DoesNotFit(held["needed_bytes"])
    held["collectives"] = tuple(Collective(**each) for each in held["collectives"])
    return StepFigures(**held)


def _write(path: Path, figures: dict) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(figures, indent=2) + "\n")
    except OSError:
        return  # without the folder it is compiled again next time
