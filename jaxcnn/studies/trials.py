"""Trains the networks of a study: in this process, several seeds by one compiled program, each trial kept on disk.

A trial is trained by the job of its config, as `train.py` would, but without a run folder: a study wants numbers, not
checkpoints. What has been trained is read from `trials/` of the study's folder, so a study that was broken off goes on
where it was, and its figure can be drawn anew in a second.
"""

import dataclasses
import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxcnn import mesh as meshes
from jaxcnn.build import build_job
from jaxcnn.config import DataConfig, Preprocessing, TrainConfig
from jaxcnn.config_reader import to_json
from jaxcnn.data.source import Splits
from jaxcnn.data.sources import open_splits
from jaxcnn.errors import InputError, Interrupted
from jaxcnn.evaluation import evaluate
from jaxcnn.job import Job
from jaxcnn.runtime import compiler_options
from jaxcnn.studies.reading import in_memory, quietly
from jaxcnn.training.metrics import divide
from jaxcnn.training.partition import trains_backbone
from jaxcnn.training.state import TrainState
from jaxcnn.training.step import make_chunk
from jaxcnn.whole import write_whole

LOG = logging.getLogger("jaxcnn")

Measure = Callable[[Job, TrainState], dict[str, Any]]
"""What a study asks of a trained network beside its accuracy: numbers and lists of them, as JSON takes them. A function
of a module: its name is a part of the key under which a trial is kept, so another measure has another name."""
VERSION = 1
"""Of what is kept: another number, and all is trained anew."""


@dataclass(frozen=True)
class Trial:
    """A network, trained.

    Attributes:
      label: what it is called.
      seed: of its weights, order and draws.
      epochs: at which it was measured, in ascending order.
      train: its loss and top1 in training mode on the images that it trained on, since the epoch before.
      clean: the same of a part of the training images, as validation is measured; empty: none were.
      validation: of the weights at that epoch.
      objectives, grad_norms: of each step: the loss that it trained on, and the norm of its gradient.
      finite: whether it came to its end; if not, the figures are those of the last step that was finite.
      measured: what the study asked for.
      seconds: from the first step to the last figure, the program being compiled.
      device: what it was trained on.
    """

    label: str
    seed: int
    epochs: tuple[float, ...]
    train: tuple[dict[str, float], ...]
    clean: tuple[dict[str, float], ...]
    validation: tuple[dict[str, float], ...]
    objectives: tuple[float, ...]
    grad_norms: tuple[float, ...]
    finite: bool
    measured: dict[str, Any]
    seconds: float
    device: str

    @property
    def top1(self) -> float:
        """Top-1 on validation at the end, 0..1."""
        return self.validation[-1]["top1"]

    @property
    def train_top1(self) -> float:
        """Top-1 on training images at the end, 0..1: measured as validation is, where that was done."""
        return (self.clean or self.train)[-1]["top1"]

    @property
    def gap(self) -> float:
        """How much higher top-1 is on training images than on validation, at the end."""
        return self.train_top1 - self.top1


