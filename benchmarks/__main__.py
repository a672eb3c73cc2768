"""The command line: one module a command, each with `main(argv) -> int`, imported when it is called."""

import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from jaxcnn.errors import EXIT_INPUT, EXIT_INTERNAL, InputError, RunFailed, did_you_mean

COMMANDS = {
    "steps": ("benchmarks.steps", "training steps beside PyTorch and plain flax"),
    "frozen": ("benchmarks.frozen", "steps that train the head alone, beside forward only, full steps and the peers"),
    "inference": ("benchmarks.inference", "forward passes in evaluation mode, beside the same"),
    "compile": ("benchmarks.compiling", "cold and cached compilation of our train step and plain flax's"),
    "memory": ("benchmarks.memory", "temporary memory of our train step and plain flax's"),
    "end-to-end": ("benchmarks.end_to_end", "epochs of a training run beside its bare steps"),
    "input": ("benchmarks.inputs", "decoding of JPEGs by the streamed loader, PyTorch's DataLoader and tf.data"),
    "tpu": ("benchmarks.tpu", "the train step compiled ahead of time for a TPU: FLOPs, bytes, memory"),
    "augment": ("benchmarks.augmenting", "each augmentation alone, and two usual sets of them"),
    "figure": ("benchmarks.figure", "docs/figures/performance.png from the JSON files"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns the exit code: 0, 1 a fault, 2 the user's input, 130 interrupted."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage())
        return 0 if arguments else EXIT_INPUT
    name, *rest = arguments
    try:
        return _command(name)(rest)
    except InputError as error:
        return _tell(f"error: {error}", EXIT_INPUT)
    except RunFailed as failure:
        return _tell(f"error: {failure}", EXIT_INTERNAL)
    except KeyboardInterrupt:
        return _tell("interrupted; nothing was written", 130)


def _command(name: str) -> Callable[[Sequence[str]], int]:
    """The `main` of a command; raises InputError for one that there is not."""
    if name not in COMMANDS:
        raise InputError(f"no command {name!r}; {did_you_mean(name, COMMANDS)}")
    module = COMMANDS[name][0]
    if importlib.util.find_spec(module) is None:
        raise InputError(f"{name}: {module.replace('.', '/')}.py is not in this checkout")
    return import_module(module).main


def _tell(line: str, code: int) -> int:
    print(" ".join(line.split("\n")), file=sys.stderr)
    return code


def _usage() -> str:
    rows = "\n".join(f"  {name:10s} {text}" for name, (_, text) in COMMANDS.items())
    return f"usage: python -m benchmarks COMMAND ...   (COMMAND --help)\n\ncommands:\n{rows}"


if __name__ == "__main__":
    sys.exit(main())
