"""The command line: `jaxcnn COMMAND ...`, one file a command."""

import atexit
import os
import sys
import time
from collections.abc import Callable, Sequence
from importlib import import_module

from jaxcnn.errors import (
    EXIT_AT_ONCE,
    EXIT_INPUT,
    EXIT_INTERNAL,
    EXIT_INTERRUPTED,
    InputError,
    Interrupted,
    RunFailed,
    did_you_mean,
)
from jaxcnn.interruption import StopRequest
from jaxcnn.processes import told_by_first

COMMANDS = {
    "train": "train a network (the same as python train.py)",
    "preflight": "check a run before it is paid for: data, first loss, signal, learning rate, cost",
    "plan": "whether a run fits TPUs or GPUs that are not here, what a step costs there, hours of the run",
    "sweep": "several values of some fields, several seeds: a table, a figure, the best one",
    "replay": "do a step again that was not finite, and say where it begins",
    "evaluate": "measure a run on a split",
    "inspect": "the parameter tree of a run, a config or a file of weights, and what differs between two",
    "curves": "curves of runs, what they say, and where the runs differ",
    "report": "a run as one HTML page",
    "data": "what data hold, what training sees of them, TFDS sets made ready: info, preview, prepare",
    "predict": "class probabilities for image files",
    "explain": "where in an image the evidence for a class lies, as a picture (Grad-CAM)",
    "weights": "weights from PyTorch, timm and Keras, and for them: import, export, compare",
    "export": "a run as one file that needs no jaxcnn: StableHLO or ONNX",
    "study": "ten lessons of convolutional networks, each shown by running it: table, figure, claims",
    "models": "list the networks with parameters, GFLOPs and papers",
}


_NOTHING_DONE = "interrupted before the first step: there is nothing to save; start it again"


def main(argv: Sequence[str] | None = None, *, is_program: bool = False) -> int:
    """Runs the command line and returns the exit code: 0, 1 fault, 2 the user's input, 75 interrupted and saved.

    Args:
      argv: none: that of the process, which is this command then.
      is_program: the process ends with this command also where argv is given.
    """
    started = time.perf_counter()
    is_program = is_program or argv is None
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["--version"]:
        arguments[0] = "version"
    elif not arguments or arguments[0] in ("-h", "--help"):
        print(_usage())
        return 0 if arguments else EXIT_INPUT
    name, *rest = arguments
    if name not in COMMANDS and name != "version":
        print(f"error: no command {name!r}; {did_you_mean(name, COMMANDS)}", file=sys.stderr)
        return EXIT_INPUT
    if name == "train":
        return _listening(rest, started, is_program)
    return guarded(lambda: import_module(f"jaxcnn.cli.{name}").run(rest, started=started))


def _listening(arguments: Sequence[str], started: float, is_program: bool) -> int:
    """`jaxcnn train`, which is asked by signals to save and end: from here on, before anything heavy is imported."""
    with StopRequest() as stop:

        def run() -> int:
            with stop.anywhere(lambda: _NOTHING_DONE, at_once=True):
                return import_module("jaxcnn.cli.train").run(arguments, started=started, stop=stop)

        code = guarded(run)
        if is_program:  # one more signal, while Python ends, would end it by that signal
            stop.ignore_from_now_on()
        return code


def guarded(action: Callable[[], int]) -> int:
    """Returns action()'s exit code; the user's mistakes and a run's failures become one line each."""
    try:
        return action()
    except InputError as error:
        return _tell(f"error: {error}", EXIT_INPUT, error)
    except Interrupted as interruption:
        return _tell(str(interruption), EXIT_INTERRUPTED, interruption)
    except RunFailed as failure:
        # Threads of orbax that a full disk has cut off print while the interpreter ends, and have nothing to add.
        atexit.register(lambda: os.dup2(os.open(os.devnull, os.O_WRONLY), 2))
        return _tell(f"error: {failure}", EXIT_INTERNAL, failure)
    except KeyboardInterrupt:
        return _tell("interrupted; nothing was saved since the last checkpoint", EXIT_AT_ONCE)
    except BrokenPipeError:
        sys.stderr.close()
        return EXIT_INTERNAL


def _tell(line: str, code: int, error: BaseException | None = None) -> int:
    if error is None or not told_by_first(error):
        print(" ".join(line.split("\n")), file=sys.stderr)
    return code


def _usage() -> str:
    rows = "\n".join(f"  {name:10s} {text}" for name, text in COMMANDS.items())
    return f"usage: jaxcnn COMMAND ...   (jaxcnn COMMAND --help; jaxcnn --version)\n\ncommands:\n{rows}"
