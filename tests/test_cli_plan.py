"""`jaxcnn plan`: what is refused before anything compiles, sizes of data that are not there, and GPUs end to end."""

import dataclasses
import importlib.util
import json

import jax
import numpy as np
import pytest

from jaxcnn.cli import main
from jaxcnn.config import (
    AffineConfig,
    AugmentConfig,
    DataConfig,
    LoopConfig,
    ModelConfig,
    OptimConfig,
    PadCropConfig,
    TrainConfig,
)
from jaxcnn.config_reader import load_config
from jaxcnn.data.metadata import split_sizes
from jaxcnn.errors import InputError
from jaxcnn.plan import compiling, kept
from jaxcnn.plan.compiling import DoesNotFit, StepFigures
from jaxcnn.plan.counting import model_flops
from jaxcnn.plan.estimating import mesh_of
from jaxcnn.plan.kept import kept_figures
from jaxcnn.plan.planning import plan_of
from jaxcnn.plan.program import Collective
from jaxcnn.plan.subject import planned_on, subject_of
from jaxcnn.plan.topology import place_named

CONFIG = """
from jaxcnn.config import *

def get_config():
    off = AugmentConfig(PadCropConfig(0.0), AffineConfig(0.0))
    data = DataConfig(name="cifar10", image_size=8, loader="streamed")
    return TrainConfig(data=data, model=ModelConfig(width=4, stage_sizes=(1,), plain=True), augment=off,
                       train=LoopConfig(epochs=2.0, batch_size=64), evaluation=EvaluationConfig(batch_size=64))
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("plan") / "tiny.py"
    path.write_text(CONFIG)
    return str(path)


TOO_CLOSE = ["--train.epochs", "2", "--freeze", "backbone/**", "--unfreeze", "0.3", "backbone/stage3/**", "0.6", "**"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "plan what?"),
        (["--config", "CONFIG"], "plan for which chips?"),
        (["--config", "nowhere.py", "--gpu", "a100"], "no config file nowhere.py"),
        (["--config", "CONFIG", "--gpu", "a101"], "did you mean 'a100'"),
        (["--config", "CONFIG", "--topology", "v5e:2x2x2"], "a slice of v5e has 2 axes"),
        (["--config", "CONFIG", "--gpu", "a100:3"], "must be multiples of the 3 chips"),
        (["--config", "CONFIG", "--gpu", "a100:8", "--mesh.fsdp", "3"], "mesh.fsdp=3 must divide the 8 chips"),
        (["--config", "CONFIG", "--gpu", "a100:8", "--mesh.data", "4"], "mesh.data=4 x mesh.fsdp=1 is not the 8 chips"),
        (["--config", "CONFIG", "--gpu", "a100", "--model.virtual-batch-size", "48"], "must divide"),
        (["--config", "CONFIG", "--gpu", "a100", "--examples", "0"], "--examples 0: at least 1"),
        (
            ["--config", "CONFIG", "--gpu", "a100", "--examples", "64", *TOO_CLOSE],
            "unfreeze: the phase from epoch 0.3 has no step",
        ),
        (["--config", "CONFIG", "--gpu", "a100", "--image-size", "100000000"], "at most 16,384"),
        (["--config", "CONFIG", "--gpu", "a100", "--classes", "1000000000000"], "at most 1,000,000"),
        (["--config", "CONFIG", "--gpu", "a100", "--data.image-size", "100000000"], "16384"),
        (["--config", "CONFIG", "--gpu", "a100", "--data.name", "cifar11"], "did you mean"),
        (["--config", "CONFIG", "--gpu", "a100", "--data.name", "svhn_cropped"], "--examples N"),
        (["some/run", "--config", "CONFIG", "--gpu", "a100"], "not both"),
    ],
)
def test_mistakes_are_told_in_one_line(arguments, told, config, capsys):
    assert main(["plan", *(config if part == "CONFIG" else part for part in arguments)]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert told in error


def test_help_lists_places_and_fields(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["plan", "--help"])
    assert ended.value.code == 0
    told = capsys.readouterr().out
    assert "--topology NAME" in told
    assert "--optim.accumulation" in told


def test_missing_libtpu_is_told_with_the_way_to_install_it(config, monkeypatch, capsys):
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "libtpu" else there(name))
    assert main(["plan", "--config", config, "--topology", "v5e:2x4"]) == 2
    assert 'pip install -e ".[tpu]"' in capsys.readouterr().err


def test_the_sizes_of_imagenet_are_known_without_it(tmp_path):
    imagenet = DataConfig(name="imagenet2012", data_dir=str(tmp_path))
    assert split_sizes(imagenet) == {"train": 1_281_167, "validation": 50_000}
    cifar = DataConfig(name="cifar10", data_dir=str(tmp_path))
    assert split_sizes(cifar) == {"train": 45_000, "validation": 5_000, "test": 10_000}
    part = dataclasses.replace(cifar, train_split="train[:40000]", validation_split="train[40000:]")
    assert split_sizes(part) == {"train": 40_000, "validation": 10_000, "test": 10_000}
    with pytest.raises(InputError, match="not prepared"):
        split_sizes(dataclasses.replace(imagenet, per_class=10))


def test_a_gpu_is_estimated_from_a_config_whose_data_are_not_there(config, tmp_path, capsys):
    arguments = ["plan", "--config", config, "--gpu", "a100:4", "--data.data-dir", str(tmp_path), "--json"]
    assert main(arguments) == 0
    (found,) = json.loads(capsys.readouterr().out)["plans"]
    assert found["estimated"]
    assert found["fits"]
    assert found["steps"] == 1407  # two epochs of 45,000 in batches of 64, upwards
    figures = found["figures"]
    network = subject_of(load_config(config)).network
    gradients = 4 * network.num_parameters
    reduced = [each for each in figures["collectives"] if each["kind"] == "all-reduce"]
    assert sum(each["bytes"] for each in reduced) == gradients, "gradients are float32 and added up once"
    assert found["model_flops"] == pytest.approx(figures["flops"], rel=0.1)
    # Parameters, momentum and averages of these; and a chip's share of the 128 batches of a dispatch.
    state, batches = 3 * gradients, 128 * 16 * (8 * 8 * 3 + 4)
    assert figures["argument_bytes"] == pytest.approx(state + batches, rel=0.01)
    # By hand: operations and bytes at the published peaks of an A100.
    times = found["step_seconds"]
    assert times["compute"] == pytest.approx(figures["flops"] / 156e12)
    assert times["memory"] == pytest.approx(figures["bytes_accessed"] / 2.039e12)
    assert times["least"] == max(times[name] for name in ("compute", "memory", "interconnect"))


def test_operations_of_the_model_are_three_times_its_forward_products():
    """Forward, and two products as large on the way back. XLA counts no products with the zeros of the padding."""
    config = TrainConfig(
        data=DataConfig(name="cifar10", image_size=32),
        model=ModelConfig(name="resnet20", width=16),
        augment=AugmentConfig(PadCropConfig(0.0), AffineConfig(0.0)),
        optim=OptimConfig(ema_decay=None),
        train=LoopConfig(batch_size=64),
    )
    planned = planned_on(subject_of(config, examples=50_000), mesh_of(place_named("a100"), config.mesh))
    multiply_adds = 40_813_184  # ResNet-20 with option A: He et al. 2015 say 0.041 G; of convolutions and head
    # A third of them each on maps of 32, 16 and 8 pixels, of whose windows so much is inside.
    inside = sum((1 - 2 / (3 * side)) ** 2 for side in (32, 16, 8)) / 3
    assert model_flops(planned) == pytest.approx(64 * 2 * 3 * multiply_adds * inside, rel=0.03)


def test_accumulation_and_fsdp_count_in_a_plan_of_gpus(config):
    plain = subject_of(load_config(config))
    one, parts, wide = (
        plan_of(subject, place_named("a100:4"))
        for subject in (plain, plain.changed("optim", accumulation=2), plain.changed("mesh", fsdp=4, shard_min=1))
    )
    assert parts.figures.flops == pytest.approx(one.figures.flops, rel=0.01)
    assert parts.figures.collective_bytes == 2 * one.figures.collective_bytes
    assert wide.figures.argument_bytes < one.figures.argument_bytes
    assert {each.kind for each in wide.figures.collectives} >= {"all-gather", "reduce-scatter"}


def test_figures_are_kept_and_so_is_a_refusal(tmp_path, monkeypatch):
    monkeypatch.setattr(kept, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(kept.importlib.metadata, "version", lambda name: "1")
    figures = StepFigures(1.0, 2.0, 3, 4, 5, 1, 6, (Collective("all-reduce", 8, 1, 6),))
    asked = []

    def compiled(lowered, chips):
        asked.append(chips)
        if chips == 2:
            raise DoesNotFit(99)
        return figures

    lowered = jax.jit(lambda x: x + 1).lower(np.zeros(3))
    assert [kept_figures(lowered, "v5e:2x4", 8, compiled) for _ in range(2)] == [figures, figures]
    for _ in range(2):
        with pytest.raises(DoesNotFit) as refusal:
            kept_figures(lowered, "v5e:1x2", 2, compiled)
        assert refusal.value.needed_bytes == 99
    assert asked == [8, 2]
    kept_figures(jax.jit(lambda x: x + 2).lower(np.zeros(3)), "v5e:2x4", 8, compiled)
    assert asked == [8, 2, 8], "another program"


def test_a_refusal_of_xla_becomes_does_not_fit_and_other_errors_stay():
    def refused(message):
        def compile():
            raise jax.errors.JaxRuntimeError(message)

        return type("Lowered", (), {"compile": staticmethod(compile)})()

    text = "RESOURCE_EXHAUSTED: ... required for HLO temporaries (16.00G) exceeds available HBM (15.75G)."
    with pytest.raises(DoesNotFit) as refusal:
        compiling.compiled_figures(refused(text), 1)
    assert refusal.value.needed_bytes == 16 * 2**30
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        compiling.compiled_figures(refused("INTERNAL: a fault"), 1)
