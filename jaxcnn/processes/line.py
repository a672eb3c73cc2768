"""A process's end of the line: calls that all make in the same order; the guard that ends a run of which one died."""

import contextlib
import multiprocessing
import os
import sys
import threading
import time
from dataclasses import asdict
from typing import Any

from jaxcnn.errors import EXIT_INTERRUPTED
from jaxcnn.processes.hub import Hub
from jaxcnn.processes.wire import (
    BEAT_SECONDS,
    GRACE_SECONDS,
    SAVING_SECONDS,
    Process,
    Pulse,
    Verdict,
    Wire,
    silence_of,
    stood_still,
)
from jaxcnn.whole import remove_parts


class Line:
    """A process's end of the line. Every process has one; the first has the hub besides."""

    def __init__(self, index: int, table: tuple[Process, ...], *, wire: Wire | None, hub: Hub | None, patience: float):
        self.index, self.table = index, table
        self.advice = ""
        """What is said after the line that ends a run: where the checkpoints are, how to go on."""
        self._wire, self._hub, self._patience = wire, hub, patience
        self._changed = threading.Condition()
        self._answers: dict[int, dict[str, Any]] = {}
        self._num_calls = 0
        self._heard = time.monotonic()
        self._pulse = Pulse(patience / 2)
        self._verdict: Verdict | None = None
        self._all_left: str | None = None
        self._failed = False
        if hub is not None:
            hub.deliver = self._deliver
            hub.begin()
        else:
            threading.Thread(target=self._read, daemon=True).start()
        threading.Thread(target=self._guard, daemon=True).start()

    def call(self, name: str, value: Any = None, *, flag: bool = False, gather: bool = False) -> tuple[Any, bool]:
        """Returns the first process's value (of all, in order, if `gather`) and whether any raised its flag."""
        self._num_calls += 1
        number = self._num_calls
        self._send({"call": number, "name": name, "value": value, "flag": flag, "gather": gather})
        with self._changed:
            while number not in self._answers:
                self._changed.wait(0.5)  # in pieces, so that a signal is handled meanwhile
            answer = self._answers.pop(number)
        if "mismatch" in answer:
            raise RuntimeError(f"the processes have come to different points: {answer['mismatch']}")
        return answer["value"], answer["any"]

    def leave(self, code: int, line: str) -> str | None:
        """Says that this process ends, waits until all do, and returns with what line the first process has.

        A process that has failed waits no longer than the others may take; one that is done, as long as they need.
        """
        self._failed = code != 0
        self._send({"left": code, "line": line})
        deadline = time.monotonic() + (SAVING_SECONDS if code == EXIT_INTERRUPTED else GRACE_SECONDS) + 2.0
        with self._changed:
            while self._all_left is None and not (
                self._failed and (self._verdict is not None or time.monotonic() > deadline)
            ):
                self._changed.wait(0.5)
        if self._all_left is None and self._hub is not None:
            self._hub.wait_for_others(3.0)
        return self._all_left

    def announce(self, code: int, line: str) -> None:
        """Says that this process ends at this moment, and so do all: from any thread, without waiting for the main."""
        self._failed = True
        self._send({"left": code, "line": line, "now": True})
        with self._changed:
            self._changed.wait_for(lambda: self._verdict is not None, 1.0)  # what is sent and not read may be lost
        if self._hub is not None:
            self._hub.wait_for_others(2.0)

    def wait_for_verdict(self, seconds: float) -> None:
        """Gives the line time to say who has died: if it does, this does not return."""
        with self._changed:
            self._changed.wait_for(lambda: False, seconds)

    def _send(self, message: dict[str, Any]) -> None:
        if self._hub is not None:
            self._hub.receive(0, message)
        elif self._wire is not None:
            self._wire.send(message)

    def _read(self) -> None:
        assert self._wire is not None
        while (message := self._wire.receive()) is not None:
            self._heard = time.monotonic()
            self._deliver(message)
        if still := self._pulse.stood_still():
            self._decide(self.index, stood_still(self.table[self.index], still))
        else:
            self._decide(0, f"{self.table[0]} has died")

    def _decide(self, index: int, line: str) -> None:
        self._deliver({"verdict": asdict(Verdict(index, line, EXIT_INTERRUPTED))})

    def _deliver(self, message: dict[str, Any]) -> None:
        with self._changed:
            if "answer" in message:
                self._answers[message["answer"]] = message
            elif "all_left" in message:
                self._all_left = message["all_left"]
            elif "verdict" in message and self._verdict is None and self._all_left is None:
                self._verdict = Verdict(**message["verdict"])
            self._changed.notify_all()

    def _guard(self) -> None:
        """Beats, looks whether the others do, and ends this process when the run is over."""
        last_beat = time.monotonic()
        while self._verdict is None or self._failed:
            with self._changed:
                self._changed.wait_for(lambda: self._verdict is not None and not self._failed, 0.5)
            now = time.monotonic()
            if self._hub is not None:
                self._hub.watch()
            elif self._pulse.beat():  # this process stood still itself: what it has not heard says nothing
                self._heard = now
            elif now - self._heard > self._patience and self._all_left is None:
                self._decide(0, silence_of(self.table[0], self._patience))
            if now - last_beat >= BEAT_SECONDS:
                last_beat = now
                self._hub.beat() if self._hub is not None else self._send({"beat": 1})
        self._end(self._verdict)

    def _end(self, verdict: Verdict) -> None:
        """Says why, and ends at once: the main thread may hang in a collective, and would hang at exit."""
        line = verdict.line
        if verdict.index == self.index:
            line = f"the other processes have ended without this one: {line}"
        with contextlib.suppress(Exception):
            sys.stderr.flush()
            advise = verdict.code == EXIT_INTERRUPTED and self.advice and "--resume" not in line  # it says so itself
            os.write(2, (f"{line}; {self.advice}\n" if advise else f"{line}\n").encode())
        if self._hub is not None:
            self._hub.wait_for_others(3.0, but=verdict.index)
        exit_now(verdict.code)


def exit_now(code: int) -> None:
    """Ends the process without the hooks of its exit, of which JAX's waits for processes that may not answer."""
    with contextlib.suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    remove_parts()
    with contextlib.suppress(Exception):  # readers of data: nobody else would end them now
        for child in multiprocessing.active_children():
            child.kill()
    os._exit(code)
