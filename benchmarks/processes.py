"""A worker process from outside: start it, ask it, end it."""

import json
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.candidates import CANDIDATES, environment
from benchmarks.input_tasks import InputTask
from benchmarks.workloads import Task
from jaxcnn.errors import InputError, RunFailed

ROOT = Path(__file__).parent.parent


class WorkerError(Exception):
    """A worker answered that something does not work on this machine."""


class Worker:
    """A process that measures one candidate; use it in a `with`, which ends it."""

    def __init__(self, task: Task | InputTask, extra_environment: dict[str, str] | None = None) -> None:
        """Starts the process; `extra_environment` is added to that of the candidate."""
        self.task = task
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the process
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker"],
            cwd=ROOT,
            env={**environment(task.candidate, task.device), **(extra_environment or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Ends the process: it stops when its input ends, or is stopped where it is inside a step."""
        if kind is not None:
            self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with suppress(BrokenPipeError):
                pipe.close()
        self._process.wait()
        self._errors.close()

    def build(self, images: Path) -> dict[str, Any]:
        """Returns the count of parameters and the logits of the candidate."""
        return self._ask(do="build", task=asdict(self.task), images=str(images))

    def turn(self) -> float:
        """Returns the seconds of a step in one turn."""
        return self._ask(do="turn")["seconds"]

    def compile(self) -> dict[str, float]:
        """Returns seconds of tracing and of compiling, and bytes of temporary memory."""
        return self._ask(do="compile", task=asdict(self.task))

    def _ask(self, **request: Any) -> dict[str, Any]:
        """Returns the answer of the process.

        Raises:
          InputError: something is missing that the user can add.
          WorkerError: the candidate does not work here, and may be left out.
          RunFailed: it does not work and may not be left out, or the process has died.
        """
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.write(json.dumps(request) + "\n")
            stdin.flush()
            line = stdout.readline()
        except BrokenPipeError:
            line = ""
        title = CANDIDATES[self.task.candidate].title
        if not line:
            raise RunFailed(f"{title}, {self.task.model}: {self._death()}")
        answer = json.loads(line)
        if "error" not in answer:
            return answer
        if answer["input"]:
            raise InputError(f"{title}: {answer['error']}")
        if CANDIDATES[self.task.candidate].may_fail:
            raise WorkerError(answer["error"])
        raise RunFailed(f"{title}, {self.task.model}: {answer['error']}")

    def _death(self) -> str:
        """What the process left behind: its exit code and the last line it printed."""
        code = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines()
        told = f" ({lines[-1].strip()})" if lines else ""
        hint = ", perhaps for want of memory" if code == -9 else ""
        return f"its process ended with exit code {code}{hint}{told}"
