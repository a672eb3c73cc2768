"""Which run `jaxcnn train` goes on with or starts, and whether the config may differ."""

import itertools
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from jaxcnn import processes
from jaxcnn.config import TrainConfig
from jaxcnn.errors import InputError
from jaxcnn.paths import flatten
from jaxcnn.run_folder import RunFolder, check_free, is_run


def held_run(options: Any, path: Path | None) -> RunFolder | None:
    """The run to go on with, or none to start one."""
    if options.resume is None:
        if path is not None:
            check_free(path)
        return None
    if path is None:
        raise InputError("--resume needs --workdir RUN: which run to go on with")
    if not is_run(path):
        if options.resume == "always":
            raise InputError(f"--workdir {path} --resume: there is no run to go on with; without --resume one starts")
        check_free(path)
        return None
    folder = RunFolder(path)
    if folder.is_imported:
        raise InputError(f"{path} holds imported weights, no training to go on with: --init-from {path}")
    return folder


def check_alike(config: TrainConfig) -> None:
    """Raises InputError where this process trains something else than the first; data may lie elsewhere."""
    ours = flatten(asdict(replace(config, data=replace(config.data, data_dir=None, cache_dir=None))))
    first = processes.agree({name: repr(value) for name, value in ours.items()}, "the config")
    other = next((name for name, value in ours.items() if repr(value) != first[name]), None)
    if other is not None:
        raise InputError(
            f"process {processes.index()} has {other.replace('/', '.')}={ours[other]!r}, the first {first[other]}: "
            "start all with the same command"
        )


def check_resumable(run: RunFolder, given: TrainConfig) -> TrainConfig:
    """The config to go on with: where the data lie, who decodes them, and the devices may differ; nothing else."""
    held = run.config
    places = {name: getattr(given.data, name) for name in ("data_dir", "cache_dir", "workers")}
    movable = replace(held, data=replace(held.data, **places), mesh=given.mesh)
    if movable == given:
        return given
    ours, theirs = flatten(asdict(movable)), flatten(asdict(given))
    names = [name for name in ours if ours[name] != theirs[name]]
    changed = [f"{name.replace('/', '.')}={ours[name]!r}, not {theirs[name]!r}" for name in names]
    raise InputError(
        f"{run.path} was started with {'; '.join(changed[:3])}: resume it as it is, "
        f"or start another run from its weights with --init-from {run.path}"
    )


def new_path(name: str) -> Path:
    """runs/NAME-TIME, with a number after it if that is taken."""
    stem = f"runs/{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    paths = (Path(stem if number == 1 else f"{stem}-{number}") for number in itertools.count(1))
    return next(path for path in paths if not path.exists())
