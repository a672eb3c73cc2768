"""The line between the processes of a run: who is there, who has ended, and what they agree on. Sockets and JSON alone.

JAX's coordination service knows this too, but tells it by ending the process: where the first process dies, or one does
not come in time, or two have one number, jaxlib aborts all others with a stack of C++ frames and names nobody. So the
first process listens here, on the coordinator's address; all others keep one connection to it. A process that dies
closes its connection, and is known at once; one that hangs with its machine does not beat, and is known by silence.
Nothing here touches a device or waits for one, and it needs no JAX.
"""

import contextlib
import json
import math
import os
import socket
import threading
import time
from dataclasses import dataclass
from typing import Any

BEAT_SECONDS = 2.0
GRACE_SECONDS = 5.0
"""How long the others may take to meet the same error themselves, before they are ended."""
SAVING_SECONDS = 30.0
"""The same where one process was interrupted: the others may be saving what it has saved already."""


@dataclass(frozen=True)
class Process:
    """One process of a run: its number, where it runs, how many devices are its own."""

    index: int
    host: str
    pid: int
    devices: int = 0

    def __str__(self) -> str:
        return f"process {self.index} on {self.host} (pid {self.pid})"


@dataclass(frozen=True)
class Verdict:
    """Why the run is over: which process ended it, in what words, and the exit code of all others."""

    index: int
    line: str
    code: int


def ended(process: Process, line: str) -> str:
    return f"{process} has ended: {line}"


def silence_of(process: Process, seconds: float) -> str:
    return f"{process} has not answered for {seconds:.0f} s: it hangs, or its machine cannot be reached"


def stood_still(process: Process, seconds: float) -> str:
    return f"{process} stood still for {seconds:.0f} s"


class Pulse:
    """Notices that this process itself stood still, or its whole machine: what it has not heard then says nothing."""

    def __init__(self, limit: float):
        self._limit = limit
        self._last = time.monotonic()
        self._stood = (0.0, -math.inf)
        """How long it stood still, and until when."""

    def beat(self) -> bool:
        """Called every half second or so; returns whether it stood still since the last time."""
        now = time.monotonic()
        slept, self._last = now - self._last, now
        if slept > self._limit:
            self._stood = (slept, now)
        return slept > self._limit

    def stood_still(self) -> float:
        """Returns the seconds that it stood still until a moment ago; 0 if it did not."""
        now = time.monotonic()
        if now - self._last > self._limit:
            return now - self._last
        seconds, until = self._stood
        return seconds if now - until < 5.0 else 0.0


class Wire:
    """One JSON object a line, both ways. Sending to who has gone does nothing: reading tells it."""

    def __init__(self, connection: socket.socket):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = connection
        self._file = connection.makefile("rb")
        self._lock = threading.Lock()

    def forget(self) -> None:
        """Closes a forked child's copy: it would outlive a process that has died, and nobody would see that end."""
        with contextlib.suppress(OSError):
            os.close(self.socket.fileno())

    def send(self, message: dict[str, Any]) -> None:
        with self._lock, contextlib.suppress(OSError):
            self.socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self) -> dict[str, Any] | None:
        """Returns the next message; none at the end of the line, and where it is none of ours."""
        try:
            text = self._file.readline(1 << 24)
            message = json.loads(text) if text.endswith(b"\n") else None
        except (OSError, ValueError):
            return None
        return message if isinstance(message, dict) else None

    def is_open(self) -> bool:
        try:
            return self.socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self._file.close()
        self.socket.close()
