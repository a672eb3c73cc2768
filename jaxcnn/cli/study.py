"""`jaxcnn study NAME`: a lesson of convolutional networks, shown by running it: table, figure, claims."""

import argparse
import dataclasses
import json
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxcnn.config import DataConfig, TrainConfig
from jaxcnn.errors import InputError, Interrupted


@dataclass(frozen=True)
class Overrides:
    """The data of a study."""

    data: DataConfig
    """Which data, in the place of those of the size."""


def run(argv: Sequence[str], *, started: float) -> int:
    """Runs the command and returns its exit code."""
    from jaxcnn.studies.catalogue import STUDIES, find_study

    if list(argv[:1]) == ["transferability"]:
        from jaxcnn.cli import study_transferability

        return study_transferability.run(argv, started=started)
    options, rest = parser_of(STUDIES).parse_known_args(list(argv))
    names = list(STUDIES) if options.name == "all" else [options.name]
    for name in names:
        find_study(name)
    if options.seeds < 1:
        raise InputError(f"--seeds {options.seeds}: at least 1")
    options.rest, data = rest, _data(options, rest)

    from jaxcnn import runtime

    runtime.quiet_libraries()
    runtime.set_up_logging()
    runtime.enable_compilation_cache()
    reports = [carry_out(name, options, data, find_study(name)) for name in names]
    if options.json:
        print(json.dumps(reports if options.name == "all" else reports[0]))
    return 0


def parser_of(studies: dict[str, str]) -> argparse.ArgumentParser:
    """Returns the options that all studies have."""
    rows = "\n".join(f"  {name:16s} {text}" for name, text in studies.items())
    parser = argparse.ArgumentParser(
        prog="jaxcnn study",
        description=f"{__doc__}\n\nstudies, in the order of the course:\n{rows}\n  all              these, one by one",
        epilog="--data.* takes other data than the size's, such as --data.data-dir DIR, where CIFAR-10 is prepared.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("name", metavar="NAME", help="a study, or all")
    parser.add_argument("--size", choices=("quick", "cpu", "paper"), default="quick",
                        help="quick: minutes, on the digits; cpu: CIFAR-10, cut to at most some 40 minutes a seed on "
                        "two cores; paper: as published, for a GPU (default: quick)")  # fmt: skip
    parser.add_argument("--seeds", metavar="N", type=int, default=3, help="seeds 0 .. N-1 (default: 3)")
    parser.add_argument("--out", metavar="DIR", type=Path, default=None,
                        help="where table, figure and trials go (default: runs/studies/NAME-SIZE)")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="JSON on standard output")
    return parser


def _data(options: Any, rest: list[str]) -> DataConfig:
    """The data of the size, or those that the command line names."""
    import tyro

    from jaxcnn.config_reader import check
    from jaxcnn.studies.setting import DATA

    flags = {flag.partition("=")[0].replace("_", "-") for flag in rest}
    # Splits and classes of the default data set mean nothing for another.
    default = DataConfig() if flags & {"--data.name", "--data.source"} else DATA[options.size]
    if not rest:
        return default
    given = tyro.cli(Overrides, prog=f"jaxcnn study {options.name}", default=Overrides(default), args=rest)
    return check(TrainConfig(data=given.data), "command line").data


def carry_out(name: str, options: Any, data: DataConfig, study: Callable) -> dict[str, Any]:
    """Runs a study, writes and tells what it found, and returns it as JSON takes it."""
    from jaxcnn.runtime import environment
    from jaxcnn.studies.rendering import as_markdown, write_findings
    from jaxcnn.studies.setting import Setting
    from jaxcnn.studies.trials import Trials

    out = options.out or Path("runs/studies") / f"{name}-{options.size}"
    if options.out is not None and options.name == "all":
        out = options.out / name
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {out}: {error.strerror}") from None
    begun = time.perf_counter()
    trials = Trials(out / "trials")
    try:
        findings = study(Setting(options.size, data, tuple(range(options.seeds)), trials))
    except KeyboardInterrupt:  # between its trainings
        told = f"what was trained is kept in {trials.folder}"
        raise Interrupted(f"interrupted; {told}: the same command goes on from there") from None
    seconds = time.perf_counter() - begun
    findings = dataclasses.replace(findings, setup=findings.setup + _of_other_data(options, data))
    footer = (
        f"`{_command(name, options)}`, "
        f"{', '.join(sorted(trials.devices)) or environment()['device']}: {trials.told(seconds)}."
    )
    try:
        files = write_findings(findings, out, footer)
    except OSError as error:
        raise InputError(f"--out {out}: {error.strerror}") from None
    if not options.json:
        print(as_markdown(findings, footer, with_figure=False))
        print(f"figure: {files[f'{name}.png']}   tables: {out}/*.csv, {files[f'{name}.md']}")
    return {**findings.as_json(), "size": options.size, "seconds": seconds, "files": files}


def _command(name: str, options: Any) -> str:
    """The command that repeats a study, but for where things lie on this machine."""
    rest = list(options.rest)
    for place, flag in reversed(list(enumerate(rest))):
        if flag.partition("=")[0].replace("_", "-") in ("--data.data-dir", "--data.cache-dir"):
            del rest[place : place + (1 if "=" in flag else 2)]
    return shlex.join(["jaxcnn", "study", name, "--size", options.size, "--seeds", str(options.seeds), *rest])


def _of_other_data(options: Any, data: DataConfig) -> str:
    """What is to be added to what was run, where the data are not those of the size."""
    from jaxcnn.studies.setting import DATA

    if options.name == "transferability":  # which tells its data itself
        return ""
    usual = dataclasses.replace(DATA[options.size], data_dir=data.data_dir, cache_dir=data.cache_dir)
    if data == usual and (data.source == "tfds" or data.data_dir is None):
        return ""
    differ = (field.name for field in dataclasses.fields(data))
    told = ", ".join(
        f"{name}={getattr(data, name)!r}" for name in differ if getattr(data, name) != getattr(usual, name)
    )
    return f"\n\n**Other data than those of the size**, whose names and numbers above do not hold for them: {told}."
