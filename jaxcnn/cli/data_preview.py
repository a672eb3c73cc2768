"""`jaxcnn data preview`: a sheet of images as they are and as training sees them."""

import argparse
from pathlib import Path

from jaxcnn.errors import InputError


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the subcommand to those of `jaxcnn data`."""
    parser = commands.add_parser(
        "preview",
        help="a sheet of images, as they are and in several augmented draws",
        epilog="Fields of the config override it, for instance --augment.flip.prob 0.5 or --data.name cifar10.",
        allow_abbrev=False,
    )
    parser.add_argument("--config", metavar="FILE", help="Python file with get_config(); none: the quick start")
    parser.add_argument(
        "--out", metavar="FILE.png", type=Path, default=Path("preview.png"), help="default: preview.png"
    )
    parser.add_argument("--images", type=int, default=8, metavar="N", help="rows (default: 8)")
    parser.add_argument("--draws", type=int, default=7, metavar="M", help="augmented draws of each (default: 7)")


def run(options: argparse.Namespace, rest: list[str]) -> int:
    """Runs the subcommand and returns its exit code."""
    for name in ("images", "draws"):
        if not 1 <= getattr(options, name) <= 100:
            raise InputError(f"--{name} {getattr(options, name)}: 1 to 100")
    if not options.out.absolute().parent.is_dir():
        raise InputError(f"--out {options.out}: no such folder")
    import tyro

    from jaxcnn.config import TrainConfig
    from jaxcnn.config_reader import check, load_config
    from jaxcnn.preview import draw_preview, preview
    from jaxcnn.runtime import enable_compilation_cache

    config = load_config(options.config) if options.config else TrainConfig()
    if rest:
        given = tyro.cli(TrainConfig, prog="jaxcnn data preview", default=config, args=rest)
        config = check(given, "command line")
    if config.train.compilation_cache:
        enable_compilation_cache()
    found = preview(config, options.images, options.draws)
    try:
        draw_preview(found, options.out, f"{config.name}: training images of seed {config.seed}")
    except OSError as error:
        raise InputError(f"--out {options.out}: {error.strerror}") from None
    print(f"preview: {options.out} ({len(found.originals)} images, {len(found.draws)} draws each)")
    return 0
