"""`jaxcnn data info|preview|prepare`: what data hold and what is wrong with them; TFDS data sets made ready."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxcnn.cli import data_preview
from jaxcnn.config import DataConfig
from jaxcnn.errors import InputError

_SHEET_ROWS = 40
_SHEET_COLUMNS = 8


@dataclass(frozen=True)
class Overrides:
    """How the data are read."""

    data: DataConfig


def run(argv: Sequence[str], *, started: float) -> int:
    """Runs the command and returns its exit code."""
    parser = argparse.ArgumentParser(prog="jaxcnn data", description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True, metavar="info|preview|prepare")
    _add_info(commands)
    data_preview.add(commands)
    _add_prepare(commands)
    options, rest = parser.parse_known_args(list(argv))
    if rest and options.command == "prepare":
        parser.error(f"unrecognized arguments: {' '.join(rest)}")

    from jaxcnn import runtime

    runtime.quiet_libraries()
    runtime.set_up_logging()
    return {"info": _info, "preview": data_preview.run, "prepare": _prepare}[options.command](options, rest)


def _add_prepare(commands: Any) -> None:
    parser = commands.add_parser(
        "prepare", help="make a TFDS data set ready, as array_record files", allow_abbrev=False
    )
    parser.add_argument("name", metavar="NAME", help="TFDS name, such as cifar10 or fashion_mnist")
    parser.add_argument("--data-dir", metavar="DIR", help="where to (default: TFDS_DATA_DIR or ~/tensorflow_datasets)")
    parser.add_argument("--manual-dir", metavar="DIR", help="its files, by their registered names, for no downloads")


def _prepare(options: Any, rest: list[str]) -> int:
    from jaxcnn.data.prepare import prepare

    place, sizes = prepare(options.name, options.data_dir, options.manual_dir)
    print(f"{place}: " + ", ".join(f"{split} {count:,}" for split, count in sizes.items()))
    return 0


def _add_info(commands: Any) -> None:
    parser = commands.add_parser(
        "info",
        help="counts, sizes, statistics and suspicious things",
        epilog="--data.* says how to read them, for instance --data.image-size 128 or --data.train-split train[:90%].",
        allow_abbrev=False,
    )
    parser.add_argument("source", metavar="SOURCE", help="TFDS name, folder of images, .npz file, or `synthetic`")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--sheet", metavar="FILE.png", type=Path, help="draw images of each class of the train split")
    parser.add_argument("--strict", action="store_true", help="exit code 1 if anything is suspicious")


def _info(options: Any, rest: list[str]) -> int:
    from jaxcnn.data.sources import open_splits
    from jaxcnn.data.suspicions import suspicions

    if options.sheet and not options.sheet.absolute().parent.is_dir():
        raise InputError(f"--sheet {options.sheet}: no such folder")
    config = _config(options.source, rest)
    splits = open_splits(config).named()
    scans = {split: scan_of(source, config) for split, source in splits.items()}
    lines = suspicions(splits, scans)
    if options.json:
        print(json.dumps(_as_json(splits, scans, lines)))
    else:
        print(_text(options.source, config, splits, scans, lines))
    if options.sheet:
        _draw_sheet(options.sheet, splits["train"], scans["train"])
    return 1 if options.strict and lines else 0


def _config(given: str, rest: list[str]) -> DataConfig:
    """The config of a SOURCE, by what it looks like: the name of a set, or a place on disk."""
    if given == "synthetic":
        config = DataConfig(source="synthetic")
    elif Path(given).is_dir():
        config = DataConfig(source="folder", data_dir=given)
    elif given.endswith(".npz") or Path(given).is_file():
        config = DataConfig(source="npz", data_dir=given)
    elif given.startswith((".", "/", "~")):
        raise InputError(f"{given}: no such folder or file")
    else:
        config = DataConfig(name=given)
    if rest:
        import tyro

        from jaxcnn.config_reader import check

        given_data = tyro.cli(Overrides, prog="jaxcnn data info", default=Overrides(config), args=rest).data
        config = check(given_data, "command line")
    return config


def scan_of(source: Any, config: DataConfig) -> Any:
    """Returns a pass over a split: statistics as the network's input, or in their own sizes where none is said."""
    from jaxcnn.data.loader import input_shape
    from jaxcnn.data.scan import scan

    own = source.image_shape is None
    shape = (
        None
        if own and not config.image_size
        else input_shape(source, config.image_size, config.channels or (3 if own else None))
    )
    return scan(source, shape, config.crop_share, config.cache_dir)


def _as_json(splits: Any, scans: Any, lines: list[str]) -> dict[str, Any]:
    def one(source: Any, found: Any) -> dict[str, Any]:
        return {
            "examples": found.num_examples,
            "classes": dict(zip(source.class_names, found.counts, strict=True)),
            "height": found.height,
            "width": found.width,
            "mean": found.mean,
            "std": found.std,
            "unreadable": {source.records.where(place): reason for place, reason in found.unreadable.items()},
        }

    return {"splits": {name: one(splits[name], found) for name, found in scans.items()}, "suspicious": lines}


def _text(given: str, config: DataConfig, splits: Any, scans: Any, lines: list[str]) -> str:
    """The report: a column a split, a row a class, then sizes, statistics and what is suspicious."""
    names = next(iter(splits.values())).class_names
    width = max([*map(len, names), len("mean of 0..1")]) + 2
    rows = [f"{given}: {len(names)} classes, read as data.source={config.source!r}", ""]

    def row(title: str, cells: list[str]) -> None:
        rows.append(title.ljust(width) + "".join(cell.rjust(24) for cell in cells))

    def three(values: tuple[float, ...], digits: str) -> str:
        return " ".join(format(value, digits) for value in values)

    found = list(scans.values())
    row("", list(scans))
    for label, name in enumerate(names):
        row(name, [f"{one.counts[label]:,}" for one in found])
    row("all", [f"{one.num_examples:,}" for one in found])
    row("unreadable", [f"{len(one.unreadable):,}" for one in found])
    rows.append("")
    row("height px", [three(one.height, "g") for one in found])
    row("width px", [three(one.width, "g") for one in found])
    row("mean of 0..1", [three(one.mean, ".4f") for one in found])
    row("std", [three(one.std, ".4f") for one in found])
    size = f"resized to {config.image_size} px" if config.image_size else "as stored"
    rows += ["", f"(sizes: least, median, most; mean and std a channel, of images {size})", ""]
    rows += [f"suspicious: {line}" for line in lines] or ["nothing suspicious"]
    return "\n".join(rows).encode("utf-8", "backslashreplace").decode()


def _draw_sheet(path: Path, source: Any, found: Any) -> None:
    """Draws the first readable images of each class."""
    import numpy as np

    from jaxcnn.sheets import draw_grid

    readable = found.readable()
    labels = source.labels[readable]
    rows = [
        source.read(readable[np.flatnonzero(labels == label)[:_SHEET_COLUMNS]].tolist())[0]
        for label in range(min(len(source.class_names), _SHEET_ROWS))
    ]
    try:
        draw_grid(rows, source.class_names[:_SHEET_ROWS], None, path, source.name)
    except OSError as error:
        raise InputError(f"--sheet {path}: {error.strerror}") from None
