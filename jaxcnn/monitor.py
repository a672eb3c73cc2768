"""What is watched while a run trains: figures of each layer every n steps, and steps whose loss is out of line.

A look is a program of its own beside the steps: it reads the state and the next batch and changes neither, so a run is
bit for bit the same with and without.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxcnn import processes
from jaxcnn.job import Job
from jaxcnn.training.health import alarms
from jaxcnn.writer import Writer

LOOK_STEPS = 2.0
"""What a look may cost at most, in steps: measured 1.2 to 1.8 (forward and backward pass, figures of each layer)."""
_WINDOW = 100  # steps a spike is compared with
_ENOUGH = 30
_MOST_TOLD = 20  # spikes in the log; health.jsonl has all


class Monitor:
    """Looks at the layers of a run, and at the loss of each step; writes health.jsonl."""

    def __init__(self, job: Job, writer: Writer):
        self._job, self._writer = job, writer
        self.every = looks_every(job)
        self.looks, self.seconds, self.compile_seconds = 0, 0.0, 0.0
        self._compiled: Callable | None = None
        self._compiling: threading.Thread | None = None
        self._phase = -1
        self._begun = 0.0
        self._spikes_told = 0
        self._alarmed: dict[str, str] = {}
        self._told: set[str] = set()
        self._spikes = Spikes(job.config.health.spike_factor)

    def begin(self, inputs: Any, phase: int) -> None:
        """Starts to compile for the steps of a phase, beside the first of them where looks are a default.

        Args:
          inputs: of the form that the feed gives.
          phase: whose steps come next.
        """
        if not self.every or (self._phase == phase and self._compiled is not None):
            return
        self.close()
        self._phase, self._compiled = phase, None
        shapes = self._job.state_shapes(phase)
        if self._job.config.health.every_steps is None and jax.process_count() == 1:
            self._compiling = threading.Thread(
                target=self._compile, args=(shapes, inputs, phase), name="look", daemon=True
            )
            self._compiling.start()
        else:
            self._compile(shapes, inputs, phase)
            if processes.agree_on_steps(0, self._compiled is None)[1]:
                self._compiled = None  # all look or none does: a look adds over all devices

    def _compile(self, shapes: Any, inputs: Any, phase: int) -> None:
        began = time.perf_counter()
        try:
            self._compiled = self._job.compile_look(shapes, inputs, phase)
        except jax.errors.JaxRuntimeError as error:  # for want of memory, most likely: the run can do without
            self._writer.say(f"warning: the layers are not looked at, as the program did not compile: {error}")
        self.compile_seconds += time.perf_counter() - began
        self._begun = time.perf_counter()

    @property
    def is_compiling(self) -> bool:
        """Whether a thread is in the compiler."""
        return self._compiling is not None and self._compiling.is_alive()

    def close(self) -> None:
        """Waits for the compiler: a process must not end while a thread is in it."""
        if self._compiling is not None:
            self._compiling.join()
            self._compiling = None

    def until_look(self, step: int) -> int:
        """Returns how many steps may be sent before the next look."""
        return self.every - step % self.every if self.every else 2**31

    def is_due(self, step: int) -> bool:
        """Returns whether the layers are to be looked at before the step that follows `step` others.

        Where steps are so short that a look with its writing takes more than `health.share` of the time, some are left
        out; not with several processes, which must agree.
        """
        if not self.every or step % self.every or self._compiled is None:
            return False
        config = self._job.config.health
        if config.every_steps is not None or jax.process_count() > 1 or not self.looks:
            return True
        return self.seconds <= config.share * (time.perf_counter() - self._begun)

    def look(self, state: Any, inputs: Any, step: int) -> None:
        """Records the figures of the step that comes next; `inputs` are its own and maybe those of steps after it."""
        began = time.perf_counter()
        assert self._compiled is not None
        figures = jax.tree.map(float, jax.device_get(self._compiled(state, self._job.feed.source, inputs)))
        del figures["nonfinite"]  # of steps that go wrong, which have a line of their own
        self._writer.health({"step": step, **jax.tree.map(_plain, figures)})
        self.looks += 1
        self.seconds += time.perf_counter() - began
        now = alarms(figures)
        for what in sorted(now.keys() & self._alarmed.keys() - self._told):  # twice in a row: no chance of one batch
            self._writer.say(f"health, step {step}: {now[what]}")
            self._told.add(what)
        self._alarmed = now

    def after(self, last_step: int, count: int, objectives: np.ndarray) -> None:
        """Takes the losses of `count` steps, the last of which was number `last_step`, and tells of spikes."""
        for place, (loss, expected) in self._spikes.found(objectives[:count]):
            step = last_step - count + place
            examples = self._job.examples_of(step)
            event = {"step": step, "loss": loss, "expected": expected, "examples": examples}
            self._writer.health({"event": "loss_spike", **event})
            self._spikes_told += 1
            if self._spikes_told > _MOST_TOLD:
                continue
            self._writer.say(
                f"loss spike in step {step}: {loss:.4g}, the median before it {expected:.4g}; examples "
                f"{', '.join(map(str, examples[:4]))}, ... (all in health.jsonl)"
            )

    def end(self) -> dict[str, Any] | None:
        """Returns what the looks have cost; none if there were none."""
        self.close()
        if not self.looks:
            return None
        return {"looks": self.looks, "every_steps": self.every, "seconds": self.seconds,
                "compile_seconds": self.compile_seconds}  # fmt: skip


def looks_every(job: Job) -> int:
    """Returns the number of steps between looks; 0: none, also where a run is too short for one."""
    config = job.config.health
    if config.every_steps is not None:
        return config.every_steps
    every = math.ceil(LOOK_STEPS / config.share)
    return every if every < job.total_steps else 0


def _plain(figure: float) -> float | None:
    """A figure as JSON has it: six digits, none for what is not finite."""
    return float(f"{figure:.6g}") if math.isfinite(figure) else None


class Spikes:
    """Finds losses that rise out of the range of those before them."""

    def __init__(self, factor: float):
        self._factor = factor
        self._before: deque[float] = deque(maxlen=_WINDOW)
        self._was_spike = False

    def found(self, losses: np.ndarray) -> list[tuple[int, tuple[float, float]]]:
        """Returns (place, (loss, median before it)) of the first loss of each spike.

        A loss is one where it is above the median of the last 100 by more than factor times the range from their 5th
        to their 95th percentile; the range is widened by a tenth of the median, so that a flat curve raises no alarm.
        """
        spikes = []
        for place, loss in enumerate(losses.tolist()):
            is_spike = False
            if len(self._before) >= _ENOUGH and math.isfinite(loss):
                low, median, high = np.percentile(self._before, (5, 50, 95))
                is_spike = loss > median + self._factor * (high - low + 0.1 * median)
                if is_spike and not self._was_spike:
                    spikes.append((place, (loss, float(median))))
            self._was_spike = is_spike
            self._before.append(loss)
        return spikes
