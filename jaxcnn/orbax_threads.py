"""What orbax's threads do where a save has failed: they end, and print nothing. The error itself is raised to us."""

import functools
import inspect
import sys
import threading
from typing import Any


def barrier(*, key: str, timeout_ms: int) -> None:
    """Waits for the threads of all processes, as orbax does; but not where this one has failed.

    The others then do not come to this barrier, nor this one to theirs: as orbax has it, all would wait for 20 minutes
    before the error is raised. It is told to the others where it is raised here.
    """
    from orbax.checkpoint.multihost import get_barrier_sync_fn

    has_failed = threading.current_thread() is not threading.main_thread() and sys.exc_info()[0] is not None
    if not has_failed:
        get_barrier_sync_fn()(key=key, timeout_ms=timeout_ms)


@functools.cache
def mute_cut_off_tasks() -> None:
    """Silences what orbax's tasks print when an error has cut them off; the error itself is raised to us.

    Their coroutines and TensorStore's threads report a closed event loop through the two hooks, hundreds of lines for
    one full disk. All other reports pass.
    """
    report, report_unraisable = sys.excepthook, sys.unraisablehook

    def excepthook(kind: Any, error: Any, trace: Any) -> None:
        if "Event loop is closed" not in str(error):
            report(kind, error, trace)

    def unraisablehook(unraisable: Any) -> None:
        cut_off = "Event loop is closed" in str(unraisable.exc_value) or inspect.iscoroutine(unraisable.object)
        if not cut_off:
            report_unraisable(unraisable)

    sys.excepthook, sys.unraisablehook = excepthook, unraisablehook
