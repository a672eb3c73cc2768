"""The clock of a run: how many steps to send at once, what the device waited for, and when to stop."""

import contextlib
import signal
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import jax

from jaxcnn.errors import Interrupted

_DISPATCH_SECONDS = 2.0
"""Aimed-at length of a dispatch: how long a signal may wait. On CPU each dispatch takes its temporary memory anew from
the system, which costs ResNet-20 50 ms (206 MB, 50,000 page faults): 12 % of one step, 3 % of two seconds."""


class StopRequest:
    """Turns the first SIGTERM or Ctrl-C into a request to save and stop; a second Ctrl-C stops at once."""

    def __init__(self) -> None:
        self.requested = False
        self.immediate = False
        """Whether to stop at once, because there is nothing to save yet."""
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Raises Interrupted if a stop was requested before there is anything to save."""
        if self.requested:
            raise Interrupted("interrupted before the first step: nothing is lost; start it again")

    def _receive(self, number: int, frame: Any) -> None:
        if self.immediate:
            self.requested = True  # for `check`: what is raised in the midst of a library may be lost there
            self.check()
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True


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
