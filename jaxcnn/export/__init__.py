"""A run as one file that needs no jaxcnn: pixels in, probabilities out; StableHLO or ONNX. See docs/export.md.

    import jaxcnn
    jaxcnn.export_run("runs/flowers", "stablehlo")  # runs/flowers/model.stablehlo, and model.stablehlo.json beside it

Every file is run in a fresh process before it is returned.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from jaxcnn.errors import InputError, RunFailed, did_you_mean
from jaxcnn.whole import write_whole

Form = Literal["stablehlo", "onnx"]
FORMS: tuple[Form, ...] = get_args(Form)
PLATFORMS = ("cpu", "cuda", "tpu")


@dataclass(frozen=True)
class Export:
    """A run that was exported and checked.

    Attributes:
      file: the program with its weights.
      described_in: JSON on it: input, output, classes, how images are made ready, versions.
      description: what that holds.
      difference: the largest one between probabilities that the file gave in a fresh process and the run's own.
    """

    file: Path
    described_in: Path
    description: dict[str, Any]
    difference: float


def export_run(
    run: str | Path,
    form: Form = "stablehlo",
    out: str | Path | None = None,
    *,
    checkpoint: str | int = "best",
    platforms: Sequence[str] = PLATFORMS,
    overwrite: bool = False,
) -> Export:
    """Writes a run as a file of its own, and returns it once it was checked in a fresh process.

    The file takes images uint8 [N, H, W, C] of the run's size, for any N, and gives probabilities float32 [N, K].

    Args:
      run: the run folder.
      form: "stablehlo", read by `jax.export.deserialize`; "onnx", which computes in float32 whatever the run does.
      out: the file, which ends in .stablehlo or .onnx; none: RUN/model.stablehlo or RUN/model.onnx.
      checkpoint: "best" by validation top-1, "latest", or a step; the moving averages where the run kept them.
      platforms: of a StableHLO file: "cpu" and any of "cuda", "rocm" and "tpu".
      overwrite: whether a file of that name may be replaced.

    Raises:
      InputError: no run, no such checkpoint, a file that is there already or cannot be written, a package missing.
      RunFailed: the network cannot be converted, or what the written file computes is not what the run does: the file
        is left, as it is.
    """
    file = target(run, form, out, overwrite)
    content, description, served, batches = _made(run, form, str(checkpoint), platforms)
    described_in = _beside(file)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(described_in, _json(description))
        write_whole(file, content)
    except OSError as error:
        raise InputError(f"--out {file}: {error.strerror or error}") from None
    difference = _checked(form, file, served, batches)
    description["checked"] = {"batch_sizes": [len(batch) for batch in batches], "largest_difference": difference}
    write_whole(described_in, _json(description))
    return Export(file, described_in, description, difference)


def target(run: str | Path, form: Form, out: str | Path | None, overwrite: bool) -> Path:
    """Returns the file to write.

    Raises:
      InputError: the run is none, there is no such form, the name has not the form's suffix, or the file is there and
        not to be overwritten.
    """
    from jaxcnn.run_folder import RunFolder

    if form not in FORMS:
        raise InputError(f"no format {form!r}; {did_you_mean(form, FORMS)}")
    file = RunFolder(run).path / f"model.{form}" if out is None else Path(out)
    if file.suffix != f".{form}":
        raise InputError(f"--out {file}: a file of --format {form} ends in .{form}")
    for each in (file, _beside(file)):
        if each.is_dir() or (each.exists() and not overwrite):
            raise InputError(f"{each} exists already: choose another by --out, or replace it by --overwrite")
    return file


def _beside(file: Path) -> Path:
    return file.with_name(f"{file.name}.json")


def _json(description: dict[str, Any]) -> str:
    return json.dumps(description, indent=2, ensure_ascii=False) + "\n"


def _made(run: str | Path, form: Form, checkpoint: str, platforms: Sequence[str]) -> tuple[bytes, dict, Any, list]:
    """The content of the file, what is told of it, what was exported, and images to check it with."""
    from jaxcnn.export import onnx_file, stablehlo
    from jaxcnn.export.serving import described, sample_batches, served
    from jaxcnn.runtime import versions

    if form == "stablehlo":
        stablehlo.check_installed()
        stablehlo.check_platforms(platforms)
        of = served(run, checkpoint)
        content, program = stablehlo.to_stablehlo(of, platforms)
        description = {**described(of, program), "versions": versions()}
    else:
        onnx_file.check_installed()
        of = served(run, checkpoint, dtype="float32")
        model, program = onnx_file.to_onnx(of)
        description = {**described(of, program), "versions": versions()}
        content = onnx_file.with_metadata(model, description)
    return content, description, of, sample_batches(of.loaded.network.preprocessing.image_shape)


def _checked(form: Form, file: Path, of: Any, batches: list) -> float:
    """The largest difference of the file's probabilities from the run's; raises RunFailed if that is no rounding."""
    from jaxcnn.export.fresh import run_fresh
    from jaxcnn.export.serving import largest_difference, own_predictions

    difference = largest_difference(own_predictions(of, batches), run_fresh(form, file, batches))
    if not difference <= of.tolerance:
        raise RunFailed(
            f"{file} differs from the run's own predictions by {difference:.1e} (at most {of.tolerance:.0e} would be "
            "rounding): do not use it; it is left there as it is"
        )
    return difference
