"""Settings drawn by an Optuna study instead of a grid: TPE sampler, median pruner, SQLite in the sweep's folder.

A draw of the study ("trial" in Optuna's words) is a setting; its value is the mean of the best validation top-1 over
the seeds. Any number of workers share a study: what one draws next takes into account what all have found.
"""

import contextlib
import math
import warnings
from dataclasses import dataclass, field
from typing import Any

from jaxcnn.errors import InputError
from jaxcnn.tuning.axes import Axis
from jaxcnn.tuning.sweep_folder import Outcome, Sweep, SweepFolder, Trial, text_of, trial_of, try_lock


@dataclass(eq=False)
class _Draw:
    """A setting that this worker has taken: its trials, those to start yet, and what was found."""

    own: Any  # optuna.trial.Trial
    trials: list[Trial]
    lock: contextlib.ExitStack
    waiting: list[Trial]
    top1: list[float]
    is_open: bool = True
    lines: int = 0
    steps: set[int] = field(default_factory=set)


class Search:
    """A plan whose settings a study draws, until all workers have drawn `sweep.search` of them; see `sweep.Plan`."""

    def __init__(self, folder: SweepFolder, sweep: Sweep, *, retry_failed: bool = False):
        """Opens the study, or makes it.

        Raises:
          InputError: Optuna is not installed, or the study cannot be opened.
        """
        assert sweep.search is not None
        self._folder, self._sweep, self._total = folder, sweep, sweep.search
        self._draws: dict[str, _Draw] = {}  # by the name of a trial
        (folder.path / ".workers").mkdir(exist_ok=True)
        with folder.turn():
            self._study = open_study(folder, sweep)
            worker = self._study.user_attrs.get("workers", 0)
            self._study.set_user_attr("workers", worker + 1)
            self._study.sampler = _sampler(sweep.base.seed + worker)  # workers that start together draw apart
            if retry_failed:
                for one in _uncontinued(self._study.get_trials(deepcopy=False), "FAIL"):
                    self._continue(one)

    def take(self) -> Trial | None:
        """Returns the next seed of a setting, or the first one of a new setting; none where all are drawn."""
        draw: _Draw | None = next((draw for draw in self._draws.values() if draw.waiting), None)
        while draw is None or not draw.waiting:
            if draw is not None:  # all its seeds had been trained before its worker was killed
                self._tell(draw)
            with self._folder.turn():
                draw = self._ask()
            if draw is None:
                return None
        return draw.waiting.pop(0)

    def watch(self, trial: Trial) -> bool:
        """Reports the evaluations of a setting's first seed to the study and returns whether it is to be pruned."""
        draw = self._draws[trial.name]
        lines = self._folder.metrics(trial) if draw.is_open and trial.name == draw.trials[0].name else []
        new, draw.lines = lines[draw.lines :], max(len(lines), draw.lines)
        for line in new:
            if (step := math.ceil(line["epoch"])) not in draw.steps:
                draw.own.report(line["validation"]["top1"], step)
                draw.steps.add(step)
        last = trial.config(self._sweep.base).train.epochs
        return bool(new) and lines[-1]["epoch"] < last and draw.own.should_prune()

    def ended(self, trial: Trial, outcome: Outcome) -> None:
        """Tells the study: the mean of a setting that is through, or that it failed, was pruned or will go on."""
        draw = self._draws[trial.name]
        if not draw.is_open:
            return  # another of its seeds has ended it
        if outcome.status == "done":
            assert outcome.top1 is not None
            draw.top1.append(outcome.top1)
            if len(draw.top1) == len(draw.trials):
                self._tell(draw)
        elif outcome.status == "interrupted":
            with self._folder.turn():
                self._continue(self._study.get_trials(deepcopy=False)[draw.own.number])
            self._close(draw)
        else:
            self._study.tell(draw.own, state=_state("PRUNED" if outcome.status == "pruned" else "FAIL"))
            self._close(draw)

    def trials(self) -> list[Trial]:
        """Returns the trials of all settings that any worker has drawn so far."""
        drawn: dict[int, dict[str, Any]] = {}
        for one in self._study.get_trials(deepcopy=False):
            if len(one.params) == len(self._sweep.axes):
                drawn[one.user_attrs.get("number", one.number)] = one.params
        return [trial for number, params in sorted(drawn.items()) for trial in self._trials(number, params)]

    def _trials(self, number: int, params: dict[str, Any]) -> list[Trial]:
        axes = self._sweep.axes
        values = tuple(
            params[axis.field] if axis.range else axis.values[_choices(axis).index(params[axis.field])] for axis in axes
        )
        return [trial_of(axes, values, seed, number) for seed in self._sweep.seeds]

    def _ask(self) -> _Draw | None:
        """The next setting, locked for this worker. In turn: else two workers draw the last one."""
        held = self._study.get_trials(deepcopy=False)
        for one in _uncontinued(held, "RUNNING"):
            with try_lock(self._lock_of(one.number), unknown=False) as is_orphan:
                if is_orphan:  # its worker was killed
                    self._continue(one)
        held = self._study.get_trials(deepcopy=False)
        if sum(len(_uncontinued(held, name)) for name in ("COMPLETE", "PRUNED", "FAIL", "RUNNING")) >= self._total:
            return None
        own = self._study.ask()
        lock = contextlib.ExitStack()
        lock.enter_context(try_lock(self._lock_of(own.number), unknown=True))
        if "number" not in own.user_attrs:
            own.set_user_attr("number", own.number)
        trials = self._trials(own.user_attrs["number"], {axis.field: _suggest(own, axis) for axis in self._sweep.axes})
        ends = {trial: self._folder.outcome(trial) for trial in trials}
        done = {trial: end.top1 for trial, end in ends.items() if end is not None and end.status == "done"}
        waiting = [trial for trial in trials if trial not in done]
        draw = _Draw(own, trials, lock, waiting, [top1 for top1 in done.values() if top1 is not None])
        self._draws |= {trial.name: draw for trial in trials}
        return draw

    def _continue(self, one: Any) -> None:
        """Puts a draw into the queue again, to go on in the same run folders; the draw itself counts no more."""
        number = one.user_attrs.get("number", one.number)
        self._study.enqueue_trial(one.params, user_attrs={"number": number, "continues": one.number})
        if not one.state.is_finished():
            self._study.tell(one.number, state=_state("FAIL"))

    def _tell(self, draw: _Draw) -> None:
        self._study.tell(draw.own, sum(draw.top1) / len(draw.top1))
        self._close(draw)

    def _close(self, draw: _Draw) -> None:
        draw.waiting.clear()
        draw.is_open = False
        draw.lock.close()

    def _lock_of(self, number: int) -> Any:
        return self._folder.path / ".workers" / f"{number}.lock"