class Trials:
    """Trains, and keeps what it has trained in a folder; none: in none."""

    def __init__(self, folder: Path | None = None):
        self.folder = folder
        self._splits: dict[DataConfig, Splits] = {}
        self._seconds, self._kept = 0.0, 0
        self.devices: set[str] = set()
        """What its trials were trained on."""

    def run(
        self,
        label: str,
        config: TrainConfig,
        seeds: Sequence[int],
        measure: Measure | None = None,
        preprocess: Preprocessing | None = None,
    ) -> list[Trial]:
        """Returns the trials of a config, one a seed.

        Args:
          label: what they are called, and their files.
          config: its own seed does not count.
          seeds: one program serves them all.
          measure: called with the job and the state after the last step.
          preprocess: how images become the network's input; none: by the mean and std of the training images.

        Raises:
          InputError: the config does not fit its data.
          Interrupted: by Ctrl-C; what was trained is kept.
        """
        return self.run_each(label, [dataclasses.replace(config, seed=seed) for seed in seeds], measure, preprocess)

    def run_each(
        self,
        label: str,
        each: Sequence[TrainConfig],
        measure: Measure | None = None,
        preprocess: Preprocessing | None = None,
    ) -> list[Trial]:
        """Returns the trials of configs that may differ in seed, `init_from` and `data.per_class_draw`; as `run`."""
        configs = {config.seed: config for config in each}
        held = {seed: self._held(label, one, measure, preprocess) for seed, one in configs.items()}
        before = [trial for trial in held.values() if trial is not None]
        self._kept, self._seconds = self._kept + len(before), self._seconds + sum(trial.seconds for trial in before)
        missing = [seed for seed in configs if held[seed] is None]
        if missing:
            try:
                for seed, trial in self._trained(label, [configs[seed] for seed in missing], measure, preprocess):
                    held[seed] = trial
            except KeyboardInterrupt:
                place = "nothing is kept" if self.folder is None else f"what was trained is kept in {self.folder}"
                raise Interrupted(f"interrupted; {place}: the same command goes on from there") from None
        found = [trial for trial in held.values() if trial is not None]
        self.devices |= {trial.device for trial in found}
        return found

    def told(self, seconds: float) -> str:
        """Returns how long a study took, given its own `seconds`: what was read from disk counts as it did then."""
        if not self._kept:
            return f"{seconds:.0f} s"
        return f"{seconds + self._seconds:.0f} s, of which {self._seconds:.0f} s are of {self._kept} trials kept before"

    def job(self, config: TrainConfig, preprocess: Preprocessing | None = None) -> Job:
        """Returns the job of a config, without a word; splits are read once for all jobs."""
        with quietly():
            return build_job(config, splits=self.splits(config.data), preprocess=preprocess)

    def splits(self, data: DataConfig) -> Splits:
        """Returns the splits, decoded, in memory."""
        if data not in self._splits:
            with quietly():
                self._splits[data] = in_memory(open_splits(data), data)
        return self._splits[data]

    def _trained(
        self, label: str, configs: Sequence[TrainConfig], measure: Measure | None, preprocess: Preprocessing | None
    ) -> Iterator[tuple[int, Trial]]:
        program = None
        for config in configs:
            job = self.job(config, preprocess)
            if len(job.phases) > 1:
                raise ValueError(f"{label}: a trial has one phase")
            begun = time.perf_counter()
            with quietly():
                state = job.initial_state()
            if program is None:
                program, measured_by = _compiled(job, state), job.measured
            compiled = time.perf_counter()
            trial, state = _train(label, dataclasses.replace(job, measured=measured_by), program, state)
            if measure is not None:
                trial = dataclasses.replace(trial, measured=measure(job, state))
            job.feed.close()
            self._keep(trial, self._place(label, config, measure, preprocess))
            what = f"validation {100 * trial.top1:.1f} %" if trial.finite else "not finite"
            LOG.info(f"{label}, seed {config.seed}: {what}; {trial.seconds:.1f} s after {compiled - begun:.1f} s")
            yield config.seed, trial

    def _place(
        self, label: str, config: TrainConfig, measure: Measure | None, preprocess: Preprocessing | None = None
    ) -> Path | None:
        if self.folder is None:
            return None
        asked = "" if measure is None else f"{measure.__module__}.{measure.__qualname__}"
        if "<" in asked:
            raise ValueError(f"{asked}: a measure is a function of a module, so that its name says all of it")
        # TFDS data are known by their name, wherever they lie; a folder or a file by its place alone.
        data_dir = None if config.data.source == "tfds" else config.data.data_dir
        data = dataclasses.replace(config.data, data_dir=data_dir, cache_dir=None)
        what = to_json(dataclasses.replace(config, data=data)) + ("" if preprocess is None else f" {preprocess}")
        key = hashlib.sha256(f"{VERSION} {asked} {what}".encode()).hexdigest()[:10]
        return self.folder / f"{label}-{config.seed}-{key}.json"

    def _held(
        self, label: str, config: TrainConfig, measure: Measure | None, preprocess: Preprocessing | None
    ) -> Trial | None:
        place = self._place(label, config, measure, preprocess)
        if place is None or not place.is_file():
            return None
        try:
            notes = json.loads(place.read_text())
            fields: Any = {name: tuple(value) if isinstance(value, list) else value for name, value in notes.items()}
            return Trial(**fields)
        except (ValueError, TypeError):
            LOG.warning(f"warning: {place} is damaged: trained anew")
            return None

    def _keep(self, trial: Trial, place: Path | None) -> None:
        if place is None:
            return
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            write_whole(place, json.dumps(asdict(trial), default=float))
        except OSError as error:
            raise InputError(f"{place}: {error.strerror}") from None


