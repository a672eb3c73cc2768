"""A run as one function from pixels to probabilities, in operations that every platform and every runtime has."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn.config import TrainConfig
from jaxcnn.network import build_network, load_variables
from jaxcnn.predict import LoadedRun
from jaxcnn.run_folder import RunFolder

CHECKED_BATCHES = (1, 3, 32)


@dataclass(frozen=True)
class Served:
    """What is exported of a run.

    Attributes:
      folder: the run.
      config: its config, with the compute type of the exported program.
      loaded: the run as it predicts: what the exported program is compared with.
      function: images uint8 [N, H, W, C] -> probabilities float32 [N, K]. The weights are constants in it, all
        convolutions, pools and norms those of JAX, and no size but N is unknown when it is traced.
    """

    folder: RunFolder
    config: TrainConfig
    loaded: LoadedRun
    function: Callable[[jax.Array], jax.Array]

    @property
    def images(self) -> jax.ShapeDtypeStruct:
        """The input, with a symbolic number of images."""
        (batch,) = jax.export.symbolic_shape("batch", constraints=["batch >= 1"])
        return jax.ShapeDtypeStruct((batch, *self.loaded.network.preprocessing.image_shape), jnp.uint8)

    @property
    def tolerance(self) -> float:
        """How much a probability may differ from the run's own before an export counts as wrong.

        What is right differs by rounding: some 1e-6 in float32, some 1e-3 in bfloat16, whose unit roundoff is 2^-9.
        """
        return 1e-4 if self.config.model.dtype == "float32" else 2e-2


def served(run: str | Path, checkpoint: str, dtype: Literal["float32"] | None = None) -> Served:
    """Returns what is exported of a run.

    Args:
      run: the run folder.
      checkpoint: "best", "latest" or a step; the moving averages where the run kept them.
      dtype: compute type in the place of the run's own.

    Raises:
      InputError: the folder is no run, or the checkpoint is not there or damaged.
    """
    folder = RunFolder(run)
    config = folder.config
    if dtype is not None:
        config = replace(config, model=replace(config.model, dtype=dtype))
    plain = replace(config, model=replace(config.model, plain=True, scan_blocks=False))
    network, exported = (build_network(each, folder.preprocessing, folder.class_names) for each in (config, plain))
    variables, step = load_variables(folder, checkpoint)
    variables = jax.device_put(variables, jax.devices("cpu")[0])

    def probabilities(images: jax.Array) -> jax.Array:
        logits: Any = exported.model.apply(variables, exported.normalise(images), train=False)
        return jax.nn.softmax(logits)

    return Served(folder, config, LoadedRun(network, variables, step), probabilities)


def sample_batches(image_shape: tuple[int, int, int]) -> list[np.ndarray]:
    """Returns seeded images uint8 [N, H, W, C] for each N of `CHECKED_BATCHES`: coloured patches under noise.

    Patches of all sizes, so that the network's outputs differ from image to image: noise alone is grey to it.
    """
    height, width, channels = image_shape
    random = np.random.default_rng(0)

    def image() -> np.ndarray:
        side = int(random.integers(1, 9))
        patches = random.integers(0, 256, (side, side, channels))
        rows, columns = np.arange(height) * side // height, np.arange(width) * side // width
        noise = random.normal(0, random.uniform(0, 40), image_shape)
        return np.clip(patches[rows][:, columns] + noise, 0, 255).astype(np.uint8)

    return [np.stack([image() for _ in range(count)]) for count in CHECKED_BATCHES]


def own_predictions(of: Served, batches: list[np.ndarray]) -> list[np.ndarray]:
    """Returns the run's own probabilities for batches of images of its size, computed on the CPU."""
    network, whole = of.loaded.network, replace(of.loaded.network.preprocessing, crop_share=1.0)
    ready = replace(of.loaded, network=replace(network, preprocessing=whole))  # which predict would crop
    with jax.default_device(jax.devices("cpu")[0]):
        return [ready.predict(batch) for batch in batches]


def largest_difference(ours: list[np.ndarray], theirs: list[np.ndarray]) -> float:
    """Returns the largest difference between two lists of probabilities; infinite where a shape or type differs."""
    pairs = list(zip(ours, theirs, strict=True))
    if any(a.shape != b.shape or b.dtype != np.float32 or not np.isfinite(b).all() for a, b in pairs):
        return float("inf")
    return functools.reduce(max, (float(np.abs(a - b).max()) for a, b in pairs), 0.0)


def described(of: Served, program: dict[str, Any]) -> dict[str, Any]:
    """Returns what a reader of the file has to know, for JSON: input, output, classes, how images are made ready.

    Args:
      of: what is exported.
      program: what is to be told of the form of the file.
    """
    preprocessing, config = of.loaded.network.preprocessing, of.config
    height, width, channels = preprocessing.image_shape
    cover = [round(height / preprocessing.crop_share), round(width / preprocessing.crop_share)]
    return {
        "run": of.folder.path.resolve().name,
        "network": config.model.name,
        "step": of.loaded.step,
        "averaged_weights": config.optim.ema_decay is not None,
        "compute_dtype": config.model.dtype,
        "program": program,
        "input": {
            "name": "images",
            "dtype": "uint8",
            "shape": ["batch", height, width, channels],
            "range": [0, 255],
            "channel_order": preprocessing.channel_order,
        },
        "output": {"name": "probabilities", "dtype": "float32", "shape": ["batch", len(of.loaded.class_names)]},
        "class_names": list(of.loaded.class_names),
        "resize": {
            "cover": cover,
            "keep_aspect_ratio": True,
            "shrink_by": "area average",
            "enlarge_by": "bilinear",
            "then": "centre crop",
            "crop_share": preprocessing.crop_share,
        },
        "inside": {"mean": list(preprocessing.mean), "std": list(preprocessing.std), "units": "0..1"},
    }
