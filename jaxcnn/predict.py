"""A trained run as a function: uint8 images -> probabilities."""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxcnn.data.decode import convert_channels, resize_and_centre_crop
from jaxcnn.network import Network, build_network, load_variables
from jaxcnn.run_folder import RunFolder
from jaxcnn.runtime import compiler_options


@dataclass(frozen=True)
class LoadedRun:
    """What a run learned.

    Attributes:
      network: the Flax module (`network.model`), preprocessing and class names.
      variables: {"params", "batch_stats"}, the moving averages where the run kept them.
      step: steps these were trained for.
    """

    network: Network
    variables: dict[str, Any]
    step: int

    @property
    def model(self) -> Any:
        return self.network.model

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.network.class_names

    @functools.cached_property
    def _apply(self) -> Any:
        """The jitted function (variables, images uint8) -> probabilities."""

        def probabilities(variables: dict[str, Any], images: jax.Array) -> jax.Array:
            return jax.nn.softmax(self.model.apply(variables, self.network.normalise(images), train=False))

        return jax.jit(probabilities, compiler_options=compiler_options())

    def predict(self, images: Any, batch_size: int = 256) -> np.ndarray:
        """Returns probabilities float32 [N, K], in the order of `class_names`.

        Args:
          images: uint8 [N, H, W, C] (or a sequence of [H, W, C] of any sizes), 0..255; what does not have the run's
            size is resized and centre-cropped, grey becomes RGB and RGB grey as the run needs.
          batch_size: images a forward pass; the last batch is padded.

        Raises:
          ValueError: the images are not uint8 or not [H, W, C].
        """
        preprocessing = self.network.preprocessing
        height, width, channels = preprocessing.image_shape
        ready = np.empty((len(images), height, width, channels), np.uint8)
        for place, image in enumerate(images):
            image = np.asarray(image)
            if image.dtype != np.uint8 or image.ndim != 3:
                raise ValueError(f"image {place}: expected uint8 [H, W, C] in 0..255, got {image.dtype} {image.shape}")
            image = convert_channels(image, channels)
            ready[place] = resize_and_centre_crop(image, height, width, preprocessing.crop_share)
        size = min(batch_size, max(len(ready), 1))
        parts = []
        for first in range(0, len(ready), size):
            batch = ready[first : first + size]
            padded = np.concatenate([batch, np.zeros((size - len(batch), height, width, channels), np.uint8)])
            parts.append(np.asarray(self._apply(self.variables, padded))[: len(batch)])
        return np.concatenate(parts) if parts else np.zeros((0, len(self.class_names)), np.float32)


def load_run(path: str | Path, checkpoint: str = "best") -> LoadedRun:
    """Returns a trained run, ready to predict.

    Args:
      path: the run folder.
      checkpoint: "best" by validation top-1, "latest", or a step.

    Raises:
      InputError: the folder is no run, or the checkpoint is not there or damaged.
    """
    folder = RunFolder(path)
    network = build_network(folder.config, folder.preprocessing, folder.class_names)
    variables, step = load_variables(folder, str(checkpoint))
    return LoadedRun(network, variables, step)
