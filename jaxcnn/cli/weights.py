"""`jaxcnn weights import|export|compare`: weights from PyTorch, timm and Keras, and for them."""

import argparse
import json
import logging
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from jaxcnn.config import DataConfig, ModelConfig
from jaxcnn.errors import InputError

LOG = logging.getLogger("jaxcnn")


@dataclass(frozen=True)
class Overrides:
    """Choices of the network that its weights do not tell."""

    model: ModelConfig


def run(argv: Sequence[str], *, started: float) -> int:
    """Runs the command and returns its exit code."""
    parser = argparse.ArgumentParser(prog="jaxcnn weights", description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True, metavar="import|export|compare")
    _add_import(commands)
    _add_export(commands)
    _add_compare(commands)
    options, rest = parser.parse_known_args(list(argv))
    if rest and options.command != "import":
        parser.error(f"unrecognized arguments: {' '.join(rest)}")

    from jaxcnn import runtime

    runtime.quiet_libraries()
    runtime.set_up_logging()
    runtime.enable_compilation_cache()
    return {"import": _import, "export": _export, "compare": _compare}[options.command](options, rest)


def _add_import(commands: Any) -> None:
    parser = commands.add_parser(
        "import",
        help="make a run folder of a file, a hub name or a run",
        epilog="--model.* chooses what the weights do not tell, for instance --model.norm group.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "source", metavar="FILE_OR_HUB", help=".safetensors, .pth, .pth.tar, .pt, .th, .h5, hf-hub:OWNER/NAME, or a run"
    )
    parser.add_argument(
        "--arch", required=True, metavar="NAME", help="network: resnet50, resnet20, vgg16, vgg16_bn, ..."
    )
    parser.add_argument("--out", required=True, metavar="RUN", type=Path, help="run folder to make")
    parser.add_argument(
        "--classes",
        metavar="FILE|DATASET|N",
        help="class names: one a line, or a data set's, or so many numbers (default: the file's, or numbers)",
    )
    parser.add_argument("--data-dir", metavar="DIR", help="folder of prepared TFDS data sets, for --classes DATASET")
    parser.add_argument("--image-size", type=int, metavar="PX", help="side of the input (default: the weights' own)")
    parser.add_argument("--channels", type=int, choices=(1, 3), default=3, help="1: sum RGB weights for grey images")
    parser.add_argument("--mean", type=float, nargs="+", metavar="X", help="mean of each channel, in units of 0..1")
    parser.add_argument("--std", type=float, nargs="+", metavar="X", help="deviation of each channel, in units of 0..1")
    parser.add_argument("--crop-share", type=float, metavar="X", help="side of the centre crop: 0.875 is 224 of 256 px")
    parser.add_argument("--channel-order", choices=("RGB", "BGR"), help="of the weights, and of --mean and --std")


def _import(options: Any, rest: list[str]) -> int:
    from jaxcnn.config_reader import check
    from jaxcnn.network import build_network
    from jaxcnn.paths import flatten
    from jaxcnn.run_folder import RunFolder, check_free, is_run
    from jaxcnn.start import initial_variables, read_start
    from jaxcnn.weights import imported_run
    from jaxcnn.weights.importer import filled, fit, statistics_told

    check_free(options.out, "--out")
    given = _overrides(rest, RunFolder(options.source).config.model if is_run(options.source) else ModelConfig())
    weights = _with_hints(read_start(options.source), options)
    data = DataConfig(data_dir=options.data_dir)
    names = imported_run.class_names_of(weights, options.classes, data)
    data_set = options.classes if imported_run.is_data_set(options.classes) else None
    data = replace(data, name=data_set or data.name)
    preprocessing = check(imported_run.preprocessing_of(weights, options.image_size, options.channels), "command line")
    config = imported_run.import_config(imported_run.model_config(options.arch, weights, given), data)
    network = build_network(check(config, "command line"), preprocessing, names)
    fitted = fit(weights, flatten(network.shapes), f"--arch {options.arch}")
    variables = filled(initial_variables(config, network) if fitted.anew else network.shapes, fitted)
    origin = {"source": options.source, "arch": options.arch, "names": fitted.dialect, "data": data_set}
    origin["notes"] = fitted.notes
    folder = imported_run.write_run(options.out, config, names, preprocessing, variables, origin)
    for note in fitted.notes:
        LOG.info(note)
    rounded = [tuple(round(value, 4) for value in values) for values in (preprocessing.mean, preprocessing.std)]
    told = statistics_told(weights.hints)
    LOG.info(f"images {preprocessing.image_shape}, mean {rounded[0]}, std {rounded[1]} ({told})")
    print(
        f"{folder.path}: {options.arch}, {network.num_parameters:,} parameters, {len(fitted.leaves)} tensors imported"
    )
    return 0


def _overrides(rest: list[str], default: ModelConfig) -> ModelConfig:
    if not rest:
        return default
    import tyro

    return tyro.cli(Overrides, prog="jaxcnn weights import", default=Overrides(default), args=rest).model


