"""`jaxcnn evaluate RUN`: loss, top-1, top-5, balanced accuracy, that of each class, and a confusion matrix."""

import argparse
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jaxcnn.config import DataConfig, EvaluationConfig
from jaxcnn.errors import InputError


@dataclass(frozen=True)
class Overrides:
    """What may differ from the run: folders move, and other splits can be measured."""

    data: DataConfig
    evaluation: EvaluationConfig


def run(argv: Sequence[str], *, started: float) -> int:
    """Runs the command and returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="jaxcnn evaluate",
        description=__doc__,
        epilog="--data.* and --evaluation.* override the fields of the run's config, for instance --data.data-dir.",
        allow_abbrev=False,
    )
    parser.add_argument("run", metavar="RUN", help="run folder")
    parser.add_argument("--split", default="test", choices=("train", "validation", "test"), help="default: test")
    parser.add_argument(
        "--checkpoint", default="best", metavar="best|latest|STEP", help="default: best by validation top-1"
    )
    parser.add_argument(
        "--out", metavar="DIR", help="where the confusion matrix goes (default: RUN/evaluations/SPLIT-STEP)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    options, rest = parser.parse_known_args(list(argv))

    from jaxcnn import runtime
    from jaxcnn.run_folder import RunFolder

    runtime.quiet_libraries()
    runtime.set_up_logging()
    folder = RunFolder(options.run)
    config = folder.config
    if not folder.has_data and not any(flag.partition("=")[0] in ("--data.name", "--data.source") for flag in rest):
        raise InputError(f"{folder.path} was imported without a data set: give --data.name NAME, or --data.source")
    if rest:
        import tyro

        from jaxcnn.config_reader import check

        given = tyro.cli(Overrides, prog=parser.prog, default=Overrides(config.data, config.evaluation), args=rest)
        for name in ("image_size", "channels"):
            if (asked := getattr(given.data, name)) != getattr(config.data, name):
                raise InputError(f"data.{name}={asked}: a run is measured on images as it was trained on")
        config = check(replace(config, data=given.data, evaluation=given.evaluation), "command line")
    if config.train.compilation_cache:
        runtime.enable_compilation_cache()
    figures, source, step = _measure(folder, config, options.split, options.checkpoint)
    out = Path(options.out) if options.out else folder.path / "evaluations" / f"{options.split}-{step}"
    written = _write(figures.pop("confusion"), source, step, out, must=bool(options.out))
    if options.json:
        report = {"run": str(folder.path), "split": options.split, "step": step, **figures, "confusion": written}
        print(json.dumps(report))
    else:
        print(_table(figures, source.name, step, source.class_names))
        print(f"confusion matrix: {written}" if written else "confusion matrix: not written")
    return 0


def _write(matrix: Any, source: Any, step: int, out: Path, *, must: bool) -> str | None:
    """Writes confusion.json and .png and returns the path of the figure; none if that cannot be and need not."""
    from jaxcnn.confusion import plot_confusion, write_confusion

    try:
        out.mkdir(parents=True, exist_ok=True)
        write_confusion(matrix, source.class_names, out / "confusion.json", step)
        plot_confusion(matrix, source.class_names, out / "confusion.png", f"{source.name}, checkpoint {step}")
    except OSError as error:
        if must:
            raise InputError(f"--out {out}: {error.strerror}") from None
        logging.getLogger("jaxcnn").warning(f"warning: {out}: {error.strerror}")
        return None
    return str(out / "confusion.png")


def _measure(folder: Any, config: Any, split: str, checkpoint: str) -> tuple[dict[str, Any], Any, int]:
    from jaxcnn import mesh as meshes
    from jaxcnn.data.sources import open_splits
    from jaxcnn.data.split_expressions import data_set_name
    from jaxcnn.evaluation import evaluate
    from jaxcnn.inputs import read_for_evaluation
    from jaxcnn.network import build_network, check_same_classes, load_variables

    images = folder.preprocessing
    if config.data.crop_share != folder.config.data.crop_share:
        images = replace(images, crop_share=config.data.crop_share)
    network = build_network(config, images, folder.class_names)
    variables, step = load_variables(folder, checkpoint)
    mesh = meshes.widest_mesh(config.evaluation.batch_size)  # not the run's: it may be from another machine
    source = open_splits(config.data).named().get(split)
    if source is None:
        raise InputError(f"--split {split}: {data_set_name(config.data)} has no such split; set data.{split}_split")
    check_same_classes(source, network, str(folder.path))
    batches = read_for_evaluation(config.data, source, network, mesh)
    variables = meshes.replicate(mesh, variables)
    return evaluate(network, variables, batches, config.evaluation.batch_size, mesh), source, step


def _table(figures: dict[str, Any], name: str, step: int, class_names: tuple[str, ...]) -> str:
    head = (
        f"{name}, {figures['examples']:,} examples, checkpoint {step}: top-1 {100 * figures['top1']:.2f} %, "
        f"top-5 {100 * figures['top5']:.2f} %, "
        f"balanced accuracy {100 * figures['balanced_accuracy']:.2f} %, loss {figures['loss']:.4f}"
    )
    width = max(map(len, class_names))
    rows = [
        f"  {class_name:{width}s} {'-' if accuracy is None else f'{100 * accuracy:6.2f} %'}"
        for class_name, accuracy in zip(class_names, figures["class_top1"], strict=True)
    ]
    return "\n".join([head, *rows])
