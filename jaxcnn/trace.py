"""A jax.profiler trace of chosen steps, for TensorBoard or Perfetto."""

from pathlib import Path

import jax

from jaxcnn.errors import InputError


class StepTrace:
    """Traces the steps first..last (counted from 0, both included) into a folder."""

    def __init__(self, first: int, last: int, folder: Path):
        self.first, self.last, self.folder = first, last, folder
        self._on = False

    @classmethod
    def parse(cls, text: str, folder: Path) -> "StepTrace":
        """Returns the trace of "FIRST:LAST"; raises InputError for anything else."""
        first, colon, last = text.partition(":")
        if not (colon and first.isdecimal() and last.isdecimal() and int(first) <= int(last)):
            raise InputError(f"--profile {text}: give the steps to trace as FIRST:LAST, for instance 20:30")
        return cls(int(first), int(last), folder)

    def before(self, step: int, count: int) -> int:
        """Called before `count` steps from `step` are sent; returns how many may be in one dispatch."""
        if step < self.first:
            return min(count, self.first - step)
        if step <= self.last:
            if not self._on:
                jax.profiler.start_trace(str(self.folder))
                self._on = True
            return min(count, self.last + 1 - step)
        return count

    def wants_sync(self, step: int) -> bool:
        """Called after steps up to `step` were sent; returns whether to wait for them, and then ends the trace."""
        return step == self.first or self._on

    def after(self, step: int) -> None:
        """Called when steps up to `step` are done."""
        if step > self.last:
            self.end()

    def end(self) -> None:
        """Writes the trace, if one is being taken."""
        if self._on:
            jax.profiler.stop_trace()
            self._on = False
