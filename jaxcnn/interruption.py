"""Signals that ask a run to save and end: SIGTERM, SIGUSR1 and Ctrl-C, heard at any moment.

Python runs the handler of a signal in the main thread, between two of its instructions. That thread may be in XLA's
compiler for minutes, so the signal is heard by a thread of its own as well (`signal.set_wakeup_fd`), which ends the
process where nothing is lost by that, or once it has saved what would be.

Nothing heavy is imported here: this is in place before JAX is.
"""

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from jaxcnn.errors import EXIT_AT_ONCE, EXIT_INTERNAL, EXIT_INTERRUPTED, InputError, Interrupted, RunFailed
from jaxcnn.processes import announce
from jaxcnn.whole import remove_parts

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
"""SIGUSR1 is what `sbatch --signal=B:USR1@90` sends before the time of a job is over."""
_PATIENCE_SECONDS = 1.0
"""How long the main thread may take to answer by itself before the process is ended for it, where it may be."""
_UNWINDING_SECONDS = 5.0
"""The same where it is on its way out already: half-written files are removed there, threads end."""


@dataclass(frozen=True)
class _Place:
    """A part of the program that may be left at any moment."""

    leave: Callable[[], str]
    at_once: bool


class StopRequest:
    """Whether a run is asked to save and end; `with StopRequest() as stop:` listens to signals.

    Between the places that may be left at any moment (`anywhere`) the run asks `requested`, and ends by itself. Any
    number of signals ask once; only a second Ctrl-C ends the process at once, without saving.
    """

    def __init__(self, end: Callable[[int], Any] = os._exit):
        """Args: end: ends the process with an exit code, called from another thread than the main one."""
        self.requested = False
        self._end_process = end
        self._places: tuple[_Place, ...] = ()
        self._lock = threading.Lock()  # held while places change, and by the thread that leaves one until the end
        self._answered = False
        self._unwinding: tuple[float, str] | None = None
        self._interrupts = 0
        self._before: dict[int, Any] = {}
        self._listener: threading.Thread | None = None

    def __enter__(self) -> "StopRequest":
        self._ear, self._mouth = os.pipe()
        os.set_blocking(self._mouth, False)
        self._fd_before = signal.set_wakeup_fd(self._mouth, warn_on_full_buffer=False)
        self.listen()
        self._listener = threading.Thread(target=self._hear, name="signals", daemon=True)
        self._listener.start()
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._fd_before)
        os.close(self._mouth)  # which ends the thread
        if self._listener is not None:
            self._listener.join(timeout=1.0)
            self._listener = None

    def listen(self) -> None:
        """Sets the handlers, again where a library has put its own in their place.

        `jax.distributed.initialize` does so for SIGTERM, unless jax_enable_preemption_service is off.
        """
        for number in SIGNALS:
            handler = signal.signal(number, self._receive)
            self._before.setdefault(number, signal.SIG_DFL if handler is None else handler)

    def ignore_from_now_on(self) -> None:
        """Lets no further signal change the exit code: for a process whose work is done or saved."""
        for number in self._before:
            self._before[number] = signal.SIG_IGN
            signal.signal(number, signal.SIG_IGN)

    @contextlib.contextmanager
    def anywhere(self, leave: Callable[[], str], *, at_once: bool = False) -> Iterator[None]:
        """A part of the program that may be left at any moment, for instance in the compiler.

        The main thread answers a stop that is requested in it by itself, if it comes to a question for `requested`
        within a second; else another thread calls `leave` and ends the process with exit code 75.

        Args:
          leave: saves what would be lost, if anything, and returns the line that says how to go on.
          at_once: throw the main thread out of it, by Interrupted: for what cleans up after itself.
        """
        self._go_to((*self._places, _Place(leave, at_once)))
        try:
            self.check()
            yield
        except (InputError, RunFailed):
            raise
        except Exception:  # the signal has reached programs that it needs too, such as the assembler of a GPU
            if not self.requested or self._answered:
                raise
            self.answered()
            raise Interrupted(leave()) from None
        finally:
            self._go_to(self._places[:-1])

    @contextlib.contextmanager
    def nowhere(self) -> Iterator[None]:
        """A part of such a place that must not be left: the run asks `requested` there, or `check` after it."""
        held = self._places
        self._go_to(())
        try:
            yield
        finally:
            self._go_to(held)

    def _go_to(self, places: tuple[_Place, ...]) -> None:
        with self._lock:  # waits for good where the process is being ended
            self._places = places

    def answered(self) -> None:
        """From here on the main thread ends by itself: nobody else saves, and no signal throws it out."""
        with self._lock:
            self._answered = True

    def check(self) -> None:
        """Raises Interrupted if a stop was requested and this place is left at once.

        What the handler raises in the midst of a library may be lost there.
        """
        if self._places and self._places[-1].at_once and not self._answered and self.requested:
            raise Interrupted(self._places[-1].leave())

    def end(self, line: str) -> None:
        """Ends the process as interrupted without waiting for its threads; nothing, where no signal is listened to."""
        if self._listener is not None:
            end_process(line, EXIT_INTERRUPTED, self._end_process)

    def _receive(self, number: int, frame: Any) -> None:
        """In the main thread, which may hold the lock."""
        first, self.requested = self._unwinding is None, True
        if number == signal.SIGINT:
            self._interrupts += 1
            if self._interrupts > 1:
                raise KeyboardInterrupt
        if first and not self._answered and self._places and self._places[-1].at_once:
            line = self._places[-1].leave()
            self._unwinding = time.monotonic(), line
            raise Interrupted(line)

    def _hear(self) -> None:
        """In a thread of its own: ends the process where the main thread does not."""
        asked, interrupts = 0.0, 0
        while True:
            ready, _, _ = select.select([self._ear], [], [], 0.05 if asked else None)
            if ready:
                heard = os.read(self._ear, 64)
                if not heard:
                    break
                interrupts += heard.count(signal.SIGINT)
                if (not asked and any(number in SIGNALS for number in heard)) or (
                    signal.SIGINT in heard and interrupts == 2
                ):
                    asked = time.monotonic()
            if not asked or time.monotonic() < asked + _PATIENCE_SECONDS:
                continue
            if interrupts > 1:
                line = "interrupted; nothing was saved since the last checkpoint"
                end_process(line, EXIT_AT_ONCE, self._end_process)
                break
            if self._left_for_main():
                break
        os.close(self._ear)

    def _left_for_main(self) -> bool:
        """Ends the process if it may be ended here; returns whether it has (a test's `end` returns)."""
        with self._lock:
            if self._answered:
                return False
            unwinding = self._unwinding
            if unwinding is not None:  # there was nothing to save
                if time.monotonic() < unwinding[0] + _UNWINDING_SECONDS:
                    return False
                line, code = unwinding[1], EXIT_INTERRUPTED
            elif self._places:
                try:
                    line, code = self._places[-1].leave(), EXIT_INTERRUPTED
                except BaseException as error:
                    line, code = f"error: {error}", EXIT_INTERNAL
            else:
                return False
            self._answered = True
            end_process(line, code, self._end_process)
            return True


def end_process(line: str, code: int, end: Callable[[int], Any] = os._exit) -> None:
    """Says a line and ends the process, whatever its threads are at; half-written files are removed."""
    remove_parts()
    with contextlib.suppress(Exception):
        sys.stdout.flush()
    with contextlib.suppress(Exception):
        print(" ".join(line.split("\n")), file=sys.stderr, flush=True)
    announce(code, line)
    end(code)
