"""`jaxcnn export RUN --format stablehlo|onnx`: a run as one file that needs no jaxcnn: pixels in, probabilities out."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path


def run(argv: Sequence[str], *, started: float) -> int:
    """Runs the command; the exit code is 1 if the file that was written does not compute what the run does."""
    from jaxcnn.export import FORMS, PLATFORMS, export_run, target

    parser = argparse.ArgumentParser(prog="jaxcnn export", description=__doc__, allow_abbrev=False)
    parser.add_argument("run", metavar="RUN", help="run folder")
    parser.add_argument(
        "--format",
        choices=FORMS,
        default="stablehlo",
        help="stablehlo: one file for several platforms, read by jax; onnx: in float32 (default: stablehlo)",
    )
    parser.add_argument("--out", metavar="FILE", type=Path, help="file to write (default: RUN/model.FORMAT)")
    parser.add_argument(
        "--checkpoint", default="best", metavar="best|latest|STEP", help="default: best by validation top-1"
    )
    parser.add_argument(
        "--platforms",
        metavar="P,P,...",
        type=lambda text: tuple(text.split(",")),
        help=f"of a StableHLO file: cpu, cuda, rocm, tpu (default: {','.join(PLATFORMS)})",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it is there")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    options = parser.parse_args(list(argv))
    if options.platforms and options.format == "onnx":
        parser.error("--platforms: an ONNX file has none, its runtime chooses")
    target(options.run, options.format, options.out, options.overwrite)

    import jax

    from jaxcnn import runtime
    from jaxcnn.run_folder import RunFolder

    jax.config.update("jax_platforms", "cpu")  # nothing here needs an accelerator, which may be busy
    runtime.quiet_libraries()
    runtime.set_up_logging()
    if RunFolder(options.run).config.train.compilation_cache:
        runtime.enable_compilation_cache()
    made = export_run(
        options.run,
        options.format,
        options.out,
        checkpoint=options.checkpoint,
        platforms=options.platforms or PLATFORMS,
        overwrite=options.overwrite,
    )
    if options.json:
        print(json.dumps({**asdict(made), "file": str(made.file), "described_in": str(made.described_in)}))
        return 0
    for line in _told(made.file, made.description):
        print(line)
    alone = "jax and flatbuffers" if options.format == "stablehlo" else "onnxruntime"
    own = "own probabilities" + (", in float32," if options.format == "onnx" else "")
    sizes = ", ".join(map(str, made.description["checked"]["batch_sizes"]))
    print(
        f"checked in a process with {alone} alone, on batches of {sizes} images: the largest difference from the run's "
        f"{own} is {made.difference:.1e}"
    )
    return 0


def _told(file: Path, description: dict) -> list[str]:
    """What was written, in two lines."""
    program = description["program"]
    if program["format"] == "onnx":
        where = f"opset {program['opset']}"
    else:
        *others, last = program["platforms"]
        where = f"for {', '.join(others)} and {last}" if others else f"for {last}"
    weights = "averaged weights" if description["averaged_weights"] else "weights"
    height, width, channels = description["input"]["shape"][1:]
    return [
        f"{file}: {description['network']}, {weights} of step {description['step']:,}, {where}, "
        f"{file.stat().st_size / 1e6:.3g} MB",
        f"images uint8 [N, {height}, {width}, {channels}] -> probabilities float32 [N, "
        f"{len(description['class_names'])}]; classes and how images are resized are in {file.name}.json",
    ]