def _compiled(job: Job, state: TrainState) -> Callable:
    """The compiled (state, sums, source, inputs, number of steps, seed) -> as a chunk of `make_chunk`."""

    def program(state: TrainState, sums: Any, source: Any, inputs: Any, num_steps: Any, seed: jax.Array) -> Any:
        return make_chunk(job.phases[0].seeded(seed), job.take)(state, sums, source, inputs, num_steps)

    jitted = jax.jit(
        program,
        donate_argnums=(0, 1),
        out_shardings=meshes.replicated(job.mesh),
        compiler_options=compiler_options(training=trains_backbone(state.params)),
    )
    arguments = (state, job.zero_sums(), job.feed.source, job.feed.inputs(0, 1), np.int32(0), np.int32(0))
    return jitted.lower(*arguments).compile()


def _train(label: str, job: Job, program: Callable, state: TrainState) -> tuple[Trial, TrainState]:
    begun, seed, step = time.perf_counter(), np.int32(job.config.seed), 0
    traces: dict[str, list[float]] = {"objective": [], "grad_norm": []}
    lines: list[dict[str, Any]] = []
    finite = True
    for boundary, epoch in _boundaries(job):
        sums = job.zero_sums()
        while step < boundary and finite:
            count = min(max(job.feed.rows, 1), boundary - step)
            inputs = job.feed.inputs(step, count)
            state, sums, brief = program(state, sums, job.feed.source, inputs, np.int32(count), seed)
            step += count
            finite = int(brief["nonfinite"]) == 0
            for name, values in jax.device_get(brief["trace"]).items():
                traces[name] += np.asarray(values)[:count].tolist()
        figures = {"train": divide(jax.device_get(sums)), **_measured(job, state)}
        lines.append({"epoch": epoch, **{name: _short(found) for name, found in figures.items()}})
        if not finite:
            break
    done = int(state.step) + (not finite)
    trial = Trial(
        label=label,
        seed=job.config.seed,
        epochs=tuple(line["epoch"] for line in lines),
        train=tuple(line["train"] for line in lines),
        clean=tuple(line["clean"] for line in lines if "clean" in line),
        validation=tuple(line["validation"] for line in lines),
        objectives=tuple(float(f"{value:.6g}") for value in traces["objective"][:done]),
        grad_norms=tuple(float(f"{value:.6g}") for value in traces["grad_norm"][:done]),
        finite=finite,
        measured={},
        seconds=time.perf_counter() - begun,
        device=job.mesh.devices.flat[0].device_kind,
    )
    return trial, state


def _boundaries(job: Job) -> list[tuple[int, float]]:
    """(step, epoch) of the evaluations; the end is always one."""
    every, epochs = job.config.evaluation.every_epochs, job.config.train.epochs
    points = {job.step_of(epoch): float(epoch) for epoch in range(every, int(epochs) + 1, every)}
    return sorted({**points, job.total_steps: float(epochs)}.items())


def _measured(job: Job, state: TrainState) -> dict[str, Any]:
    """Figures on validation and, if there are any, on clean training images."""
    places = {"validation": job.splits["validation"], **({} if job.clean is None else {"clean": job.clean})}
    size = job.config.evaluation.batch_size
    return {name: evaluate(job.measured, state.variables, split, size, job.mesh) for name, split in places.items()}


def _short(figures: dict[str, Any]) -> dict[str, float]:
    return {name: float(f"{float(figures[name]):.6g}") for name in ("loss", "top1")}
