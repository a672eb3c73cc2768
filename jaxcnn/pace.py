"""The clock of a run: how many steps to send at once, and what the device waited for."""

import contextlib
import threading
import time
from dataclasses import dataclass, field

import jax

_DISPATCH_SECONDS = 2.0
"""Aimed-at length of a dispatch: how long a signal may wait. On CPU each dispatch takes its temporary memory anew from
the system, which costs ResNet-20 50 ms (206 MB, 50,000 page faults): 12 % of one step, 3 % of two seconds."""


class Ending:
    """When the device is done with a dispatch: `at` is the time, or none while it is at it."""

    def __init__(self, result: jax.Array):
        self.at: float | None = None
        threading.Thread(target=self._wait, args=(result,), daemon=True).start()

    def _wait(self, result: jax.Array) -> None:
        with contextlib.suppress(Exception):  # whoever reads the result meets it
            result.block_until_ready()
        self.at = time.perf_counter()

    def waited(self, began: float) -> float:
        """Returns the seconds since `began` in which the device has had nothing to do."""
        return 0.0 if self.at is None else max(0.0, time.perf_counter() - max(began, self.at))


@dataclass
class Pace:
    """How many steps to send at once: as many as take `_DISPATCH_SECONDS`, by the last measurement."""

    limit: int
    steps: int = 1
    last_end: float | None = None

    def measured(self, num_steps: int, end: float) -> None:
        if self.last_end is not None:
            seconds = max(end - self.last_end, 1e-6) / num_steps
            self.steps = max(1, min(self.limit, 4 * self.steps, int(_DISPATCH_SECONDS / seconds)))
        self.last_end = end


@dataclass
class Stopwatch:
    """Wall time since the last evaluation, and the part of it in which the device had nothing to do."""

    start: float = field(default_factory=time.perf_counter)
    waited: float = 0.0
    examples: int = 0

    def figures(self) -> dict[str, float]:
        seconds = max(time.perf_counter() - self.start, 1e-9)
        return {"images_per_second": self.examples / seconds, "data_wait_share": min(self.waited / seconds, 1.0)}
