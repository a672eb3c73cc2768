"""The exceptions that become one line and an exit code, and the words they share."""

import difflib
from collections.abc import Iterable

EXIT_INTERNAL = 1
EXIT_INPUT = 2
EXIT_INTERRUPTED = 75  # EX_TEMPFAIL: schedulers start such a job again
EXIT_AT_ONCE = 130  # by a second Ctrl-C, as shells have it


class InputError(ValueError):
    """The user's own mistake: told in one line, without a traceback, exit code 2."""


class Interrupted(BaseException):
    """The run was asked to stop and has saved its state: exit code 75.

    It is thrown into the midst of libraries, whose `except Exception` must not catch it.
    """


class RunFailed(RuntimeError):
    """The run cannot go on through no mistake in its input (disk full, loss not finite): one line, exit code 1."""


def did_you_mean(wrong: str, known: Iterable[str], limit: int = 3) -> str:
    """Returns "did you mean 'a' or 'b'?", or the whole list where nothing is near and it is short."""
    known = sorted(known)
    near = difflib.get_close_matches(wrong, known, n=limit, cutoff=0.5)
    if near:
        return "did you mean " + " or ".join(repr(name) for name in near) + "?"
    if len(known) <= 24:
        return "known: " + ", ".join(known)
    return f"{len(known)} names are known, none is near"
