"""`jaxcnn study transferability`: a linear probe on each stage of a pretrained network, as table and figure."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jaxcnn.config import DataConfig, LoopConfig, ModelConfig, ScheduleConfig, TrainConfig
from jaxcnn.errors import InputError

PRETRAINING = TrainConfig(
    name="digits_pretrain",
    data=DataConfig(classes=("0", "1", "2", "3", "4")),
    schedule=ScheduleConfig(warmup_epochs=1.0),
    train=LoopConfig(epochs=10.0),
)
"""What is pretrained where no weights are given: the quick start's network, shortly, on half of the digits."""
DIGITS = DataConfig(classes=("5", "6", "7", "8", "9"))
"""The target where none is given: the other half."""


@dataclass(frozen=True)
class Overrides:
    """The tasks and the network."""

    data: DataConfig
    """The target: a task that the weights were not trained for."""
    source_data: DataConfig
    """The task that the weights were trained for; of a run, its own."""
    model: ModelConfig
    """The network of the weights; of a run, its own."""


def run(argv: Sequence[str], *, started: float) -> int:
    """Runs the command and returns its exit code."""
    parser = argparse.ArgumentParser(prog="jaxcnn study", description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True, metavar="transferability")
    _add_transferability(commands)
    options, rest = parser.parse_known_args(list(argv))
    if options.seeds < 1:
        raise InputError(f"--seeds {options.seeds}: at least 1")

    from jaxcnn import runtime

    runtime.quiet_libraries()
    runtime.set_up_logging()
    runtime.enable_compilation_cache()
    return _transferability(options, rest)


def _add_transferability(commands: Any) -> None:
    parser = commands.add_parser(
        "transferability",
        help="what each stage of a pretrained network is good for",
        description="Top-1 of a linear probe on each point of a network: on the task its weights were trained for, on "
        "another, and with random weights. Without options a small network is trained on the digits 0 to 4, and 5 to 9 "
        "are the other task.",
        epilog="--data.* says what the target is (default: digits 5 to 9), --source-data.* the task of the weights "
        "(default: that of a run; none of a file), --model.* their network, for instance --model.name vgg16.",
        allow_abbrev=False,
    )
    parser.add_argument("--init-from", metavar="RUN|FILE|hf-hub:NAME", help="the weights (default: trained on digits)")
    parser.add_argument("--out", metavar="DIR", type=Path, default=Path("runs/transferability"),
                        help="where table and figure go (default: %(default)s)")  # fmt: skip
    parser.add_argument("--label", metavar="NAME", default="transferability", help="their file name")
    parser.add_argument("--seeds", metavar="N", type=int, default=3,
                        help="networks with random weights, and draws of few images (default: 3)")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")


def _transferability(options: Any, rest: list[str]) -> int:
    from jaxcnn.studies.report import as_json, as_markdown, write_report
    from jaxcnn.studies.transferability import study

    _check_place(options)
    setting = _setting(options, rest)
    findings = study(setting)
    try:
        files = write_report(findings, options.out, options.label)
    except OSError as error:
        raise InputError(f"--out {options.out}: {error.strerror}") from None
    if options.json:
        print(json.dumps({**as_json(findings), "files": files}))
    else:
        print(as_markdown(findings))
        print(f"figure: {files['figure']}   tables: {files['csv']}, {files['few']}, {files['markdown']}")
    return 0


def _check_place(options: Any) -> None:
    """Makes the folder, so that a study of an hour does not end with an error of a moment."""
    if not options.label or Path(options.label).name != options.label:
        raise InputError(f"--label {options.label!r}: a file name without folders")
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {options.out}: {error.strerror}") from None


def _setting(options: Any, rest: list[str]) -> Any:
    """What to study, by the options and, where they leave it open, by the run that the weights are from."""
    import tyro

    from jaxcnn.config_reader import check
    from jaxcnn.run_folder import RunFolder, is_run
    from jaxcnn.studies.transferability import Setting

    place = options.init_from
    own, has_source = PRETRAINING, place is None
    if place is not None and is_run(place):
        folder = RunFolder(place)
        own, has_source = folder.config, folder.has_data
    flags = {flag.partition("=")[0].replace("_", "-") for flag in rest}
    default = Overrides(  # of another data set, the classes of the default one mean nothing
        DataConfig() if flags & {"--data.name", "--data.source"} else DIGITS,
        DataConfig() if flags & {"--source-data.name", "--source-data.source"} else own.data,
        replace(own.model, num_classes=None),
    )
    given = tyro.cli(Overrides, prog="jaxcnn study transferability", default=default, args=rest) if rest else default
    target = check(TrainConfig(model=given.model, data=given.data), "command line")
    source = check(TrainConfig(data=given.source_data), "command line")
    if place is None:
        place = _pretrained(options.out / "pretrained", replace(PRETRAINING, data=source.data, model=target.model))
    has_source = has_source or any(flag.startswith("--source-data.") for flag in flags)
    return Setting(place, target.model, target.data, source.data if has_source else None, options.seeds)


def _pretrained(place: Path, config: TrainConfig) -> str:
    """The folder of a short run on the source task, which is made, or gone on with, where it is not there yet."""
    from jaxcnn.build import build_job
    from jaxcnn.loop import StopRequest, train
    from jaxcnn.run_folder import RunFolder, is_run

    held = RunFolder(place) if is_run(place) else None
    if held is not None and held.config != config:
        raise InputError(f"{place} was trained with another config: take another --out, or --init-from {place}")
    if (place / "result.json").is_file():
        return str(place)
    with StopRequest() as stop:
        stop.immediate = True
        job = build_job(config, held)
        stop.immediate = False
        folder = held or RunFolder.create(place, config, job.network.class_names, job.network.preprocessing)
        with folder.locked():
            train(job, folder, stop)
    return str(place)
