"""`jaxcnn train` and `python train.py`: parse, build, run."""

import argparse
import contextlib
import json
import logging
import shlex
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from jaxcnn import processes
from jaxcnn.cli.train_start import check_alike, check_resumable, held_run, new_path
from jaxcnn.config import TrainConfig
from jaxcnn.errors import InputError, RunFailed
from jaxcnn.interruption import StopRequest
from jaxcnn.run_folder import RunFolder, going_on

_LOCK_SECONDS = 60.0  # a scheduler may start a job again while the one before is still saving

DESCRIPTION = """Train an image classifier. Without --config, a ResNet-8 on 5,000 real digits."""


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="train.py", usage=argparse.SUPPRESS, description=DESCRIPTION, add_help=False, allow_abbrev=False
    )
    group = parser.add_argument_group("run options")
    group.add_argument("--config", metavar="FILE", help="Python file with get_config(); fields below override it")
    group.add_argument("--workdir", metavar="RUN", help="run folder (default: runs/NAME-TIME)")
    group.add_argument(
        "--resume",
        nargs="?",
        const="always",
        choices=("always", "auto"),
        help="go on with the run in --workdir with the config it holds; auto: or start it if it is not there",
    )
    group.add_argument(
        "--preflight",
        nargs="?",
        const="stop",
        choices=("stop", "tell"),
        help="check data, network, loss and learning rate first; RUN-preflight/ has the report; stop (the default): "
        "if a check fails there is no run; tell: there is",
    )
    group.add_argument(
        "--find-lr",
        action="store_true",
        help="sweep the learning rate first and train with the suggested optim.peak_lr, which is then in the run's "
        "config; a run that goes on keeps the rate that it has",
    )
    group.add_argument("--profile", metavar="FIRST:LAST", help="trace these steps with jax.profiler into RUN/profile")
    group.add_argument(
        "--receipt",
        default="auto",
        choices=("auto", "full"),
        help="before the first step say what trains, what is frozen and what a step costs; full: also compiled memory "
        "and the measured time of a step beside that of full fine-tuning",
    )
    group.add_argument("--json", action="store_true", help="print the result as one JSON object on standard output")
    processes.add_options(parser)
    return parser


def parse_config(
    default: TrainConfig, rest: Sequence[str], options: argparse.ArgumentParser, prog: str = "train.py"
) -> TrainConfig:
    """Returns the config with the command line's overrides; --help lists every field with its default."""
    import tyro

    from jaxcnn.config_reader import check

    config = tyro.cli(
        TrainConfig, prog=prog, description=options.format_help(), default=default, args=list(rest), add_help=True
    )
    return check(config, "command line")


def run(argv: Sequence[str], *, started: float, stop: StopRequest) -> int:
    """Runs the command and returns its exit code; `stop` may be left at once where this begins."""
    parser = _options()
    options, rest = parser.parse_known_args(list(argv))
    from jaxcnn import runtime

    log = runtime.set_up_logging()
    with processes.joined(processes.launch_of(options)):
        if not processes.is_first():
            log.setLevel(logging.ERROR)
        return _run(options, rest, parser, started=started, stop=stop)


def _run(
    options: argparse.Namespace,
    rest: Sequence[str],
    parser: argparse.ArgumentParser,
    *,
    started: float,
    stop: StopRequest,
) -> int:
    from jaxcnn.config_reader import load_config

    path = Path(options.workdir) if options.workdir else None
    held = held_run(options, path)
    own = held.config if held is not None else TrainConfig()
    default = load_config(options.config) if options.config else own
    config = parse_config(default, rest, parser)
    if held is not None:
        if options.find_lr:  # the same command line as at the start: the rate was found then
            optim = replace(config.optim, peak_lr=held.config.optim.peak_lr)
            config = replace(config, optim=optim)
        config = check_resumable(held, config)
    check_alike(config)
    if held is not None and (finished := held.result()) is not None:
        result, path = _finished(held, finished), held.path
    else:
        path = path or Path(processes.agree(str(new_path(config.name)), "the run folder"))
        result, path = _train(config, options, path, held, started=started, stop=stop)
    stop.answered()
    if not processes.is_first():
        return 0
    if options.json:
        print(json.dumps({"workdir": str(path), **result}))
    else:
        print(_summary(result, path))
    return 0


def _finished(run: RunFolder, result: dict[str, Any]) -> dict[str, Any]:
    """The result of a run that has ended already."""
    from jaxcnn.certificate import Certificate

    Certificate(run).check()
    return result


