"""`jaxcnn preflight --config C`: what is wrong with a run, before it is paid for.

Data, first loss, signal and gradients, a small sample to overfit, the learning rate, speed and memory: each check has a
verdict, the figure, what was expected and what to do.
"""

import argparse
import itertools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from jaxcnn.config import TrainConfig
from jaxcnn.errors import EXIT_INTERNAL, InputError
from jaxcnn.whole import write_whole

_SHEET = (8, 6)  # images, and draws of each


def run(argv: Sequence[str], *, started: float) -> int:
    """Runs the command and returns its exit code: 1 if a check fails."""
    parser = argparse.ArgumentParser(
        prog="jaxcnn preflight",
        usage=argparse.SUPPRESS,
        description=__doc__,
        add_help=False,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", metavar="FILE", help="Python file with get_config(); fields below override it")
    parser.add_argument(
        "--out", metavar="DIR", type=Path, help="where the report goes (default: runs/preflight-NAME-TIME)"
    )
    parser.add_argument("--html", action="store_true", help="the report as one HTML page too")
    parser.add_argument("--plant", metavar="FAULT", help="plant a known fault first, to see what the checks say of it; "
                        "docs/tuning.md lists them, and so does an unknown name")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    options, rest = parser.parse_known_args(list(argv))

    from jaxcnn import runtime
    from jaxcnn.cli.train import parse_config
    from jaxcnn.config_reader import load_config

    config = parse_config(
        load_config(options.config) if options.config else TrainConfig(), rest, parser, "jaxcnn preflight"
    )
    runtime.quiet_libraries()
    runtime.set_up_logging()
    if config.train.compilation_cache:
        runtime.enable_compilation_cache()
    out = options.out or Path(f"runs/preflight-{config.name}-{time.strftime('%Y%m%d-%H%M%S')}")
    say = _silent if options.json else _print
    findings, files = check_run(config, out, html=options.html, say=say, plant=options.plant)
    if options.json:
        from jaxcnn.tuning.rendering import as_json

        print(json.dumps({**as_json(findings), "files": files}))
    else:
        print(f"report: {', '.join(files.values())}")
    return EXIT_INTERNAL if any(one.verdict == "fail" for one in findings) else 0


def _print(text: str) -> None:
    print(text, flush=True)


def _silent(text: str) -> None:
    pass


def _whole_splits(config: TrainConfig) -> Any:
    """What a pass over all of the data finds; it is kept, so the next one costs nothing."""
    from jaxcnn.cli.data import scan_of
    from jaxcnn.data.sources import open_splits
    from jaxcnn.tuning.data_checks import suspicious_data

    splits = open_splits(config.data).named()
    return suspicious_data(splits, {name: scan_of(source, config.data) for name, source in splits.items()})


def check_run(
    config: TrainConfig, out: Path, *, html: bool, say: Callable[[str], None], plant: str | None = None
) -> tuple[list[Any], dict[str, str]]:
    """Returns the findings of a config and the files of the report, which are written; says each as it is found.

    Raises:
      InputError: the config does not build, or the report cannot be written.
    """
    from jaxcnn.preview import draw_preview, preview
    from jaxcnn.tuning import rendering
    from jaxcnn.tuning.building import subject_of
    from jaxcnn.tuning.faults import check_name, planted
    from jaxcnn.tuning.preflight import preflight

    if plant is not None:
        check_name(plant)
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file: name a folder")
    job, subject = subject_of(config)
    title = f"preflight of {config.name}"
    checks: Iterator[Any]
    if plant is None:
        checks = itertools.chain([_whole_splits(config)], preflight(subject, job))
    else:
        checks, title = preflight(planted(subject, plant)), f"{title}, {plant} planted"
    findings = []
    for found in checks:
        findings.append(found)
        say(rendering.as_line(found))
    say(rendering.told(findings))
    files = {"figure": out / "preflight.png", "json": out / "preflight.json"}
    sheets = {}
    try:
        out.mkdir(parents=True, exist_ok=True)
        rendering.draw(findings, files["figure"], title)
        write_whole(files["json"], json.dumps(rendering.as_json(findings), indent=2) + "\n")
        if plant is None:  # a fault is planted into parts, not into the config that the sheet is made of
            files["sheet"] = out / "sheet.png"
            sheets["what training sees"] = files["sheet"]
            draw_preview(preview(config, *_SHEET), files["sheet"], f"{title}: what training sees")
        if html:
            files["page"] = out / "preflight.html"
            rendering.write_html(findings, files["page"], title, sheets)
    except OSError as error:
        raise InputError(f"--out {out}: {error.strerror}") from None
    return findings, {kind: str(path) for kind, path in files.items()}
