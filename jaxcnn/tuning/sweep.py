"""Several runs beside each other: which trials, in which order, and what happens when one ends."""

import itertools
import logging
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any, Protocol

from jaxcnn.config_reader import check
from jaxcnn.errors import EXIT_INPUT, EXIT_INTERRUPTED, InputError
from jaxcnn.paths import flatten
from jaxcnn.tuning.axes import Axis, flag_of
from jaxcnn.tuning.sweep_folder import Outcome, Sweep, SweepFolder, Trial, is_trained, text_of, trial_of
from jaxcnn.tuning.trial_process import TrialProcess

LOG = logging.getLogger("jaxcnn")
_POLL_SECONDS = 0.2
_UNLOCK_SECONDS = 120.0  # in which a trial whose sweep was killed has saved and ended


class Process(Protocol):
    """A trial that runs; `trial_process.TrialProcess`, or a stand-in."""

    @property
    def seconds(self) -> float: ...
    def poll(self) -> int | None: ...
    def stop(self) -> None: ...
    def kill(self) -> None: ...
    def last_line(self) -> str: ...


Start = Callable[[Trial, int], Process]
"""(trial, slot) -> its process; a slot is which of those that run side by side."""


class Plan(Protocol):
    """Which trials are run: those of a grid, or those that a search draws."""

    def trials(self) -> list[Trial]:
        """Returns all trials that are known so far."""

    def take(self) -> Trial | None:
        """Returns the next trial; none where there is none to start now."""

    def watch(self, trial: Trial) -> bool:
        """Returns whether a trial that runs should be stopped, because others are better by then."""

    def ended(self, trial: Trial, outcome: Outcome) -> None:
        """Receives how a trial ended."""


class Stop:
    """Turns SIGTERM and Ctrl-C into a request to end; a second Ctrl-C ends the trials without saving."""

    def __init__(self) -> None:
        self.requested = False
        self.at_once = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Stop":
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: Any) -> None:
        self.at_once = self.requested and number == signal.SIGINT
        self.requested = True


class Grid:
    """All settings with all seeds, those of a setting one after the other; what has ended is not run again."""

    def __init__(self, folder: SweepFolder, sweep: Sweep, *, retry_failed: bool = False):
        self._trials = trials_of(sweep)
        again: tuple[str, ...] = ("interrupted", "pruned", *(("failed",) if retry_failed else ()))
        ends = [(trial, folder.outcome(trial)) for trial in self._trials]
        self._open = [trial for trial, end in ends if end is None or end.status in again]

    def trials(self) -> list[Trial]:
        """Returns all trials, those that have ended before among them."""
        return list(self._trials)

    def take(self) -> Trial | None:
        return self._open.pop(0) if self._open else None

    def watch(self, trial: Trial) -> bool:
        return False

    def ended(self, trial: Trial, outcome: Outcome) -> None:
        """A grid does not depend on how its trials end."""


def trials_of(sweep: Sweep) -> list[Trial]:
    """Returns the trials of a grid, by setting, then seed."""
    settings = itertools.product(*(axis.values for axis in sweep.axes))
    return [trial_of(sweep.axes, values, seed) for values in settings for seed in sweep.seeds]


def check_trials(sweep: Sweep) -> None:
    """Checks what will be trained before anything is.

    Raises:
      InputError: a value is outside the range of its field, which is named; or there is nothing to sweep.
    """
    if not sweep.axes and len(sweep.seeds) == 1:
        raise InputError(
            "nothing to sweep: give a field several values, such as --optim.peak-lr 0.01,0.03,0.1, or --seeds 3"
        )
    for values in itertools.product(*(_extremes(axis) for axis in sweep.axes)):
        for seed in sweep.seeds[:1]:
            check(trial_of(sweep.axes, values, seed).config(sweep.base), "command line")
    check(replace(sweep.base, seed=max(sweep.seeds)), "command line")


def _extremes(axis: Axis) -> Sequence[Any]:
    """What has to be checked: each value, or the ends of the interval."""
    return axis.values if axis.range is None else (axis.range.low, axis.range.high)


def merged(held: Sweep, given: Sweep) -> Sweep:
    """Returns a sweep with the values and seeds of another added to it: what a folder holds is extended, never changed.

    Raises:
      InputError: they differ in more than that; the first differences are named.
    """
    ours, theirs = flatten(asdict(held.base)), flatten(asdict(given.base))
    changed = [
        f"{name.replace('/', '.')}={ours[name]!r}, not {theirs[name]!r}" for name in ours if ours[name] != theirs[name]
    ]
    if changed:
        raise InputError(
            f"the sweep was started with {'; '.join(changed[:3])}: resume it as it is, or take another --out"
        )
    if (held.search is None) != (given.search is None):
        kinds = ("a grid", "a search") if held.search is None else ("a search", "a grid")
        raise InputError(f"the folder holds {kinds[0]}, not {kinds[1]}: take another --out")
    names = [[axis.field for axis in sweep.axes] for sweep in (held, given)]
    if set(names[0]) != set(names[1]):
        raise InputError(
            f"the sweep is over {_fields(held.axes)}, not {_fields(given.axes)}: take another --out, or give values "
            "for the same fields, which are added"
        )
    if held.search is not None and (set(held.axes), held.seeds) != (set(given.axes), given.seeds):
        raise InputError("the search was started with other intervals, values or seeds: take another --out")
    more = {axis.field: axis.values for axis in given.axes}
    axes = tuple(replace(axis, values=tuple(dict.fromkeys((*axis.values, *more[axis.field])))) for axis in held.axes)
    return Sweep(held.base, axes, tuple(dict.fromkeys((*held.seeds, *given.seeds))), given.search)