def _with_hints(weights: Any, options: Any) -> Any:
    """The weights, with what the command line says about their images in the place of what they say."""
    given = {
        "mean": tuple(options.mean) if options.mean else None,
        "std": tuple(options.std) if options.std else None,
        "crop_share": options.crop_share,
        "channel_order": options.channel_order,
    }
    if options.image_size is not None and options.image_size < 1:
        raise InputError(f"--image-size {options.image_size}: at least 1 pixel")
    if (options.mean is None) != (options.std is None):
        raise InputError("--mean and --std belong together: give both")
    hints = replace(weights.hints, **{name: value for name, value in given.items() if value is not None})
    return replace(weights, hints=hints)


def _add_export(commands: Any) -> None:
    parser = commands.add_parser("export", help="write a file that PyTorch loads strictly", allow_abbrev=False)
    parser.add_argument("run", metavar="RUN", help="run folder")
    parser.add_argument("file", metavar="FILE.safetensors", type=Path, help="file to write")
    parser.add_argument("--format", choices=("torchvision", "timm"), default="torchvision", help="whose names")
    parser.add_argument("--checkpoint", default="best", metavar="best|latest|STEP", help="default: best")


def _export(options: Any, rest: list[str]) -> int:
    from jaxcnn.predict import load_run
    from jaxcnn.run_folder import RunFolder
    from jaxcnn.weights.exporter import check_target, metadata_of, to_torch, write_safetensors

    check_target(options.file)
    config = RunFolder(options.run).config.model
    loaded = load_run(options.run, options.checkpoint)
    tensors = to_torch(loaded.variables, options.format, config, loaded.model)
    metadata = metadata_of(loaded.network.preprocessing, loaded.class_names, config.name)
    write_safetensors(options.file, tensors, metadata)
    print(f"{options.file}: {config.name}, {len(tensors)} tensors under the names of {options.format}")
    return 0


def _add_compare(commands: Any) -> None:
    parser = commands.add_parser("compare", help="name the first layer at which two networks part", allow_abbrev=False)
    parser.add_argument("a", metavar="A", help="run folder")
    parser.add_argument("b", metavar="B", help="run folder, or a file or hub name that goes through the network of A")
    parser.add_argument("--tolerance", type=float, default=1e-3, metavar="X", help="relative (default: 1e-3)")
    parser.add_argument("--images", type=int, default=4, metavar="N", help="random images to compare on (default: 4)")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")


def _compare(options: Any, rest: list[str]) -> int:
    from jaxcnn.predict import load_run
    from jaxcnn.weights.compare import Side, compare, sample_images

    if options.images < 1:
        raise InputError(f"--images {options.images}: at least 1")
    if not (math.isfinite(options.tolerance) and options.tolerance > 0):
        raise InputError(f"--tolerance {options.tolerance}: a finite number above 0")
    loaded = load_run(options.a)
    ours = Side(loaded.model, loaded.variables, loaded.network.preprocessing)
    images = sample_images(ours.preprocessing, options.images)
    theirs, anew = _other_side(options.b, ours)
    found, count, largest = compare(ours, theirs, images, options.tolerance, anew)
    if options.json:
        told = {"differences": [asdict(one) for one in found], "layers": count, "largest_equal": largest}
        print(json.dumps({**told, "not_compared": anew}))
        return 0
    if anew:
        print(f"not compared, since {options.b} has no weights for them: {', '.join(anew)}")
    for difference in found:
        print(difference)
    if not found:
        print(f"no difference: {count} layers, largest relative difference {largest:.1e}")
    elif found[-1].layer == "input":
        print(f"with equal inputs there is no difference: {count} layers, largest relative difference {largest:.1e}")
    return 0


def _other_side(place: str, ours: Any) -> tuple[Any, tuple[str, ...]]:
    """B as a run of its own, or a file whose weights go through the network of A; and what the file does not fill."""
    from jaxcnn.paths import flatten
    from jaxcnn.predict import load_run
    from jaxcnn.run_folder import is_run
    from jaxcnn.weights.compare import Side
    from jaxcnn.weights.files import read_weights
    from jaxcnn.weights.importer import filled, fit, preprocessing_for

    if is_run(place):
        loaded = load_run(place)
        return Side(loaded.model, loaded.variables, loaded.network.preprocessing), ()
    weights = read_weights(place)
    fitted = fit(weights, flatten(ours.variables), "the network of A")
    for note in fitted.notes:
        LOG.info(f"{place}: {note}")
    hints, preprocessing = weights.hints, ours.preprocessing
    if hints.mean or hints.std:
        preprocessing = preprocessing_for(hints, preprocessing.image_shape, preprocessing.crop_share)
    if hints.image_size:
        shape = (hints.image_size, hints.image_size, preprocessing.image_shape[2])
        preprocessing = replace(preprocessing, image_shape=shape)
    if hints.crop_share:
        preprocessing = replace(preprocessing, crop_share=hints.crop_share)
    return Side(ours.model, filled(ours.variables, fitted), preprocessing), fitted.anew
