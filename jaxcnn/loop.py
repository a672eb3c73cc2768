"""Training: the only place that knows time and cadence."""

import contextlib
import math
import shlex
import time
from collections.abc import Callable
from typing import Any, NoReturn

import jax
import numpy as np

from jaxcnn import processes
from jaxcnn.boundaries import boundaries
from jaxcnn.certificate import Certificate
from jaxcnn.drawings import Drawings
from jaxcnn.errors import InputError, Interrupted, RunFailed
from jaxcnn.figures import Figures
from jaxcnn.interruption import StopRequest
from jaxcnn.job import Job
from jaxcnn.monitor import Monitor
from jaxcnn.nonfinite import failed_step, in_json, save, told
from jaxcnn.pace import Ending, Pace, Stopwatch
from jaxcnn.run_folder import RunFolder, going_on
from jaxcnn.saves import Saves
from jaxcnn.trace import StepTrace
from jaxcnn.training.learning_rates import peak_told
from jaxcnn.writer import Writer


class Trainer:
    """One run from its first or its restored step to its end."""

    def __init__(self, job: Job, folder: RunFolder, stop: StopRequest, *, trace: StepTrace | None, started: float):
        self.job, self.folder, self.stop, self.trace = job, folder, stop, trace
        self.started = started
        self.seconds_to_first_step: float | None = None
        self.compile_seconds = 0.0
        self.certificate = Certificate(folder)
        self.saves = Saves(job, folder, started)
        self.state, self.sums = self.saves.first_state()
        self.progress = self.saves.progress
        self.step = int(self.state.step)
        self.writer = Writer(folder, job.total_steps, self.step)
        self.pace = Pace(job.feed.rows)
        self.watch = Stopwatch()
        self.drawings = Drawings(folder, job.network.class_names)
        self.figures = Figures(job, self._between_batches)
        self.monitor = Monitor(job, self.writer)
        if trace is not None and trace.last < self.step:
            raise InputError(f"--profile {trace.first}:{trace.last}: the run is at step {self.step} already")

    def run(self) -> dict[str, Any]:
        """Trains to the end and returns the result, which is also in result.json."""
        done = self.progress.stopped_early
        left = [] if done else boundaries(self.job, self.step, evaluated=self.progress.evaluated)
        if not left and (result := self.folder.result()) is not None:
            self.certificate.check()
            return result  # it was finished before
        compiled = None
        for boundary, epoch in left:
            if self.step < boundary:
                if compiled is None or self.job.phase_at(self.step) != self.progress.phase:
                    compiled = self._compile()
                self._train_until(compiled, boundary)
            self._evaluate(epoch)
            if self.progress.stopped_early:
                break
        if self.trace is not None:
            self.trace.end()
        result = self._result()
        self.saves.checkpoints.close()
        self.writer.close()
        return result

    def _stops(self) -> bool:
        """Whether to save and end now, in all processes: the one question of the loop, asked once a dispatch."""
        return processes.agree_on_steps(0, self.stop.requested)[1]

    def _steps_of_dispatch(self, boundary: int) -> int:
        """How many steps to send: the one number that follows the clock, which is that of the first process."""
        count = min(self.pace.steps, boundary - self.step, self.monitor.until_look(self.step))
        count = count if self.trace is None else self.trace.before(self.step, count)
        return processes.agree(count, "steps of a dispatch")

    def _anywhere(self) -> contextlib.AbstractContextManager[None]:
        """A place that may be left at any moment, since `state`, `sums` and `step` belong together and stay.

        Several processes save together or not at all: they leave between dispatches only.
        """
        return self.stop.anywhere(self._leave) if processes.count() == 1 else contextlib.nullcontext()

    def _between_batches(self) -> None:
        """Ends the run, if it is asked to, between two batches of what is measured; it is measured again then."""
        if self._stops():
            self._interrupt()

    def _leave(self) -> str:
        """Saves what would be lost, closes the files, and returns the line that says how to go on."""
        line = self.saves.interrupted(self.step, self.state, self.sums)
        self.writer.close()
        return line

    def _interrupt(self) -> NoReturn:
        self.stop.answered()
        if self.trace is not None:
            self.trace.end()
        raise Interrupted(self._leave())

    def _compile(self) -> Callable:
        """The program of the steps that follow, after what they thaw is thawed."""
        job, phase = self.job, self.job.phase_at(self.step)
        if phase != self.progress.phase:
            self.certificate.end(self.step, self.state.frozen)
            self.state = job.go_on(self.state, phase)
            self.progress.phase = phase
        self.certificate.begin(phase, self.step, self.state.frozen)
        begun = time.perf_counter()
        with self._anywhere():
            inputs = job.feed.inputs(self.step, 1)
            compiled = job.compile_chunk(self.state, self.sums, phase, inputs)
            seconds = time.perf_counter() - begun
            self.monitor.begin(inputs, phase)
        self.compile_seconds += seconds
        if len(job.phases) > 1:
            numbers = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(self.state.params))
            self.writer.say(
                f"phase {phase + 1} of {len(job.phases)} from step {self.step}: {numbers:,} parameters train; "
                f"compiled in {seconds:.1f} s"
            )
        self.pace, self.watch = Pace(job.feed.rows), Stopwatch()
        return compiled

    def _train_until(self, compiled: Callable, boundary: int) -> None:
        running: tuple[int, Any, Ending] | None = None
        while self.step < boundary:
            count = self._steps_of_dispatch(boundary)
            began = time.perf_counter()
            with self._anywhere():  # workers may be slow
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
            self.progress.evaluated = False
            self.watch.examples += count * self.job.config.train.batch_size
            if running is not None:
                self._finished(*running[:2])
            running = (count, brief, Ending(brief["step"]))
            stops = self._stops()
            first = self.seconds_to_first_step is None
            if first or stops or (self.trace is not None and self.trace.wants_sync(self.step)):
                self._finished(*running[:2])
                running = None
                if self.trace is not None:
                    self.trace.after(self.step)
            if stops and self.step < boundary:
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
        self.saves.checkpoints.wait()
        if self.folder.metrics():
            self.drawings.draw({}, self.step, failed=True)
        raise RunFailed(
            f"{what}: lower optim.peak_lr ({peak_told(self.job.config)}) or set optim.clip_norm; "
            f"checkpoints of {self.folder.path}: {self.saves.checkpoints.steps() or 'none'}"
        )

    def _evaluate(self, epoch: float) -> None:
        job = self.job
        if self.watch.examples:
            self.progress.timing = self.watch.figures()
        timing = self.progress.timing or self.watch.figures()
        sums = jax.device_get(self.sums)
        with self._anywhere():
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
        self.progress.evaluated, self.progress.timing = True, None
        last = self.step == job.total_steps or self.progress.stopped_early
        if is_best or last or round(epoch) % job.config.train.save_every_epochs == 0:
            self.saves.save(self.step, self.state, self.sums, validation)
        if not last:  # at the end the result draws, and may be left at any moment
            if self._stops():
                self._interrupt()
            if self.drawings.due:
                self.drawings.draw(self.figures.confusion, self.step)
        self.watch = Stopwatch()

    def _result(self) -> dict[str, Any]:
        """Measures the best weights on validation and test, and writes result.json."""
        self.saves.checkpoints.wait()
        with self._anywhere():
            self.certificate.end(self.step, self.state.frozen)
            final = self.figures.measure(self.state)
            best, state, phase = self.saves.best(self.step, self.state)
            figures = final if best == self.step else self.figures.measure(state)
            result = self.figures.result(state, phase, best, figures, self.step, final, self.folder.metrics())
            result |= {
                "stopped_early": self.progress.stopped_early,
                "seconds": self.saves.seconds(),
                "seconds_to_first_step": self.seconds_to_first_step,
                "compile_seconds": self.compile_seconds,
                "certificate": self.certificate.report(),
                "health": self.monitor.end(),
            }
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
    with stop.anywhere(lambda: f"interrupted before the first step of this start; go on with: {going_on(folder)}"):
        trainer = Trainer(job, folder, stop, trace=trace, started=began)
    try:
        return trainer.run()
    except OSError as error:  # of metrics.jsonl, curves.png and the like; checkpoints tell their own
        steps = trainer.saves.checkpoints.on_disk() or "none"
        raise RunFailed(f"{folder.path}: {error.strerror or error}; checkpoints: {steps}") from error
    except Interrupted as interruption:
        if trainer.monitor.is_compiling:  # which may take minutes, and Python does not end while a thread is in XLA
            job.feed.close()
            stop.end(str(interruption))
        raise
    finally:
        trainer.monitor.close()
        job.feed.close()
