"""`jaxcnn train` and `python train.py`: parse, build, run."""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxcnn.config import TrainConfig
from jaxcnn.errors import InputError

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
    group.add_argument("--profile", metavar="FIRST:LAST", help="trace these steps with jax.profiler into RUN/profile")
    group.add_argument("--json", action="store_true", help="print the result as one JSON object on standard output")
    return parser


def parse_config(default: TrainConfig, rest: Sequence[str], options: argparse.ArgumentParser) -> TrainConfig:
    """Returns the config with the command line's overrides; --help lists every field with its default."""
    import tyro

    from jaxcnn.config_reader import check

    config = tyro.cli(
        TrainConfig, prog="train.py", description=options.format_help(), default=default, args=list(rest), add_help=True
    )
    return check(config, "command line")


def run(argv: Sequence[str], *, started: float | None = None) -> int:
    """Runs the command and returns its exit code."""
    started = time.perf_counter() if started is None else started
    parser = _options()
    options, rest = parser.parse_known_args(list(argv))
    from jaxcnn.config_reader import load_config

    default = load_config(options.config) if options.config else TrainConfig()
    config = parse_config(default, rest, parser)
    result, folder = _train(config, options, overridden=bool(rest or options.config), started=started)
    if options.json:
        print(json.dumps({"workdir": str(folder), **result}))
    else:
        print(_summary(result, folder))
    return 0


def _train(config: TrainConfig, options: Any, *, overridden: bool, started: float) -> tuple[dict[str, Any], Path]:
    from jaxcnn import runtime
    from jaxcnn.run_folder import RunFolder, check_free, is_run

    resuming = options.resume is not None
    if resuming and options.workdir is None:
        raise InputError("--resume needs --workdir RUN: which run to go on with")
    path = Path(options.workdir or f"runs/{config.name}-{time.strftime('%Y%m%d-%H%M%S')}")
    found = is_run(path)
    if resuming and options.resume == "always" and not found:
        raise InputError(f"--workdir {path} --resume: there is no run to go on with; leave out --resume to start one")
    if resuming and found:
        config = _config_of(RunFolder(path), config, overridden)
    else:
        check_free(path)
    runtime.quiet_libraries()
    log = runtime.set_up_logging()
    if config.train.compilation_cache:
        runtime.enable_compilation_cache()

    from jaxcnn.build import build_job
    from jaxcnn.loop import StopRequest, train
    from jaxcnn.trace import StepTrace

    trace = StepTrace.parse(options.profile, path / "profile") if options.profile else None
    with StopRequest() as stop:
        job = build_job(config)
        if trace is not None and trace.first >= job.total_steps:
            raise InputError(f"--profile {options.profile}: the run has {job.total_steps} steps")
        network = job.network
        folder = (
            RunFolder(path) if found else RunFolder.create(path, config, network.class_names, network.preprocessing)
        )
        folder.lock()
        if not found:
            folder.write_json("environment.json", runtime.environment())
        log.info(f"run: {path}, {job.total_steps} steps, {config.train.epochs:g} epochs")
        return train(job, folder, stop, trace=trace, started=started), path


def _config_of(folder: Any, given: TrainConfig, overridden: bool) -> TrainConfig:
    """The config of an existing run; raises InputError for imported weights, or if the command line differs."""
    if folder.is_imported:
        raise InputError(f"{folder.path} holds imported weights, no training to go on with: --init-from {folder.path}")
    held = folder.config
    if not overridden or held == given:
        return held
    from dataclasses import asdict

    from jaxcnn.paths import flatten

    ours, theirs = flatten(asdict(held)), flatten(asdict(given))
    changed = [
        f"{path.replace('/', '.')}={ours[path]!r}, not {theirs[path]!r}" for path in ours if ours[path] != theirs[path]
    ]
    raise InputError(
        f"{folder.path} was started with {'; '.join(changed[:3])}: resume without a config and overrides, "
        f"or start another run from its weights with --init-from {folder.path}"
    )


def _summary(result: dict[str, Any], path: Path) -> str:
    parts = []
    for split in ("test", "validation"):
        if split in result:
            figures = result[split]
            parts.append(f"{split} top-1 {100 * figures['top1']:.2f} % ({figures['examples']:,} examples)")
    return (
        f"{', '.join(parts)}, {result['parameters']:,} parameters, {result['seconds']:.0f} s\n"
        f"curves: {path / 'curves.png'}   figures: {path / 'result.json'}"
    )
