"""Several processes that train one network: how they start, agree, and end when one of them has died.

The computation is JAX's own distributed runtime: collectives over ICI, NCCL, or gloo on CPU. Beside it the processes
keep a line of their own (`wire.py` says why). With one process all of this is free, and JAX's runtime is not started.
"""

import atexit
import contextlib
import logging
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TypeVar

from jaxcnn.errors import EXIT_INPUT, EXIT_INTERNAL, EXIT_INTERRUPTED, InputError, Interrupted, RunFailed
from jaxcnn.processes.hub import Hub
from jaxcnn.processes.joining import Found, detect, is_of_a_collective, join, part
from jaxcnn.processes.launch import Launch, add_options, launch_of, warn_if_alone_among_many
from jaxcnn.processes.line import Line, exit_now
from jaxcnn.processes.rendezvous import Place, meet
from jaxcnn.processes.wire import Process

__all__ = [
    "Launch", "Process", "add_options", "advise", "agree", "agree_on_steps", "announce", "barrier", "count",
    "first_before_others", "first_does", "first_reason", "index", "is_first", "joined", "launch_of", "shutdown",
    "start", "table", "told_by_first",
]  # fmt: skip

T = TypeVar("T")
PATIENCE_SECONDS = 30.0
"""Silence after which a process counts as dead. One that is killed is known at once; this is for machines that hang."""

_line: Line | None = None
_table: tuple[Process, ...] = ()
_index = 0


def start(launch: Launch, *, patience: float = PATIENCE_SECONDS) -> None:
    """Meets the other processes and joins JAX's runtime with them. Before anything else asks JAX for devices.

    Args:
      patience: seconds without a sign of life after which a process counts as dead.

    Raises:
      InputError: the launch says too little, two processes have one number, they do not agree how many there are.
      RunFailed: not all came in time.
    """
    global _line, _table, _index
    if _table:
        raise RuntimeError("the processes have met already")
    if launch.is_alone:
        warn_if_alone_among_many()
        return
    found = _find(launch)
    place = found.place
    if place.num_processes == 1:
        return  # the runtime would only take devices away and be one more thing to wait for
    meeting = meet(place, launch.timeout, os.environ.get("JAX_COORDINATOR_BIND_ADDRESS"))
    hub = Hub(meeting.wires, meeting.table, patience) if place.index == 0 else None
    wire = None if place.index == 0 else meeting.wires[0]
    _line = Line(place.index, meeting.table, wire=wire, hub=hub, patience=patience)
    _table, _index = meeting.table, place.index
    for own in (_forget, *(one.forget for one in meeting.wires.values())):
        os.register_at_fork(after_in_child=own)
    join(found, meeting.runtime_port, launch.timeout)
    import jax

    devices, _ = _line.call("devices", jax.local_device_count(), gather=True)
    _table = tuple(replace(process, devices=number) for process, number in zip(_table, devices, strict=True))
    if is_first():
        logging.getLogger("jaxcnn").info(described(_table))


def _find(launch: Launch) -> Found:
    if launch.distributed:
        return detect(launch.coordinator, launch.num_processes, launch.process_id)
    assert launch.coordinator is not None
    assert launch.num_processes is not None
    assert launch.process_id is not None
    return Found(Place(launch.coordinator, launch.num_processes, launch.process_id))


def described(table: tuple[Process, ...]) -> str:
    """Returns the processes in one line: each by itself where they are few, hosts alone where they are many."""
    hosts = Counter(process.host for process in table)
    head = (
        f"{len(table)} processes on {len(hosts)} host{'s' * (len(hosts) > 1)}, {sum(p.devices for p in table)} devices"
    )
    if len(table) <= 8:
        return f"{head}: " + ", ".join(f"{p.index} on {p.host} (pid {p.pid}, {p.devices})" for p in table)
    names = list(hosts)
    shown = ", ".join(names) if len(names) <= 8 else f"{', '.join(names[:3])} ... {names[-1]}"
    return f"{head}: {shown}"


def index() -> int:
    """Returns this process's number; 0 where there is one."""
    return _index


def count() -> int:
    """Returns how many processes there are."""
    return max(1, len(_table))


def is_first() -> bool:
    """Returns whether this process is the one that writes and tells."""
    return index() == 0


def table() -> tuple[Process, ...]:
    """Returns all processes in order; none where there is one that never had to meet others."""
    return _table


def advise(text: str) -> None:
    """Sets what is said after the line that names the dead: where the checkpoints are, how to go on."""
    if _line is not None:
        _line.advice = text