def _fields(axes: Sequence[Axis]) -> str:
    return " and ".join(flag_of(axis.field) for axis in axes) or "seeds alone"


def start_process(folder: SweepFolder, workers: int) -> Start:
    """Returns what starts a trial of a sweep in a process; it goes on with what its run folder holds."""
    config = str(folder.path / "config.py")

    def start(trial: Trial, slot: int) -> Process:
        arguments = ["--config", config, "--workdir", str(folder.run(trial)), "--resume", "auto", *trial.flags()]
        return TrialProcess(arguments, folder.log(trial), slot, workers)

    return start


def run_trials(
    plan: Plan,
    folder: SweepFolder,
    start: Start,
    workers: int,
    stop: Stop,
    after: Callable[[], Any] = lambda: None,
) -> None:
    """Runs the trials of a plan, so many side by side, until there are no more or `stop` is requested.

    A trial that fails is recorded and the next one is started. Where `stop` is requested the trials that run are asked
    to save, and this returns when they have. `after` is called when a trial has ended.
    """
    running: dict[int, tuple[Trial, Process]] = {}
    pruned: set[str] = set()
    asked: set[str] = set()
    while True:
        for slot in _free(running, workers, stop):
            if (trial := plan.take()) is None:
                break
            _wait_until_free(folder, trial, stop)
            folder.forget(trial)
            running[slot] = (trial, start(trial, slot))
            LOG.info(f"{trial.name}: started")
        if not running:
            return
        for slot, (trial, process) in list(running.items()):
            code = process.poll()
            if code is not None:
                del running[slot]
                outcome = _outcome(folder, trial, process, code, pruned=trial.name in pruned, asked=trial.name in asked)
                folder.record(trial, outcome)
                plan.ended(trial, outcome)
                _tell(trial, outcome)
                after()
            elif stop.at_once:
                process.kill()
            elif trial.name in asked | pruned:
                pass  # it saves
            elif stop.requested:
                asked.add(trial.name)
                process.stop()
            elif plan.watch(trial):
                pruned.add(trial.name)
                process.stop()
        time.sleep(_POLL_SECONDS if running else 0)


def _free(running: dict[int, Any], workers: int, stop: Stop) -> Iterator[int]:
    """The slots without a trial, as long as trials may be started."""
    for slot in range(workers):
        if slot not in running and not stop.requested:
            yield slot


def _wait_until_free(folder: SweepFolder, trial: Trial, stop: Stop) -> None:
    """Waits for the process that a killed sweep has left in the trial's run folder."""
    until = time.monotonic() + _UNLOCK_SECONDS
    told = False
    while is_trained(folder.run(trial)) and time.monotonic() < until and not stop.requested:
        if not told:
            LOG.info(f"{trial.name}: waiting for the process that still trains it")
        told = True
        time.sleep(_POLL_SECONDS)


def _outcome(folder: SweepFolder, trial: Trial, process: Process, code: int, *, pruned: bool, asked: bool) -> Outcome:
    """How a trial ended, by its exit code and its run folder."""
    if code == 0 and (result := folder.outcome(trial)) is not None and result.status == "done":
        return result
    top1 = max((line["validation"]["top1"] for line in folder.metrics(trial)), default=None)
    if pruned and (code == EXIT_INTERRUPTED or code < 0):
        return Outcome("pruned", process.seconds, top1=top1)
    if code == EXIT_INTERRUPTED or (asked and code != EXIT_INPUT):
        return Outcome("interrupted", process.seconds, process.last_line(), top1=top1)
    line = process.last_line() or f"exit code {code}"
    return Outcome("failed", process.seconds, f"ended by signal {-code}; last line: {line}" if code < 0 else line)


def _tell(trial: Trial, outcome: Outcome) -> None:
    figures = f", validation top-1 {100 * outcome.top1:.2f} %" if outcome.top1 is not None else ""
    line = f": {outcome.line}" if outcome.status == "failed" else ""
    LOG.log(
        logging.WARNING if outcome.status == "failed" else logging.INFO,
        f"{trial.name}: {outcome.status}{figures}, {outcome.seconds:.0f} s{line}",
    )


def describe(sweep: Sweep) -> str:
    """Returns what will be run, in a line."""
    seeds = f"{len(sweep.seeds)} seed{'s' * (len(sweep.seeds) > 1)}"
    axes = [f"{axis.label} {axis.range}" if axis.range else f"{axis.label} {_values(axis)}" for axis in sweep.axes]
    if sweep.search is not None:
        return f"{sweep.search} settings drawn from {', '.join(axes)}, {seeds} each"
    return f"{len(trials_of(sweep))} trials: {' x '.join([*axes, seeds])}"


def _values(axis: Axis) -> str:
    return "|".join(text_of(value) for value in axis.values)
