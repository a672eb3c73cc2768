"""The pictures of `jaxcnn inspect RUN --pictures DIR`: filters, histograms, feature maps, each a PNG."""

import json
import logging
from pathlib import Path
from typing import Any

from jaxcnn.errors import InputError

LOG = logging.getLogger("jaxcnn")
_IMAGES = 32


def draw(options: Any) -> int:
    """Draws the pictures of the run that the options of `jaxcnn inspect` name; returns the exit code."""
    from jaxcnn.inspection.subject import at_checkpoint

    run, checkpoint = at_checkpoint(options.place, options.checkpoint)
    files = [str(path) for path in write_pictures(run, options.pictures, checkpoint)]
    print(json.dumps({"pictures": files}) if options.json else "\n".join(files))
    return 0


def write_pictures(run: str | Path, folder: str | Path, checkpoint: str = "best") -> list[Path]:
    """Draws the pictures of a run into a folder and returns their files.

    Activations and feature maps are of the first images of the run's validation split. Where that cannot be read, or
    the run has no data of its own (imported weights), they are left out, and the log says so.

    Args:
      run: the run folder.
      folder: made if it is not there.
      checkpoint: "best", "latest" or a step.

    Raises:
      InputError: no run, no such checkpoint, or the folder cannot be written.
    """
    from jaxcnn.inspection.pictures import draw_pictures
    from jaxcnn.predict import load_run

    loaded = load_run(run, checkpoint)
    images = _images(run, loaded.network)
    try:
        return draw_pictures(loaded.network, loaded.variables, images, Path(folder))
    except OSError as error:
        raise InputError(f"--pictures {folder}: {error.strerror}") from None


def _images(run: str | Path, network: Any) -> list[Any]:
    """Images of validation as the network sees them; none where they cannot be had."""
    from jaxcnn.data.sources import open_splits
    from jaxcnn.inspection.explanation import as_seen
    from jaxcnn.run_folder import RunFolder

    folder = RunFolder(run)
    if not folder.has_data:
        LOG.info("no pictures of activations and feature maps: the run has no data of its own; see jaxcnn explain")
        return []
    try:
        source = open_splits(folder.config.data).validation
        images, _ = source.read(range(min(_IMAGES, source.num_examples)))
    except InputError as error:
        LOG.warning(f"no pictures of activations and feature maps: {error}")
        return []
    return [as_seen(image, network.preprocessing) for image in images]
