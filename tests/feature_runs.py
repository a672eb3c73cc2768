"""Helpers of the tests of kept features: a small run, taken apart as `build.py` puts it together."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxcnn import mesh as meshes
from jaxcnn.config import (
    AffineConfig,
    AugmentConfig,
    DataConfig,
    EvaluationConfig,
    FeaturesConfig,
    LoopConfig,
    ModelConfig,
    OptimConfig,
    PadCropConfig,
    Preprocessing,
    TrainConfig,
)
from jaxcnn.data.source import ArrayRecords, Source, Splits
from jaxcnn.feature_cache.extraction import Extraction
from jaxcnn.feature_cache.reading import Reading, cached_features
from jaxcnn.inputs import Inputs, read_inputs
from jaxcnn.network import Network, build_network
from jaxcnn.start import initial_variables

STILL = AugmentConfig(pad_crop=PadCropConfig(prob=0.0), affine=AffineConfig(prob=0.0))
MOVING = AugmentConfig(pad_crop=PadCropConfig(pad_px=2), affine=AffineConfig(prob=0.0))


def source(count: int, size: int = 8, seed: int = 0, name: str = "made up") -> Source:
    images = np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), np.uint8)
    records = ArrayRecords(images, (np.arange(count) % 3).astype(np.int32))
    return Source(name, ("a", "b", "c"), (size, size, 3), records, f"{name} {count} {size} {seed}")


def splits(size: int = 8, seed: int = 0) -> Splits:
    return Splits(source(30, size, seed), source(13, size, seed + 1), None)


def config_of(cache_dir: Path, **fields: Any) -> TrainConfig:
    """A linear probe of a network of width 4 on 30 images, of which features are kept at the head."""
    config = TrainConfig(
        data=DataConfig(cache_dir=str(cache_dir)),
        model=ModelConfig(name="resnet8", width=4),
        augment=STILL,
        optim=OptimConfig(peak_lr=0.05),
        train=LoopConfig(epochs=4.0, batch_size=6, max_steps_per_dispatch=4),
        evaluation=EvaluationConfig(batch_size=8),
        freeze=("backbone/**",),
        features=FeaturesConfig(cache="auto"),
    )
    return dataclasses.replace(config, **fields)


@dataclass(frozen=True)
class Taken:
    """A run taken apart."""

    config: TrainConfig
    inputs: Inputs
    network: Network
    variables: dict[str, Any]

    def extraction(self, point: str = "pooled") -> Extraction:
        return Extraction(self.config, self.inputs, self.network, self.variables, point, meshes.make_mesh(1))

    def cached(self, point: str = "pooled", devices: int = 1) -> Reading:
        mesh = meshes.make_mesh(devices)
        return cached_features(self.config, self.inputs, self.network, self.variables, point, mesh, 20)


def take_apart(config: TrainConfig, data: Splits | None = None) -> Taken:
    data = splits() if data is None else data
    shape = data.train.image_shape
    assert shape is not None
    unmeasured = Preprocessing(shape, (0.0,) * 3, (1.0,) * 3, crop_share=config.data.crop_share)
    inputs = read_inputs(config, data, build_network(config, unmeasured, data.train.class_names))
    preprocessing = dataclasses.replace(unmeasured, mean=inputs.mean, std=inputs.std)
    network = build_network(config, preprocessing, data.train.class_names)
    return Taken(config, inputs, network, jiggled(initial_variables(config, network)))


def jiggled(variables: dict[str, Any]) -> dict[str, Any]:
    """The variables with statistics and norms that are not those of a beginning."""
    keys = iter(jax.random.split(jax.random.key(7), len(jax.tree.leaves(variables))))
    return jax.tree.map(lambda leaf: leaf + 0.1 * jax.random.uniform(next(keys), leaf.shape), variables)
