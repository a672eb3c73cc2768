"""`jaxcnn study transferability`: a probe on each stage of a pretrained network, and what few images make of it.

Beside the options of all studies: --init-from takes given weights in the place of networks that the study trains;
--data.* says what the target is, --source-data.* the task of the weights (of a run, its own), --model.* their network,
for instance --model.name vgg16.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from jaxcnn.config import DataConfig, ModelConfig, TrainConfig
from jaxcnn.errors import InputError

DIGITS = DataConfig(classes=("5", "6", "7", "8", "9"))
"""The target of given weights where none is named."""
SOURCES = {"--source-data.name", "--source-data.source"}


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
    from jaxcnn.cli import study as common
    from jaxcnn.studies.catalogue import STUDIES
    from jaxcnn.studies.transferability import study

    parser = common.parser_of(STUDIES)
    parser.description, parser.epilog = __doc__, None
    _add_options(parser)
    options, rest = parser.parse_known_args(list(argv))
    if options.seeds < 1:
        raise InputError(f"--seeds {options.seeds}: at least 1")

    from jaxcnn import runtime

    runtime.quiet_libraries()
    runtime.set_up_logging()
    runtime.enable_compilation_cache()
    trains = {None: [], True: ["--train"], False: ["--no-train"]}[options.train]
    options.rest = [*([] if options.init_from is None else ["--init-from", options.init_from]), *trains, *rest]
    data, transfer_of = _transfer(options, rest)
    report = common.carry_out(options.name, options, data, lambda setting: study(setting, transfer_of(setting)))
    if options.json:
        print(json.dumps(report))
    return 0


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--init-from", metavar="RUN|FILE|hf-hub:NAME",
                        help="the weights (default: networks that the study trains, one a seed)")  # fmt: skip
    parser.add_argument("--train", action=argparse.BooleanOptionalAction, default=None,
                        help="whether networks are fine-tuned, and trained from scratch, from few images (default: "
                        "unless weights are given)")  # fmt: skip


def _transfer(options: Any, rest: list[str]) -> tuple[DataConfig, Callable[[Any], Any]]:
    """(the target, setting -> what to study): what the options leave open follows from the run, or from the size."""
    import tyro

    from jaxcnn.config_reader import check
    from jaxcnn.run_folder import RunFolder, is_run
    from jaxcnn.studies import transfer_tasks
    from jaxcnn.studies.setting import DATA

    place = options.init_from
    of_run = RunFolder(place) if place is not None and is_run(place) else None
    flags = {flag.partition("=")[0].replace("_", "-") for flag in rest}
    # Of another data set, the classes and splits of the default one mean nothing.
    target = DIGITS if place is not None else DATA[options.size]
    target = DataConfig() if flags & {"--data.name", "--data.source"} else target
    source = DataConfig() if of_run is None or flags & SOURCES else of_run.config.data
    model = transfer_tasks.MODELS[options.size] if place is None else ModelConfig()
    model = model if of_run is None else replace(of_run.config.model, num_classes=None)
    default = Overrides(target, source, model)
    given = tyro.cli(Overrides, prog="jaxcnn study transferability", default=default, args=rest) if rest else default
    target = check(TrainConfig(model=given.model, data=given.data), "command line").data
    source = check(TrainConfig(data=given.source_data), "command line").data
    has_source = any(flag.startswith("--source-data.") for flag in flags) or (of_run is not None and of_run.has_data)

    def transfer_of(setting: Any) -> Any:
        if place is None and not has_source:
            found = replace(transfer_tasks.transfer_of(setting), model=given.model)
        else:
            found = transfer_tasks.Transfer(given.model, source if has_source else None, (target,), place)
        return replace(found, trains=place is None if options.train is None else options.train)

    return target, transfer_of
