"""A step whose loss or gradient is not finite: which layer is the first, and what it takes to do the step again."""

import json
import math
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn import mesh as meshes
from jaxcnn import processes
from jaxcnn.data.loader import Arrays
from jaxcnn.errors import InputError
from jaxcnn.job import Job
from jaxcnn.run_folder import RunFolder
from jaxcnn.training.health import Look, first_nonfinite
from jaxcnn.training.state import TrainState
from jaxcnn.training.step import Step, make_chunk, zero_sums

ARRAYS, NOTES = "step.npz", "step.json"


@dataclass(frozen=True)
class FailedStep:
    """A step that is not finite, with all it takes to do it again.

    Attributes:
      state: before the step.
      batch: its images (or features) and labels, before augmentation.
      notes: step, phase, objective, grad_norm, first (where it begins), examples, and what the schedule depends on.
    """

    state: TrainState
    batch: Arrays
    notes: dict[str, Any]


def failed_step(job: Job, state: TrainState, phase: int) -> FailedStep:
    """Returns the step that comes next in a run and is known not to be finite."""
    step = int(state.step)
    inputs = job.feed.inputs(step, 1)
    batch = jax.jit(job.feed.take)(job.feed.source, jax.tree.map(lambda leaf: leaf[0], inputs))
    state, batch = meshes.to_host((state, batch))
    found = run_again(job.phases[phase].step, job.phases[phase].look, state, batch)
    notes = {
        "step": step,
        "phase": phase,
        **found,
        "examples": job.examples_of(step),
        "start": job.start,
        "devices": job.mesh.size,
        "loader": job.inputs.kind,
        "class_counts": np.bincount(job.inputs.labels, minlength=len(job.network.class_names)).tolist(),
    }
    return FailedStep(state, batch, notes)


def run_again(step: Step, look: Look, state: TrainState, batch: Arrays) -> dict[str, Any]:
    """Returns objective, grad_norm and `first`, where the first value that is not finite appears, of one step.

    Args:
      step, look: of the phase.
      state: before the step.
      batch: what it sees.
    """
    sums = zero_sums(step, state, batch.images, batch.labels)
    chunk = jax.jit(make_chunk(step, lambda source, item: item))  # as in a run: a loop, whose body is the step
    batches = jax.tree.map(lambda leaf: jnp.stack([jnp.asarray(leaf)] * 2), batch)
    _, _, brief = chunk(state, jax.tree.map(jnp.asarray, sums), (), batches, np.int32(1))
    figures = jax.tree.map(float, jax.device_get(jax.jit(look)(state, batch.images, batch.labels)))
    trace = {name: float(values[0]) for name, values in brief["trace"].items()}
    return {**trace, "first": first_nonfinite({**figures, **trace})}


def save(failed: FailedStep, folder: RunFolder) -> Path:
    """Writes a failed step into its run folder, whole or not at all, and returns where."""
    place = folder.path / "nonfinite"
    if not processes.is_first():
        return place
    place.mkdir(exist_ok=True)
    arrays: dict[str, Any] = {f"state{name}": np.asarray(leaf) for name, leaf in _named(failed.state).items()}
    arrays |= {"images": np.asarray(failed.batch.images), "labels": np.asarray(failed.batch.labels)}
    part = place / f".{ARRAYS}"
    with open(part, "wb") as file:
        np.savez(file, **arrays)
        file.flush()
        os.fsync(file.fileno())
    part.replace(place / ARRAYS)
    folder.write_json(f"nonfinite/{NOTES}", in_json(failed.notes))
    return place


def load(folder: RunFolder, shapes: TrainState) -> FailedStep:
    """Returns the failed step of a run folder.

    Args:
      folder: the run.
      shapes: of the state of its phase.

    Raises:
      InputError: there is none, or it is not whole.
    """
    notes = load_notes(folder)
    try:
        with np.load(folder.path / "nonfinite" / ARRAYS) as arrays:
            leaves = {name: arrays[f"state{name}"] for name in _named(shapes)}
            batch = Arrays(arrays["images"], arrays["labels"])
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(f"{folder.path / 'nonfinite' / ARRAYS} is not whole: {error}") from None
    paths, form = jax.tree_util.tree_flatten_with_path(shapes)
    state = jax.tree.unflatten(form, [leaves[jax.tree_util.keystr(path)] for path, _ in paths])
    return FailedStep(meshes.replicate(meshes.make_mesh(1), state), batch, notes)


def load_notes(folder: RunFolder) -> dict[str, Any]:
    """Returns the notes of the failed step of a run; raises InputError if it has none."""
    file = folder.path / "nonfinite" / NOTES
    if not file.is_file():
        raise InputError(f"{folder.path} has no step that was not finite: there is nothing to replay")
    return json.loads(file.read_text())


def in_json(notes: dict[str, Any]) -> dict[str, Any]:
    """Returns notes as JSON has them, which knows neither nan nor inf: these two are words there."""
    return {
        name: str(value) if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in notes.items()
    }


def _named(state: TrainState) -> dict[str, Any]:
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(state)}


def told(notes: dict[str, Any]) -> str:
    """Returns in words what was not finite, and where first."""
    loss, norm = float(notes["objective"]), float(notes["grad_norm"])
    what = f"the training loss is {loss}" if not math.isfinite(loss) else f"the norm of the gradient is {norm}"
    return f"{what} in step {notes['step']}, first {notes['first']}"
