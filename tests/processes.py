"""Several real processes on this machine, as a cluster would start them: one Python program in each."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parent.parent


def free_port() -> int:
    with socket.create_server(("", 0)) as server:
        return server.getsockname()[1]


@dataclass
class Ended:
    """What a process has left: exit code, both streams, and the seconds from `since` to its end."""

    code: int
    out: str
    err: str
    seconds: float

    @property
    def lines(self) -> list[str]:
        """What it has told, without the runtime's own warnings."""
        return [line for line in self.err.splitlines() if line.strip() and not re.match(r"[WI]\d{4} |\[Gloo\]", line)]


@dataclass
class Group:
    """Processes that run together. As a context it leaves none behind."""

    processes: list[subprocess.Popen]
    since: float = field(default_factory=time.monotonic)

    def __enter__(self) -> "Group":
        return self

    def __exit__(self, *error: object) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()

    def signal(self, index: int, number: int) -> None:
        """Sends a signal to one of them; seconds count from here."""
        self.since = time.monotonic()
        self.processes[index].send_signal(number)

    def wait_for(self, text: str, timeout: float = 60.0) -> None:
        """Returns once each process has printed a line with `text` on standard output (which it then lacks)."""
        for process in self.processes:
            assert process.stdout is not None
            while text not in (line := process.stdout.readline()):
                assert line, f"ended before it said {text!r}: {process.stderr.read() if process.stderr else ''}"

    def ended(self, but: Sequence[int] = (), timeout: float = 90.0) -> list[Ended | None]:
        """Waits for all to end (`but` some: none in their place) and returns what they have left."""
        deadline, ends = time.monotonic() + timeout, {}
        waiting = {index for index in range(len(self.processes)) if index not in but}
        while waiting - ends.keys() and time.monotonic() < deadline:
            for index in waiting - ends.keys():
                if self.processes[index].poll() is not None:
                    ends[index] = time.monotonic()
            time.sleep(0.02)
        assert not waiting - ends.keys(), f"still running after {timeout} s: {sorted(waiting - ends.keys())}"
        result: list[Ended | None] = []
        for index, process in enumerate(self.processes):
            if index in but:
                result.append(None)
                continue
            out, err = process.communicate()
            result.append(Ended(process.returncode, out, err, ends[index] - self.since))
        return result


def start(arguments: Sequence[Sequence[str]], *, devices: int = 1, environment: dict[str, str] | None = None) -> Group:
    """Starts one Python process for each list of arguments (`-c CODE`, or `-m jaxcnn train ...`), with CPU devices."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    own = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), **(environment or {})}
    return Group(
        [
            subprocess.Popen(
                [sys.executable, *one], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=own, cwd=ROOT
            )
            for one in arguments
        ]
    )


def start_together(arguments: Sequence[str], count: int, *, devices: int = 1, port: int | None = None) -> Group:
    """Starts `count` equal processes, each with the options that make them one run after its arguments."""
    where = f"localhost:{port or free_port()}"
    options = ["--coordinator", where, "--num-processes", str(count), "--process-id"]
    return start([[*arguments, *options, str(index)] for index in range(count)], devices=devices)


__all__ = ["Ended", "Group", "free_port", "signal", "start", "start_together"]
