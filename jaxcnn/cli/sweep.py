"""`jaxcnn sweep`: one config with several values of some fields and several seeds, as table and figure."""

import argparse
import contextlib
import itertools
import json
import logging
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from jaxcnn.config import TrainConfig
from jaxcnn.errors import InputError, Interrupted, RunFailed

DESCRIPTION = """Train a config with several values of some of its fields, a process a run, and compare them by
validation top-1: a table, a figure, and the command line of the best one."""

EPILOG = r"""
Every flag of `jaxcnn train --help` is taken; a list makes it a field of the grid, and several lists all pairs:

  --optim.peak-lr 0.01,0.03,0.1            numbers, names, choices, true,false: commas, no spaces
  --data.train-split 'train[:10%],train'   texts too; a comma that belongs to a value is written \,
  --freeze 'backbone/stem/**;backbone/**'  fields of several values (globs, classes, areas): settings are parted by ;
                                           and written as for train; of nothing: --freeze ';backbone/**'
  --optim.clip-norm none,1                 none: no value
  --optim.peak-lr 0.001:1.0:log            with --search: an interval LOW:HIGH, :log to draw its logarithm evenly

A flag with one value is the same for all. --seeds 3 trains seed, seed + 1 and seed + 2 of each setting.

The folder: sweep.json, a run folder a trial (peak-lr=0.03,seed=1), logs/, results.csv, .md, .json and .png. A trial
that fails is recorded with its last line and is not run again, unless --retry-failed. Ctrl-C or SIGTERM lets the trials
that run save and ends with code 75; --out SWEEP --resume goes on, and other values or seeds given then are added.
A search may be started several times with one --out, on machines that share the folder: all draw from one study.
"""


