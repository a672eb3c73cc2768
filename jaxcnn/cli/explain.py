"""`jaxcnn explain RUN IMAGE`: what a run takes an image for, and where in it the evidence lies (Grad-CAM), as a PNG."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxcnn.errors import InputError


def run(argv: Sequence[str], *, started: float) -> int:
    """Runs the command and returns its exit code."""
    options = _parser().parse_args(list(argv))
    if options.top < 1:
        raise InputError(f"--top {options.top}: at least 1")

    from jaxcnn import runtime
    from jaxcnn.data.decode import read_image
    from jaxcnn.inspection.explanation import as_seen, explain
    from jaxcnn.inspection.subject import at_checkpoint
    from jaxcnn.predict import load_run
    from jaxcnn.run_folder import RunFolder

    runtime.quiet_libraries()
    runtime.set_up_logging()
    path, checkpoint = at_checkpoint(options.run, options.checkpoint)
    folder = RunFolder(path)
    image = read_image(Path(options.image))
    files = _files(options)
    if folder.config.train.compilation_cache:
        runtime.enable_compilation_cache()
    _check_names(folder, options)
    loaded = load_run(path, checkpoint)
    network, variables = loaded.network, loaded.variables
    found = explain(network, variables, image, class_name=options.class_name, part=options.layer)
    _draw(found, files[0], options)
    if options.features:
        _draw_features(network, variables, as_seen(image, network.preprocessing), files[1])
    _tell(found, files, options)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="jaxcnn explain", description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "run", metavar="RUN", help="run folder, or RUN@best, RUN@latest, RUN@STEP; its preprocessing is used"
    )
    parser.add_argument("image", metavar="IMAGE", help="image file, of any size, grey or colour")
    parser.add_argument("--out", metavar="FILE", help="PNG to write (default: IMAGE's name .explain.png, here)")
    parser.add_argument("--class", dest="class_name", metavar="NAME", help="whose evidence (default: the predicted)")
    parser.add_argument("--layer", metavar="PART", help="whose map: stem, stage1, ... (default: the last)")
    parser.add_argument("--features", action="store_true",
                        help="draw the strongest feature maps of each part too: FILE's name .features.png")  # fmt: skip
    parser.add_argument("--top", type=int, default=5, metavar="N", help="classes to show (default: 5)")
    parser.add_argument(
        "--checkpoint", default="best", metavar="best|latest|STEP", help="default: best by validation top-1"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    return parser


def _check_names(folder: Any, options: Any) -> None:
    """Raises InputError for a class or a layer that the run does not have, before weights are read."""
    from jaxcnn.inspection.explanation import label_of
    from jaxcnn.inspection.grad_cam import check_part
    from jaxcnn.models.registry import build_model

    names = folder.class_names
    if options.class_name is not None:
        label_of(options.class_name, names)
    check_part(build_model(folder.config.model, folder.preprocessing.image_shape, len(names)), options.layer)


def _files(options: Any) -> list[Path]:
    """The PNGs to write; raises InputError where they are named as something else, or one is the image itself."""
    out = Path(options.out or f"{Path(options.image).stem}.explain.png")
    if out.suffix.lower() != ".png":
        raise InputError(f"--out {out}: what is drawn is a PNG; end the name in .png")
    features = out.with_name(f"{out.stem.removesuffix('.explain')}.features.png")
    files = [out, features] if options.features else [out]
    for file in files:
        if file.exists() and file.samefile(options.image):
            raise InputError(f"{file} is the image itself, which stays as it is: give --out another name")
        if file.is_dir():
            raise InputError(f"--out {file}: it is a folder; name the file in it")
    return files


def _draw(found: Any, out: Path, options: Any) -> None:
    from jaxcnn.inspection.explanation import draw_explanation

    try:
        draw_explanation(found, out, Path(options.image).name, options.top)
    except OSError as error:
        raise InputError(f"--out {out}: {error.strerror}") from None


def _draw_features(network: Any, variables: Any, image: Any, file: Path) -> None:
    from jaxcnn.inspection.pictures import draw_feature_maps

    try:
        draw_feature_maps(network, variables, image, file)
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}") from None


def _tell(found: Any, files: list[Path], options: Any) -> None:
    top = [(found.class_names[label], float(found.probabilities[label])) for label in found.top[: options.top]]
    name, place = found.class_names[found.label], found.within()
    if options.json:
        notes = {
            "image": options.image,
            "top": [{"class": label, "probability": share} for label, share in top],
            "explained": name,
            "layer": found.part,
            "map": list(found.grid),
            "strongest_half": place,
            "files": [str(file) for file in files],
        }
        print(json.dumps(notes))
        return
    print(f"{options.image}: " + ", ".join(f"{label} {100 * share:.1f} %" for label, share in top))
    size = "x".join(map(str, found.image.shape[:2]))
    if place is None:
        print(f"{name}: nothing in {found.part} speaks for it")
    elif found.grid == (1, 1):
        print(f"{name}: the map of {found.part} has one place for the whole image; ask an earlier --layer for where")
    else:
        rows, columns = f"rows {place[0]}-{place[2] - 1}", f"columns {place[1]}-{place[3] - 1}"
        print(
            f"{name}: evidence of {found.part} at least half as strong as its maximum is in {rows}, {columns} of {size}"
        )
    print("drawn: " + ", ".join(map(str, files)))