def _train(
    config: TrainConfig, options: Any, path: Path, held: RunFolder | None, *, started: float, stop: StopRequest
) -> tuple[dict[str, Any], Path]:
    from jaxcnn import runtime

    runtime.quiet_libraries()
    log = logging.getLogger("jaxcnn")
    if config.train.compilation_cache:
        runtime.enable_compilation_cache()

    from jaxcnn.build import build_job
    from jaxcnn.loop import train
    from jaxcnn.trace import StepTrace
    from jaxcnn.training.learning_rates import peak_rate

    trace = StepTrace.parse(options.profile, path / "profile") if options.profile else None
    job = build_job(config, held, check=lambda total_steps: _check_trace(trace, options.profile, total_steps))
    stop.check()
    curve, planned = None, peak_rate(config)
    if options.find_lr and held is None:
        config, curve = _with_found_rate(job, log)
        job = build_job(config)
        stop.check()
    if options.preflight and held is None:
        if processes.count() > 1:
            raise InputError("--preflight: its checks run in one process: jaxcnn preflight, before these are started")
        _check_first(config, path, options.preflight, log, stop)
    with stop.nowhere():
        folder = held or RunFolder.create(path, config, job.network.class_names, job.network.preprocessing)
        if not (folder.path / "environment.json").is_file():
            folder.write_json("environment.json", runtime.environment())
        if curve is not None:
            if processes.is_first():
                curve.plot(folder.path / "lr_finder.png", path.name, planned)
            folder.write_json("lr_finder.json", curve.to_json())
    processes.advise(f"start all of them again with --workdir {shlex.quote(str(folder.path))} --resume")
    seconds = _LOCK_SECONDS if held else 0.0
    with stop.anywhere(lambda: _not_begun(folder), at_once=True), _writing(folder), folder.locked(seconds):
        started += _tell_receipts(job, folder, options.receipt, log, again=held is not None)
        log.info(f"run: {path}, {job.total_steps} steps, {config.train.epochs:g} epochs")
        with stop.nowhere():
            result = train(job, folder, stop, trace=trace, started=started)
            stop.answered()
        return result, path


@contextlib.contextmanager
def _writing(folder: RunFolder) -> Iterator[None]:
    """Tells in one line that something cannot be written into a run's folder."""
    try:
        yield
    except OSError as error:
        raise RunFailed(f"{folder.path}: {error}") from error


def _not_begun(folder: RunFolder) -> str:
    return f"interrupted before the first step of this start: nothing is lost; go on with: {going_on(folder)}"


def _check_first(config: TrainConfig, path: Path, mode: str, log: Any, stop: StopRequest) -> None:
    """Carries out the checks of `jaxcnn preflight`; raises InputError where one fails and the run is to stop then."""
    from jaxcnn.cli.preflight import check_run
    from jaxcnn.tuning.preflight import failed

    def say(text: str) -> None:
        log.info(text)
        stop.check()

    place = Path(f"{path.resolve() if path.name in ('', '..') else path}-preflight")
    findings, files = check_run(config, place, html=False, say=say)
    names = ", ".join(one.check for one in failed(findings))
    if names and mode == "stop":
        raise InputError(
            f"preflight: {names} failed, so nothing was trained; report: {files['figure']} (--preflight tell trains "
            "all the same)"
        )


def _with_found_rate(job: Any, log: Any) -> tuple[TrainConfig, Any]:
    """The config of a job with the learning rate that a sweep suggests, and the curve of the sweep."""
    from jaxcnn.training.learning_rates import peak_told
    from jaxcnn.tuning.lr_finder import find_lr, with_rate

    curve = find_lr(job)
    config = with_rate(job.config, curve)
    log.info(f"{curve.sentence()}; optim.peak_lr={peak_told(config)}, not {peak_told(job.config)}")
    return config, curve


def _check_trace(trace: Any, given: str | None, total_steps: int) -> None:
    if trace is not None and trace.first >= total_steps:
        raise InputError(f"--profile {given}: the run has {total_steps} steps")


def _tell_receipts(job: Any, folder: RunFolder, detail: str, log: Any, *, again: bool) -> float:
    """Says what trains and what it costs, writes receipt.json, and returns the seconds that measuring took."""
    from jaxcnn.receipt import receipts_of

    began = time.perf_counter()
    receipts = receipts_of(job, detail)
    for line in (line for receipt in receipts for line in receipt.lines()):
        log.info(line)
    if not (again and detail != "full" and (folder.path / "receipt.json").is_file()):  # it may hold what was measured
        folder.write_json("receipt.json", [asdict(receipt) for receipt in receipts])
    return time.perf_counter() - began if detail == "full" else 0.0


def _summary(result: dict[str, Any], path: Path) -> str:
    from jaxcnn.gap import gap_sentence

    parts = []
    for split in ("test", "validation"):
        if split in result:
            figures = result[split]
            parts.append(f"{split} top-1 {100 * figures['top1']:.2f} % ({figures['examples']:,} examples)")
    lines = [f"{', '.join(parts)}, {result['parameters']:,} parameters, {result['seconds']:.0f} s"]
    if "diagnosis" in result:  # of a run of an older version there is none
        lines.append(result["diagnosis"]["sentence"])
    if result.get("gap"):
        lines.append(gap_sentence(result["gap"]))
    return "\n".join([*lines, f"curves: {path / 'curves.png'}   figures: {path / 'result.json'}"])