def open_study(folder: SweepFolder, sweep: Sweep) -> Any:
    """Returns the Optuna study of a sweep, which is made where it is not there.

    Settings are pruned by the median of the others at the same epoch (Golovin et al. 2017, section 3.2.2), from the
    end of warm-up on, and from the sixth setting on.

    Raises:
      InputError: Optuna is not installed, or study.db is none of its.
    """
    optuna = _optuna()
    file = folder.path / "study.db"
    try:
        storage = optuna.storages.RDBStorage(
            f"sqlite:///{file.absolute()}", engine_kwargs={"connect_args": {"timeout": 60}}
        )
        return optuna.create_study(
            storage=storage,
            study_name="sweep",
            direction="maximize",
            load_if_exists=True,
            pruner=optuna.pruners.MedianPruner(n_warmup_steps=math.ceil(sweep.base.schedule.warmup_epochs)),
        )
    except Exception as error:  # of Optuna, SQLAlchemy and sqlite3
        raise InputError(f"{file} cannot be opened: {' '.join(str(error).split())[:200]}") from None


def check_search(sweep: Sweep) -> None:
    """Raises InputError where a search is not to be had: without Optuna, or where a grid is smaller."""
    if sweep.search is None:
        return
    if sweep.search < 1:
        raise InputError(f"--search {sweep.search}: at least 1")
    if not sweep.axes:
        raise InputError("--search: nothing to search; give an interval, such as --optim.peak-lr 0.001:1.0:log")
    size = math.prod(len(axis.values) for axis in sweep.axes if axis.range is None)
    if all(axis.range is None for axis in sweep.axes) and size <= sweep.search:
        raise InputError(f"--search {sweep.search}: the lists make {size} settings; leave it out and all are run")
    _optuna()


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise InputError('--search needs Optuna: pip install "jaxcnn[sweep]"') from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _sampler(seed: int) -> Any:
    """TPE (Bergstra et al. 2011, section 4), which counts what others are at as bad, so that workers spread out."""
    optuna = _optuna()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # constant_liar is called experimental by Optuna 4
        return optuna.samplers.TPESampler(seed=seed, constant_liar=True)


def _suggest(own: Any, axis: Axis) -> Any:
    """The value of a field in a draw, as the study keeps it."""
    if axis.range is None:
        return own.suggest_categorical(axis.field, _choices(axis))
    low, high, log = axis.range.low, axis.range.high, axis.range.log
    if isinstance(low, int):
        return own.suggest_int(axis.field, low, int(high), log=log)
    return own.suggest_float(axis.field, low, high, log=log)


def _choices(axis: Axis) -> list[str]:
    """The values of a field as text, which is all that a study keeps besides numbers."""
    texts = [text_of(value) for value in axis.values]
    return texts if len(set(texts)) == len(texts) else [repr(value) for value in axis.values]


def _uncontinued(trials: list[Any], state: str) -> list[Any]:
    """The draws in a state that were not put into the queue again."""
    continued = {one.user_attrs.get("continues") for one in trials}
    return [one for one in trials if one.state == _state(state) and one.number not in continued]


def _state(name: str) -> Any:
    return _optuna().trial.TrialState[name]
