"""A trial in a process of its own: started, watched, asked to stop."""

import contextlib
import ctypes
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from jaxcnn.runtime import usable_cores

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
        cores = cores_of(slot, slots, usable_cores())
        with open(log, "a") as file:
            self._offset = file.tell()  # what an interrupted process printed comes before
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(os.getpid()), ",".join(map(str, cores)), "train", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=environment(slot, slots),
                start_new_session=True,
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


def _become_trial(parent: int, cores: Sequence[int]) -> None:
    """What a new process does before anything else, on Linux; elsewhere nothing."""
    if not sys.platform.startswith("linux"):
        return
    # A killed sweep (kill -9, out of memory) leaves no trial behind: each saves and ends as by SIGTERM.
    ctypes.CDLL(None).prctl(_PARENT_DEATH, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit("the sweep has ended")
    with contextlib.suppress(OSError):
        os.sched_setaffinity(0, cores)


if __name__ == "__main__":
    _, own_parent, own_cores, *own_arguments = sys.argv
    _become_trial(int(own_parent), [int(core) for core in own_cores.split(",")])
    sys.argv = ["jaxcnn", *own_arguments]
    runpy.run_module("jaxcnn", run_name="__main__")
