"""A worker process: builds one candidate and takes turns. One JSON object a line comes in, one goes out.

{"do": "build", "task": {...}, "images": PATH}  -> {"parameters": 11173962, "logits": [[...], ...]}
{"do": "turn"}                                  -> {"seconds": 0.81}
{"do": "compile", "task": {...}}                -> {"trace": 1.2, "compile": 3.4, "temp_bytes": 1048576}
{"do": "open", "task": {...}}                   -> {"shape": [64, 224, 224, 3]}
{"do": "read"}                                  -> {"seconds": 0.05}

What goes wrong is {"error": LINE, "input": whether it is the user's to mend}. The process ends with its input.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any, TextIO

import numpy as np

from benchmarks.candidates import CANDIDATES
from benchmarks.input_tasks import InputTask, Reader
from benchmarks.program import Program
from benchmarks.workloads import Task
from jaxcnn.errors import InputError


class Turns:
    """What a worker does: a method for each request."""

    def __init__(self) -> None:
        self._program: Program | None = None
        self._reader: Reader | None = None
        self._steps = 1

    def build(self, task: dict[str, Any], images: str) -> dict[str, Any]:
        """Builds a candidate; returns its count of parameters and its logits for the images of a file."""
        found = Task(**task)
        self._program, self._steps = _module_of(found).build(found), found.steps
        logits = self._program.logits(np.load(images))
        return {"parameters": self._program.parameters, "logits": logits.astype(float).tolist()}

    def turn(self) -> dict[str, float]:
        """Takes one turn; returns the seconds of a step."""
        assert self._program is not None
        start = time.perf_counter()
        self._program.run(self._steps)
        return {"seconds": (time.perf_counter() - start) / self._steps}

    def compile(self, task: dict[str, Any]) -> dict[str, float]:
        """Compiles a training step without weights; returns the seconds it took and the temporary memory it needs."""
        from jaxcnn.runtime import enable_compilation_cache

        found = Task(**task)
        enable_compilation_cache()
        program = _module_of(found).train_program(found)
        start = time.perf_counter()
        lowered = program.jitted.lower(*program.arguments)
        traced = time.perf_counter()
        compiled = lowered.compile()
        end = time.perf_counter()
        temp_bytes = compiled.memory_analysis().temp_size_in_bytes
        return {"trace": traced - start, "compile": end - traced, "temp_bytes": temp_bytes}

    def open(self, task: dict[str, Any]) -> dict[str, list[int]]:
        """Opens a pipeline of batches; returns the shape of a batch of images."""
        found = InputTask(**task)
        self._reader = Reader(_module_of(found).batches(found), found)
        return {"shape": self._reader.shape}

    def read(self) -> dict[str, float]:
        """Takes one turn of reading; returns the seconds a batch."""
        assert self._reader is not None
        return {"seconds": self._reader.turn()}


def _module_of(task: Task | InputTask) -> Any:
    """The module of a candidate; raises InputError where a package or the device is missing."""
    try:
        module = import_module(CANDIDATES[task.candidate].module)
    except ModuleNotFoundError as error:
        raise InputError(f'{error.name} is not installed: pip install -e ".[benchmarks]"') from None
    if task.device == "gpu":
        _check_gpu(CANDIDATES[task.candidate].uses_torch)
    return module


def _check_gpu(for_torch: bool) -> None:
    """Raises InputError where the library of a candidate does not see the GPU."""
    if for_torch:
        import torch

        if not torch.cuda.is_available():
            raise InputError("PyTorch sees no GPU: install a build of torch with CUDA")
        return
    import jax

    try:
        jax.devices("cuda")
    except RuntimeError:
        raise InputError('JAX sees no GPU: pip install -e ".[cuda]"') from None


def serve(requests: TextIO, answers: TextIO) -> None:
    """Answers requests until they end."""
    turns = Turns()
    for line in requests:
        request = json.loads(line)
        method: Callable[..., dict[str, Any]] = getattr(turns, request.pop("do"))
        try:
            answer = method(**request)
        except Exception as error:  # whatever a library raises is for the parent to tell
            text = str(error).strip().split("\n")[0]
            known = isinstance(error, InputError)
            answer = {"error": text if known else f"{type(error).__name__}: {text}", "input": known}
        print(json.dumps(answer), file=answers, flush=True)


def main() -> None:
    """Serves standard input; what libraries print goes to standard error, so that it cannot mix with the answers."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    serve(sys.stdin, answers)


if __name__ == "__main__":
    main()
