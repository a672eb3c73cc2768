"""Training: the only place that knows time and cadence."""

import math
import shlex
import time
from collections.abc import Callable
from typing import Any, NoReturn

import jax
import numpy as np

from jaxcnn.certificate import Certificate
from jaxcnn.checkpoint import Checkpoints
from jaxcnn.drawings import Drawings
from jaxcnn.errors import InputError, Interrupted, RunFailed
from jaxcnn.figures import Figures
from jaxcnn.job import Job
from jaxcnn.monitor import Monitor
from jaxcnn.nonfinite import failed_step, in_json, save, told
from jaxcnn.pace import Ending, Pace, StopRequest, Stopwatch
from jaxcnn.progress import Progress
from jaxcnn.run_folder import RunFolder
from jaxcnn.trace import StepTrace
from jaxcnn.training.metrics import Sums
from jaxcnn.training.state import TrainState, from_trees, to_trees
from jaxcnn.writer import LOG, Writer


class Trainer:
    """One run from its first or its restored step to its end."""

    def __init__(self, job: Job, folder: RunFolder, stop: StopRequest, *, trace: StepTrace | None, started: float):
        self.job, self.folder, self.stop, self.trace = job, folder, stop, trace
        self.started = started
        self.checkpoints = Checkpoints(folder.checkpoints)
        self.progress = Progress()
        self.seconds_to_first_step: float | None = None
        self.compile_seconds = 0.0
        self.certificate = Certificate(folder)
        self.state, self.sums = self._first_state()
        self.step = int(self.state.step)
        self.writer = Writer(folder, job.total_steps, self.step)
        self.pace = Pace(job.feed.rows)
        self.watch = Stopwatch()
        self.drawings = Drawings(folder, job.network.class_names)
        self.figures = Figures(job)
        self.monitor = Monitor(job, self.writer)
        self.saved_step = self.step if self.step else -1
        if trace is not None and trace.last < self.step:
            raise InputError(f"--profile {trace.first}:{trace.last}: the run is at step {self.step} already")

    def _first_state(self) -> tuple[TrainState, Sums]:
        """The state to start from: that of the newest whole checkpoint, else that before step 0."""
        sums = self.job.zero_sums()
        restored = self.checkpoints.restore_newest(self._templates, LOG.warning)
        if restored is None:
            self.folder.cut_metrics(0)
            return self.job.initial_state(), sums
        trees, notes = restored
        self.progress = Progress(**notes)
        state, sums = from_trees(trees, self.job.phases[self.progress.phase].rule)
        self.folder.cut_metrics(int(state.step))
        LOG.info(f"{self.folder.path}: going on from step {int(state.step)} of {self.job.total_steps}")
        return state, sums

    def _templates(self, progress: dict[str, Any]) -> dict[str, Any]:
        """The form of a checkpoint: what has an optimizer state and an average depends on the phase."""
        return to_trees(self.job.state_shapes(progress.get("phase", 0)), self.job.zero_sums())

    def run(self) -> dict[str, Any]:
        """Trains to the end and returns the result, which is also in result.json."""
        boundaries = [] if self.progress.stopped_early else self._boundaries()
        if not boundaries and (result := self.folder.result()) is not None:
            self.certificate.check()
            return result  # it was finished before
        compiled = None
        for boundary, epoch in boundaries:
            if compiled is None or self.job.phase_at(self.step) != self.progress.phase:
                compiled = self._compile()
            self._train_until(compiled, boundary)
            self._evaluate(epoch)
            if self.progress.stopped_early:
                break
        if self.trace is not None:
            self.trace.end()
        result = self._result()
        self.checkpoints.close()
        self.writer.close()
        return result

    def _compile(self) -> Callable:
        """The program of the steps that follow, after what they thaw is thawed."""
        job, phase = self.job, self.job.phase_at(self.step)
        if phase != self.progress.phase:
            self.certificate.end(self.step, self.state.frozen)
            self.state = job.go_on(self.state, phase)
            self.progress.phase = phase
        self.certificate.begin(phase, self.step, self.state.frozen)
        begun = time.perf_counter()
        inputs = job.feed.inputs(self.step, 1)
        compiled = job.compile_chunk(self.state, self.sums, phase, inputs)
        seconds = time.perf_counter() - begun
        self.compile_seconds += seconds
        if len(job.phases) > 1:
            numbers = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(self.state.params))
            self.writer.say(
                f"phase {phase + 1} of {len(job.phases)} from step {self.step}: {numbers:,} parameters train; "
                f"compiled in {seconds:.1f} s"
            )
        self.monitor.begin(inputs, phase)
        self.pace, self.watch = Pace(job.feed.rows), Stopwatch()
        return compiled

    def _boundaries(self) -> list[tuple[int, float]]:
        """(step, epoch) of the evaluations still to come; the end of the run is always one."""
        job, every = self.job, self.job.config.evaluation.every_epochs
        epochs = [float(epoch) for epoch in range(every, math.floor(job.config.train.epochs) + 1, every)]
        epochs += [phase.epoch for phase in job.phases[1:]]
        points = {job.step_of(epoch): epoch for epoch in epochs}
        points.setdefault(job.total_steps, float(job.config.train.epochs))
        # A checkpoint at a boundary was written after its evaluation, one between boundaries before the next.
        return [(step, epoch) for step, epoch in sorted(points.items()) if step > self.step]

    def _train_until(self, compiled: Callable, boundary: int) -> None:
        running: tuple[int, Any, Ending] | None = None
        while self.step < boundary:
            count = min(self.pace.steps, boundary - self.step, self.monitor.until_look(self.step))
            if self.trace is not None:
                count = self.trace.before(self.step, count)
            began = time.perf_counter()
            inputs = self.job.feed.inputs(self.step, count)
            self.watch.waited += time.perf_counter() - began if running is None else running[2].waited(began)
            if self.monitor.is_due(self.step):
                if running is not None:
                    self._finished(*running[:2])
                    running = self.pace.last_end = None  # so that the look is not taken for steps
                self.monitor.look(self.state, inputs, self.step)
            self.state, self.sums, brief = compiled(
                self.state, self.sums, self.job.feed.source, inputs, np.int32(count)
            )
            self.step += count
            self.watch.examples += count * self.job.config.train.batch_size
            if running is not None:
                self._finished(*running[:2])
            running = (count, brief, Ending(brief["step"]))
            first = self.seconds_to_first_step is None
            if first or self.stop.requested or (self.trace is not None and self.trace.wants_sync(self.step)):
                self._finished(*running[:2])
                running = None
                if self.trace is not None:
                    self.trace.after(self.step)
            if self.stop.requested and self.step < boundary:  # at a boundary the evaluation comes first
                self._interrupt()
        if running is not None:
            self._finished(*running[:2])
        self.pace.last_end = None

    def _finished(self, count: int, brief: dict[str, jax.Array]) -> None:
        """Waits for a dispatch, shows its figures, and stops the run if they are not finite."""
        trace = jax.device_get(brief.pop("trace"))
        figures = {name: float(value) for name, value in brief.items()}
        now = time.perf_counter()
        self.pace.measured(count, now)
        if self.seconds_to_first_step is None:
            self.seconds_to_first_step = now - self.started
        done = int(figures["examples"]) // self.job.config.train.batch_size - int(figures["nonfinite"])
        self.monitor.after(int(figures["step"]), done, trace["objective"])
        if figures["nonfinite"]:
            self._fail_in_step()
        loss = figures["loss"] / figures["examples"]
        if not math.isfinite(loss):
            self._fail(f"the training loss is {loss} by step {int(figures['step'])}")
        self.writer.progress(int(figures["step"]), loss, figures["top1"] / figures["examples"])

    def _fail_in_step(self) -> NoReturn:
        """Saves the step that is not finite: the state is the one before it, whatever was sent after it."""
        failed = failed_step(self.job, self.state, self.progress.phase)
        save(failed, self.folder)
        what = told(failed.notes)
        self.writer.health({"event": "nonfinite", "what": what, **in_json(failed.notes)})
        self._fail(f"{what}; saved, `jaxcnn replay {shlex.quote(str(self.folder.path))}` does it again")

    def _fail(self, what: str) -> NoReturn:
        self.checkpoints.wait()
        if self.folder.metrics():
            self.drawings.draw({}, self.step, failed=True)
        raise RunFailed(
            f"{what}: lower optim.peak_lr ({self.job.config.optim.peak_lr:g}) or set optim.clip_norm; "
            f"checkpoints of {self.folder.path}: {self.checkpoints.steps() or 'none'}"
        )

    def _evaluate(self, epoch: float) -> None:
        job = self.job
        timing = self.watch.figures()
        sums = jax.device_get(self.sums)
        measured = self.figures.measure(self.state, ["validation", "clean"])
        validation = measured["validation"]
        if not math.isfinite(validation["loss"]):
            what = f"the validation loss is {validation['loss']} at step {self.step}"
            self.writer.health({"event": "nonfinite", "what": what, "step": self.step})
            self._fail(what)
        is_best = self.progress.judge(self.step, epoch, validation["top1"])
        self.writer.evaluation(self.figures.line(self.step, epoch, sums, measured, timing))
        self.drawings.record(self.figures.confusion, self.step)
        patience = job.config.train.patience_epochs
        waited = epoch - max(self.progress.higher_epoch, job.phases[-1].epoch)  # no run ends before its last phase
        self.progress.stopped_early = patience is not None and waited >= patience
        if self.progress.stopped_early:
            self.writer.say(f"stopped: no higher validation top-1 for {waited:g} epochs")
        self.sums = job.zero_sums()
        last = self.step == job.total_steps or self.progress.stopped_early
        if is_best or last or round(epoch) % job.config.train.save_every_epochs == 0:
            self._save(validation)
        if not last and self.drawings.due:  # at the end the result draws
            self.drawings.draw(self.figures.confusion, self.step)
        self.watch = Stopwatch()
        if self.stop.requested and not last:
            self._interrupt()

    def _save(self, figures: dict[str, Any] | None) -> None:
        notes = {**vars(self.progress), "seconds": self._seconds()}
        self.checkpoints.save(self.step, to_trees(self.state, self.sums), notes, figures)
        self.saved_step = self.step

    def _seconds(self) -> float:
        return self.progress.seconds + time.perf_counter() - self.started

    def _interrupt(self) -> NoReturn:
        if self.trace is not None:
            self.trace.end()
        if self.saved_step != self.step:
            self._save(None)
        self.checkpoints.close()
        self.writer.close()
        raise Interrupted(
            f"interrupted and saved at step {self.step} of {self.job.total_steps}; "
            f"go on with: python train.py --workdir {shlex.quote(str(self.folder.path))} --resume"
        )

    def _result(self) -> dict[str, Any]:
        """Measures the best weights on validation and test, and writes result.json."""
        self.checkpoints.wait()
        self.certificate.end(self.step, self.state.frozen)
        assert self.progress.best is not None
        best, state, phase = int(self.progress.best["step"]), self.state, self.progress.phase
        final = self.figures.measure(state)
        if best != self.step:
            trees, notes, best = self.checkpoints.restore_best(self._templates, LOG.warning)
            phase = notes.get("phase", 0)
            state = from_trees(trees, self.job.phases[phase].rule)[0]
        ours = {
            "stopped_early": self.progress.stopped_early,
            "seconds": self._seconds(),
            "seconds_to_first_step": self.seconds_to_first_step,
            "compile_seconds": self.compile_seconds,
            "certificate": self.certificate.report(),
            "health": self.monitor.end(),
        }
        figures = final if best == self.step else self.figures.measure(state)
        result = self.figures.result(state, phase, best, figures, self.step, final, self.folder.metrics())
        result |= ours
        self.drawings.record(self.figures.confusion, best)
        self.folder.write_json("result.json", result)
        self.drawings.draw(self.figures.confusion, best)
        self.certificate.check()
        return result


def train(
    job: Job, folder: RunFolder, stop: StopRequest, *, trace: StepTrace | None = None, started: float | None = None
) -> dict[str, Any]:
    """Trains a job in a run folder, from its newest checkpoint if it has one, and returns the result.

    Args:
      job: what to train.
      folder: where; locked for this process.
      stop: asked between dispatches whether to save and end.
      trace: steps to profile.
      started: when the command began (`time.perf_counter()`), for the seconds to the first step.

    Raises:
      Interrupted: `stop` was requested and the run is saved.
      RunFailed: the loss is not finite, or a checkpoint could not be written.
    """
    began = time.perf_counter() if started is None else started
    trainer = Trainer(job, folder, stop, trace=trace, started=began)
    try:
        return trainer.run()
    except OSError as error:  # of metrics.jsonl, curves.png and the like; checkpoints tell their own
        steps = trainer.checkpoints.steps() or "none"
        raise RunFailed(f"{folder.path}: {error.strerror or error}; checkpoints: {steps}") from error
    finally:
        trainer.monitor.close()
        job.feed.close()
