"""A trial in a process of its own: started, watched, asked to stop."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

_PARENT_DEATH = 1  # PR_SET_PDEATHSIG of prctl(2)


class TrialProcess:
    """`jaxcnn train` in another process, in a session of its own: Ctrl-C reaches it by the sweep alone."""

    def __init__(self, arguments: Sequence[str], log: Path, slot: int, slots: int):
        """Starts the process.

        Args:
          arguments: of `jaxcnn train`.
          log: file that gets what it prints.
          slot, slots: which of so many processes that run side by side.
        """
        self._log = log
        self._began = time.monotonic()
        with open(log, "a") as file:
            self._offset = file.tell()  # what an interrupted process printed comes before
            self._process = subprocess.Popen(
                [sys.executable, "-m", "jaxcnn", "train", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=environment(slot, slots),
                start_new_session=True,
                preexec_fn=_prepare(slot, slots, os.getpid()),
            )

    def poll(self) -> int | None:
        """Returns the exit code (of a signal, minus its number); none while it runs."""
        return self._process.poll()

    def stop(self) -> None:
        """Asks it to save and end."""
        self._process.terminate()

    def kill(self) -> None:
        """Ends it at once."""
        self._process.kill()

    @property
    def seconds(self) -> float:
        """Since it was started."""
        return time.monotonic() - self._began

    def last_line(self) -> str:
        """Returns the last line that it printed."""
        text = self._log.read_bytes()[self._offset :].decode(errors="replace")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return lines[-1] if lines else ""


def environment(slot: int, slots: int) -> dict[str, str]:
    """Returns the environment of a trial: side by side, each has a GPU of CUDA_VISIBLE_DEVICES, or takes what it needs.

    Without this the first process takes three quarters of a GPU's memory and the second one fails.
    """
    own = dict(os.environ)
    if slots > 1:
        devices = own.get("CUDA_VISIBLE_DEVICES", "").split(",")
        if len(devices) > 1:
            own["CUDA_VISIBLE_DEVICES"] = devices[slot % len(devices)]
        if len(devices) < slots:
            own.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    return own


def cores_of(slot: int, slots: int, cores: Sequence[int]) -> list[int]:
    """Returns the cores of a trial: an equal share each, all of them where there are fewer cores than trials."""
    share = len(cores) // slots
    return list(cores[slot * share : (slot + 1) * share]) if share else list(cores)


def _prepare(slot: int, slots: int, parent: int) -> Callable[[], None] | None:
    """What the new process does before it becomes a trial, on Linux; elsewhere nothing."""
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    cores = cores_of(slot, slots, sorted(os.sched_getaffinity(0)))

    def prepare() -> None:
        # A killed sweep (kill -9, out of memory) leaves no trial behind: each saves and ends as by SIGTERM.
        libc.prctl(_PARENT_DEATH, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, cores)

    return prepare