class _Parser(argparse.ArgumentParser):
    """Tells a mistake in one line, as everything else does."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see jaxcnn sweep --help")


def _options() -> argparse.ArgumentParser:
    parser = _Parser(prog="jaxcnn sweep", usage="jaxcnn sweep --config FILE --FIELD VALUE,VALUE ... [options]",
                     description=DESCRIPTION, epilog=EPILOG, allow_abbrev=False,
                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--config", metavar="FILE", help="Python file with get_config() (default: the quick start)")
    parser.add_argument("--out", metavar="SWEEP", type=Path, help="the folder (default: runs/NAME-sweep-TIME)")
    parser.add_argument("--seeds", metavar="N", type=_count, help="trials of each setting (default: 1)")
    parser.add_argument("--workers", metavar="N", type=_count, default=1,
                        help="trials side by side, each with its share of the cores (default: 1)")  # fmt: skip
    parser.add_argument("--search", metavar="N", type=_count,
                        help="instead of a grid draw N settings by Optuna, and stop bad ones early")  # fmt: skip
    parser.add_argument("--resume", nargs="?", const="always", choices=("always", "auto"),
                        help="go on with the sweep in --out; auto: or start it if it is not there")  # fmt: skip
    parser.add_argument("--retry-failed", action="store_true", help="run failed trials again")
    parser.add_argument("--test", action="store_true",
                        help="also report top-1 on test; what is best is chosen by validation in any case")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    return parser


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def run(argv: Sequence[str], *, started: float) -> int:
    """Runs the command and returns its exit code."""
    options, rest = _options().parse_known_args(list(argv))

    from jaxcnn import runtime
    from jaxcnn.tuning.study_search import check_search
    from jaxcnn.tuning.sweep import check_trials
    from jaxcnn.tuning.sweep_folder import SweepFolder

    held = _held(options)
    sweep = _sweep(options, rest, held)
    check_trials(sweep)
    check_search(sweep)
    runtime.set_up_logging()
    folder = SweepFolder(options.out or _new_path(sweep.base.name))
    with folder.alone() if sweep.search is None else contextlib.nullcontext():
        with folder.turn():
            folder.write_sweep(_merged(folder.sweep(), sweep, folder.path) if folder.exists else sweep)
        return _run(folder, options)


def _held(options: Any) -> Any:
    """The sweep to go on with; none to begin one."""
    from jaxcnn.tuning.sweep_folder import SweepFolder

    path = options.out
    if path is None:
        if options.resume is not None:
            raise InputError("--resume needs --out SWEEP: which sweep to go on with")
        return None
    if not (path / "sweep.json").is_file():
        if options.resume == "always":
            raise InputError(f"--out {path} --resume: there is no sweep to go on with; without --resume one starts")
        return None
    held = SweepFolder(path).sweep()
    if options.resume is None and (options.search is None or held.search is None):
        raise InputError(f"--out {path} already holds a sweep: go on with it by adding --resume, or choose another")
    return held


def _sweep(options: Any, rest: Sequence[str], held: Any) -> Any:
    """What is swept, by the command line; what it leaves open, by the sweep that the folder holds."""
    from jaxcnn.config_reader import check, load_config
    from jaxcnn.tuning.axes import read_flags, with_value
    from jaxcnn.tuning.sweep_folder import Sweep

    search = options.search or (held.search if held is not None else None)
    overrides, axes = read_flags(rest, search=search is not None)
    own = held.base if held is not None else TrainConfig()
    base = load_config(options.config) if options.config else own
    for field, value in overrides.items():
        base = with_value(base, field, value)
    base = check(base, "command line")
    listed = next((axis for axis in axes if axis.field == "seed"), None)
    if listed is not None and (options.seeds is not None or not listed.values):
        raise InputError("--seed takes a list of seeds, or --seeds says how many: not both, and no interval")
    if listed is not None:
        seeds = listed.values
        base = with_value(base, "seed", own.seed if held is not None else seeds[0])
    elif options.seeds is not None or held is None:
        seeds = tuple(range(base.seed, base.seed + (options.seeds or 1)))
    else:
        seeds = held.seeds
    several = tuple(axis for axis in axes if axis is not listed) or (held.axes if held is not None else ())
    given = Sweep(base, several, seeds, search)
    return given if held is None else _merged(held, given, options.out)


def _merged(held: Any, given: Any, path: Path) -> Any:
    from jaxcnn.tuning.sweep import merged

    try:
        return merged(held, given)
    except InputError as error:
        raise InputError(f"--out {path}: {error}") from None


def _new_path(name: str) -> Path:
    """runs/NAME-sweep-TIME, with a number after it if that is taken."""
    stem = f"runs/{name}-sweep-{time.strftime('%Y%m%d-%H%M%S')}"
    paths = (Path(stem if number == 1 else f"{stem}-{number}") for number in itertools.count(1))
    return next(path for path in paths if not path.exists())


def _run(folder: Any, options: Any) -> int:
    """Runs the trials, keeps the tables up to date, and tells what was found."""
    from jaxcnn.tuning.study_search import Search
    from jaxcnn.tuning.sweep import Grid, Stop, describe, run_trials, start_process
    from jaxcnn.tuning.sweep_report import rows_of, write_report

    sweep = folder.sweep()
    logging.getLogger("jaxcnn").info(f"{folder.path}: {describe(sweep)}")
    plan = (Grid if sweep.search is None else Search)(folder, sweep, retry_failed=options.retry_failed)

    def ends() -> list[Any]:
        return [(trial, folder.outcome(trial)) for trial in plan.trials()]

    def report() -> tuple[list[Any], dict[str, str]]:
        rows = rows_of(ends(), test=options.test)
        return rows, write_report(rows, sweep, folder)

    with Stop() as stop:
        try:
            run_trials(plan, folder, start_process(folder, options.workers), options.workers, stop, after=report)
            rows, files = report()
        except OSError as error:
            raise RunFailed(f"{folder.path}: {error.strerror or error}") from error
    _check_whole(folder, sweep, ends(), stop)
    _tell(rows, sweep, folder, files, options)
    return 0


def _check_whole(folder: Any, sweep: Any, ends: Sequence[Any], stop: Any) -> None:
    """Raises what ends the command with another code than 0: trials that were interrupted, or none that is done."""
    states = [end.status if end is not None else "open" for _, end in ends]
    if stop.at_once:
        raise KeyboardInterrupt
    if stop.requested or "interrupted" in states:
        total = f"{len(states)} trials" if sweep.search is None else f"{sweep.search * len(sweep.seeds)} trials"
        raise Interrupted(
            f"interrupted: {states.count('done')} of {total} are done, those that ran are saved; "
            f"go on with: jaxcnn sweep --out {shlex.quote(str(folder.path))} --resume"
        )
    if "done" not in states and "open" not in states:
        line = next((end.line for _, end in ends if end is not None and end.line), "")
        raise RunFailed(f"no trial was done; the first one ended with: {line or 'nothing'}; see {folder.path / 'logs'}")


def _tell(rows: Sequence[Any], sweep: Any, folder: Any, files: dict[str, str], options: Any) -> None:
    from jaxcnn.tuning.sweep_report import as_json, as_markdown

    if options.json:
        print(json.dumps({**as_json(rows, sweep, folder), "files": files}))
    else:
        print(as_markdown(rows, sweep, folder))
        print(f"figure: {files.get('figure', 'none')}   tables: {files['csv']}, {files['markdown']}, {files['json']}")
