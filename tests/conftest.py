"""Shared by all tests: a compilation cache that outlives them, one prepared data set, tiny configs."""

import dataclasses
import os
from pathlib import Path

import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TFDS_DATA_DIR", str(Path.home() / ".cache" / "jaxcnn" / "tests" / "tfds"))
# So that subprocesses of tests use it too.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path.home() / ".cache" / "jaxcnn" / "tests" / "xla"))

from jaxcnn import runtime
from jaxcnn.config import (
    DataConfig,
    EvaluationConfig,
    LoopConfig,
    ModelConfig,
    OptimConfig,
    ScheduleConfig,
    TrainConfig,
)


@pytest.fixture(scope="session", autouse=True)
def compilation_cache() -> None:
    runtime.enable_compilation_cache()


@pytest.fixture(scope="session")
def digits_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A TFDS folder in which mnist5k is prepared; one a test process, since preparing takes a second."""
    from jaxcnn.data.tfds_source import open_builder

    folder = str(tmp_path_factory.mktemp("tfds"))
    open_builder(DataConfig(data_dir=folder))
    return folder


@pytest.fixture
def tiny_config(digits_dir: str) -> TrainConfig:
    """A network of width 4 on 200 digits: 3 epochs of 6.25 steps."""
    return TrainConfig(
        name="tiny",
        data=DataConfig(
            data_dir=digits_dir, train_split="train[:200]", validation_split="validation[:70]", test_split="test[:50]"
        ),
        model=ModelConfig(name="resnet8", width=4),
        optim=OptimConfig(peak_lr=0.05, ema_decay=None),
        schedule=ScheduleConfig(warmup_epochs=1.0),
        train=LoopConfig(epochs=3.0, batch_size=32, max_steps_per_dispatch=4),
        evaluation=EvaluationConfig(batch_size=32, train_examples=0),
    )


def with_fields(config: TrainConfig, **fields: object) -> TrainConfig:
    """Returns the config with fields replaced, given as `optim__peak_lr=0.1`."""
    for name, value in fields.items():
        group, _, field = name.partition("__")
        new = dataclasses.replace(getattr(config, group), **{field: value}) if field else value
        config = dataclasses.replace(config, **{group: new})
    return config