def agree(value: T, name: str = "agree") -> T:
    """Returns the first process's value, in all. `value` is JSON; all call it in the same order.

    Like all that follows here it goes over the processes' own line: it waits for no device.
    """
    return value if _line is None else _line.call(name, value if is_first() else None)[0]


def agree_on_steps(steps: int, stop: bool) -> tuple[int, bool]:
    """Returns how many steps come next, as the first process proposes, and whether any process was asked to stop."""
    return (steps, stop) if _line is None else _line.call("steps", steps, flag=stop)


def first_reason(reason: str | None) -> str | None:
    """Returns why this or another process could not do its part: the first reason in their order; none if all could."""
    if _line is None:
        return reason
    reasons, _ = _line.call("reasons", reason, gather=True)
    return next((one for one in reasons if one is not None), None)


def barrier(name: str) -> None:
    """Returns once all processes have called it."""
    if _line is not None:
        _line.call(name)


def first_does(action: Callable[[], T], name: str = "first") -> T:
    """Returns action()'s result, which is JSON, in all processes; it runs in the first, and the others wait.

    Raises:
      InputError, RunFailed, Interrupted: what the action has raised in the first process, with the same line, in all.
    """
    if _line is None:
        return action()
    if not is_first():
        answer, _ = _line.call(name)
        if "raised" in answer:
            error = _KINDS[answer["raised"]](answer["line"])
            error.told_by_first = True  # type: ignore[attr-defined]
            raise error
        return answer["result"]
    try:
        result = action()
    except tuple(_KINDS.values()) as error:
        kind = next(name for name, kind in _KINDS.items() if isinstance(error, kind))
        _line.call(name, {"raised": kind, "line": str(error)})
        raise
    _line.call(name, {"result": result})
    return result


def first_before_others(action: Callable[[], T], name: str = "before") -> T:
    """Returns action()'s result; the first process calls it before the others, which find what it leaves on disk."""
    if _line is None:
        return action()
    kept = []
    first_does(lambda: kept.append(action()), name)
    return kept[0] if kept else action()


_KINDS: dict[str, type[BaseException]] = {"InputError": InputError, "RunFailed": RunFailed, "Interrupted": Interrupted}


def told_by_first(error: BaseException) -> bool:
    """Whether the first process tells the same line, so that this one can be silent."""
    return getattr(error, "told_by_first", False)


@contextlib.contextmanager
def joined(launch: Launch, *, patience: float = PATIENCE_SECONDS) -> Iterator[None]:
    """Start, shutdown, and what comes between: whatever ends this process, the others know and end too.

    A collective's error is held back until it is known who has died; then this process ends with that line instead.
    """
    try:
        start(launch, patience=patience)
        yield
    except BaseException as error:
        _leave(error, patience)
        raise
    shutdown()


def announce(code: int, line: str) -> None:
    """Tells the others that this process ends now, by a thread that cannot wait for the main one; they end too."""
    if _line is not None:
        _line.announce(code, line)


def shutdown() -> None:
    """Ends what the processes do together; returns once all have called it. Each keeps its number."""
    if _line is not None:
        _line.leave(0, "")
        part()
        _forget()


def _forget() -> None:
    """After the end, and in a forked reader of data, which is no process of the run."""
    global _line
    _line = None


def _leave(error: BaseException, patience: float) -> None:
    """Tells the others what ends this process, and makes sure that it ends: JAX would wait for them at exit."""
    if _line is None:
        return
    if not isinstance(error, InputError | Interrupted | KeyboardInterrupt | SystemExit):
        _line.wait_for_verdict(patience + 5.0 if is_of_a_collective(error) else 1.0)
    code, text = _exit_code(error), str(error) or type(error).__name__
    known = isinstance(error, tuple(_KINDS.values()))
    line = text if known else f"{type(error).__name__}: {text}".splitlines()[0]
    if _line.leave(code, line) == line and not is_first() and known:
        error.told_by_first = True  # type: ignore[attr-defined]
    atexit.register(exit_now, code)  # after what the interpreter prints, before JAX's own hook
    timer = threading.Timer(15.0, exit_now, [code])
    timer.daemon = True
    timer.start()


def _exit_code(error: BaseException) -> int:
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    kinds = {InputError: EXIT_INPUT, Interrupted: EXIT_INTERRUPTED, KeyboardInterrupt: 130}
    return next((code for kind, code in kinds.items() if isinstance(error, kind)), EXIT_INTERNAL)
