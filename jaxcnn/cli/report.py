"""`jaxcnn report RUN`: a run as one HTML page: figures, curves, confusion matrix, worst images, config, parameters."""

import argparse
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jaxcnn.config import DataConfig
from jaxcnn.errors import InputError


@dataclass(frozen=True)
class Overrides:
    """What may differ from the run: folders move."""

    data: DataConfig


def run(argv: Sequence[str], *, started: float) -> int:
    """Runs the command and returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="jaxcnn report",
        description=__doc__,
        epilog="--data.* override the fields of the run's config, for instance --data.data-dir.",
        allow_abbrev=False,
    )
    parser.add_argument("run", metavar="RUN", help="run folder, finished or not")
    parser.add_argument("--out", metavar="FILE.html", help="the page (default: RUN/report.html)")
    parser.add_argument(
        "--no-images", action="store_true", help="leave out the worst images: no data are read, nothing is computed"
    )
    options, rest = parser.parse_known_args(list(argv))

    from jaxcnn import runtime
    from jaxcnn.comparison import read_run
    from jaxcnn.run_folder import RunFolder

    runtime.quiet_libraries()
    runtime.set_up_logging()
    folder = RunFolder(options.run)
    record = read_run(options.run)
    out = Path(options.out) if options.out else folder.path / "report.html"
    if out.suffix not in (".html", ".htm"):
        raise InputError(f"--out {out}: the report is a page: name a file that ends in .html")
    if not out.parent.is_dir():
        raise InputError(f"--out {out}: no folder {out.parent}")
    config = _overridden(folder.config, rest, parser.prog)
    if config.train.compilation_cache:
        runtime.enable_compilation_cache()
    from jaxcnn.report.writing import write_report

    measured, note = (None, "") if options.no_images else _measured(folder, config, lenient=not rest)
    try:
        write_report(folder, record, measured, out, note)
    except OSError as error:
        raise InputError(f"--out {out}: {error.strerror}") from None
    print(f"{record.diagnosis.sentence}\nreport: {out}")
    return 0


def _overridden(config: Any, rest: Sequence[str], prog: str) -> Any:
    """The run's config with --data.* of the command line."""
    if not rest:
        return config
    import tyro

    from jaxcnn.config_reader import check

    given = tyro.cli(Overrides, prog=prog, default=Overrides(config.data), args=list(rest))
    for name in ("image_size", "channels"):
        if (asked := getattr(given.data, name)) != getattr(config.data, name):
            raise InputError(f"data.{name}={asked}: a run is measured on images as it was trained on")
    return check(replace(config, data=given.data), "command line")


def _measured(folder: Any, config: Any, *, lenient: bool) -> tuple[Any, str]:
    """(validation by the best weights, ""), or (none, why not): a report is worth having where the data have moved.

    Where the command names the data, that they cannot be read is a mistake.
    """
    from jaxcnn.report.measuring import measure_validation

    try:
        return measure_validation(folder, config), ""
    except InputError as error:
        if not lenient:
            raise
        logging.getLogger("jaxcnn").warning(f"warning: no images in the report: {error}")
        return None, f"No images: {error}"
