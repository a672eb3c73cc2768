"""`jaxcnn predict RUN IMAGE_OR_FOLDER...`: class names and probabilities."""

import argparse
import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxcnn.errors import EXIT_INPUT, InputError

_BATCH = 256


def run(argv: Sequence[str], *, started: float) -> int:
    """Runs the command; the exit code is 2 if any image could not be read, the others are still predicted."""
    parser = argparse.ArgumentParser(prog="jaxcnn predict", description=__doc__, allow_abbrev=False)
    parser.add_argument("run", metavar="RUN", help="run folder; its preprocessing is used")
    parser.add_argument("images", nargs="+", metavar="IMAGE_OR_FOLDER", help="image files, or folders of them")
    parser.add_argument("--top", type=int, default=5, metavar="N", help="classes to show for each image (default: 5)")
    parser.add_argument("--csv", metavar="FILE", help="write all probabilities: one row an image, one column a class")
    parser.add_argument(
        "--checkpoint", default="best", metavar="best|latest|STEP", help="default: best by validation top-1"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    options = parser.parse_args(list(argv))
    if options.top < 1:
        raise InputError(f"--top {options.top}: at least 1")

    from jaxcnn import runtime
    from jaxcnn.predict import load_run
    from jaxcnn.run_folder import RunFolder

    runtime.quiet_libraries()
    runtime.set_up_logging()
    files = list_images(options.images)
    if RunFolder(options.run).config.train.compilation_cache:
        runtime.enable_compilation_cache()
    loaded = load_run(options.run, options.checkpoint)
    names, probabilities, failures = _predict(loaded, files)
    _report(options, loaded.class_names, names, probabilities, failures)
    for failure in failures:
        print(f"error: {_printable(failure)}", file=sys.stderr)
    return EXIT_INPUT if failures else 0


def list_images(places: Sequence[str]) -> list[Path]:
    """Returns the files named, and those with an image suffix in the folders named, sorted within each.

    Raises:
      InputError: a folder holds no images. A file that is not there is told when it is read.
    """
    from jaxcnn.data.decode import IMAGE_SUFFIXES

    files: list[Path] = []
    for place in map(Path, places):
        if place.is_dir():
            inside = sorted(file for file in place.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
            if not inside:
                raise InputError(f"{place}: no images in this folder ({', '.join(sorted(IMAGE_SUFFIXES))})")
            files += inside
        else:
            files.append(place)
    return files


def _predict(loaded: Any, files: list[Path]) -> tuple[list[str], list[list[float]], list[str]]:
    """Returns the readable files, their probabilities, and a line for each unreadable one."""
    from jaxcnn.data.decode import read_image

    names: list[str] = []
    probabilities: list[list[float]] = []
    failures: list[str] = []
    for first in range(0, len(files), _BATCH):
        images = []
        for file in files[first : first + _BATCH]:
            try:
                images.append(read_image(file))
            except InputError as error:
                failures.append(str(error))
            else:
                names.append(str(file))
        probabilities += loaded.predict(images, _BATCH).tolist()
    return names, probabilities, failures


def _report(
    options: Any, class_names: tuple[str, ...], names: list[str], probabilities: list[list[float]], failures: list[str]
) -> None:
    def best(row: list[float]) -> list[tuple[str, float]]:
        order = sorted(range(len(row)), key=lambda label: -row[label])
        return [(class_names[label], row[label]) for label in order[: options.top]]

    if options.csv:
        try:
            with open(options.csv, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
                table = csv.writer(file)
                table.writerow(["image", "prediction", *class_names])
                table.writerows([name, best(row)[0][0], *row] for name, row in zip(names, probabilities, strict=True))
        except OSError as error:
            raise InputError(f"--csv {options.csv}: {error.strerror}") from None
    if options.json:
        images = [
            {"image": name, "top": [{"class": label, "probability": share} for label, share in best(row)]}
            for name, row in zip(names, probabilities, strict=True)
        ]
        print(json.dumps({"images": images, "errors": failures}))
    elif not options.csv:
        for name, row in zip(names, probabilities, strict=True):
            print(f"{_printable(name)}: " + ", ".join(f"{label} {100 * share:.1f} %" for label, share in best(row)))


def _printable(text: str) -> str:
    """The text with a mark for each byte of a file name that is not UTF-8."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
