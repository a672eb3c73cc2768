"""ResNet-50's training step compiled for TPUs that are not here: ours beside plain flax, by the compiler's own figures.

    python -m benchmarks tpu [--topology v5e:2x4] [--batch-per-chip 128] [--network resnet50] [--out DIR]

Nothing runs: libtpu compiles on this machine, some minutes a step, and says how many bytes the program moves and how
much memory it needs a chip. Plain flax is `flax_imagenet_resnet.py`; it has ResNet-50 only.
"""

import dataclasses
import importlib.metadata
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import report
from benchmarks.arguments import RESULTS, Parser, count
from jaxcnn.config import AffineConfig, AugmentConfig, LoopConfig, ModelConfig, OptimConfig, PadCropConfig, TrainConfig
from jaxcnn.errors import InputError, did_you_mean
from jaxcnn.models.registry import NETWORKS
from jaxcnn.plan import StepFigures, compile_step, figures_of, plan_step, topology_mesh

IMAGE = (224, 224, 3)
CLASSES = 1000
PLAIN, OURS = "plain flax", "ours"


def main(argv: Sequence[str]) -> int:
    """Compiles the steps, prints their table and writes tpu.json and tpu.md."""
    parser = Parser("python -m benchmarks tpu", description=__doc__.splitlines()[0])
    parser.add_argument("--topology", default="v5e:2x4", help="chips to compile for")
    parser.add_argument("--batch-per-chip", type=count, default=128, help="images a chip")
    parser.add_argument("--network", default="resnet50", help="ours, by name; plain flax beside resnet50 only")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of tpu.json and tpu.md")
    found = parser.parse_args(argv)
    if found.network not in NETWORKS:
        raise InputError(f"--network {found.network!r}: {did_you_mean(found.network, NETWORKS)}")
    report.check_folder(found.out)
    figures = measure(found.topology, found.batch_per_chip, found.network)
    setting = {
        "network": found.network,
        "topology": found.topology,
        "batch_per_chip": found.batch_per_chip,
        "libtpu": importlib.metadata.version("libtpu"),
    }
    rows = [{"step": name, **setting, "a_chip": dataclasses.asdict(row)} for name, row in figures.items()]
    report.write(found.out, "tpu", argv, rows, markdown(figures))
    return 0


def measure(topology: str, batch_per_chip: int, network: str) -> dict[str, StepFigures]:
    """Returns the figures of each step a chip, by name; those of plain flax for ResNet-50 only."""
    batch_size = batch_per_chip * topology_mesh(topology).size
    runs = {OURS: lambda: plan_step(imagenet_config(network, batch_size), IMAGE, CLASSES, topology)}
    if network == "resnet50":
        runs = {PLAIN: lambda: plain_flax(topology, batch_size), **runs}
    figures = {}
    for name, run in runs.items():
        started = time.monotonic()
        figures[name] = run()
        print(f"{name}: compiled in {time.monotonic() - started:.0f} s: {figures[name]}", file=sys.stderr, flush=True)
    return figures


def imagenet_config(network: str, batch_size: int) -> TrainConfig:
    """Returns our config of what the flax example trains: no augmentation on the device, momentum, no averages."""
    return TrainConfig(
        model=ModelConfig(name=network, dtype="bfloat16", zero_last_scale=True),
        augment=AugmentConfig(PadCropConfig(prob=0.0), AffineConfig(prob=0.0)),
        optim=OptimConfig(peak_lr=0.1, weight_decay=1e-4, ema_decay=None),
        train=LoopConfig(batch_size=batch_size, label_smoothing=0.1),
    )


def plain_flax(topology: str, batch_size: int) -> StepFigures:
    """Returns the figures of the flax example's step; its images are normalised beforehand, in bfloat16."""
    from benchmarks import flax_imagenet_resnet as plain

    initial, step = plain.make_step(plain.ResNet(num_classes=CLASSES))
    state: Any = jax.eval_shape(initial, jax.random.key(0), jax.ShapeDtypeStruct((1, *IMAGE), jnp.bfloat16))
    images = jax.ShapeDtypeStruct((batch_size, *IMAGE), jnp.bfloat16)
    return figures_of(compile_step(step, state, images, topology_mesh(topology)))


def markdown(figures: dict[str, StepFigures]) -> str:
    """Returns the table; in brackets the ratio to plain flax, where that is among the figures."""
    columns = {
        "TFLOP": lambda row: row.flops / 1e12,
        "GB accessed": lambda row: row.bytes_accessed / 1e9,
        "GB temporary": lambda row: row.temp_bytes / 1e9,
        "GB arguments": lambda row: row.argument_bytes / 1e9,
        "GB collectives": lambda row: row.collective_bytes / 1e9,
    }
    lines = [f"| a chip | {' | '.join(columns)} |", "| --- " * (len(columns) + 1) + "|"]
    for name, row in figures.items():
        cells = [f"{column(row):.2f}{_ratio(column, row, figures)}" for column in columns.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _ratio(column: Any, row: StepFigures, figures: dict[str, StepFigures]) -> str:
    plain = figures.get(PLAIN)
    return "" if plain is None or row is plain or not column(plain) else f" ({column(row) / column(plain):.2f})"
