"""An exported file, run in a fresh process that has the packages of its form and nothing else."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from jaxcnn.errors import RunFailed


def run_fresh(form: str, file: Path, batches: list[np.ndarray]) -> list[np.ndarray]:
    """Returns the probabilities that an exported file gives for batches of images, on the CPU; see `reader.py`.

    Raises:
      RunFailed: it cannot be loaded or run there; the message has the last line of what the process said.
    """
    with tempfile.TemporaryDirectory(prefix="jaxcnn-export-") as folder:
        images, out = Path(folder) / "images.npz", Path(folder) / "probabilities.npz"
        np.savez(images, **{str(place): batch for place, batch in enumerate(batches)})  # type: ignore[arg-type]
        reader = Path(__file__).with_name("reader.py")
        done = subprocess.run(
            [sys.executable, "-P", str(reader), form, str(file.resolve()), str(images), str(out)],
            capture_output=True,
            text=True,
            env={**os.environ, "JAX_PLATFORMS": "cpu"},  # whatever this process holds of an accelerator
        )
        if done.returncode:
            said = [line for line in done.stderr.splitlines() if line.strip()]
            raise RunFailed(f"{file} cannot be run by itself: {said[-1] if said else f'exit code {done.returncode}'}")
        with np.load(out) as found:
            return [found[str(place)] for place in range(len(batches))]
