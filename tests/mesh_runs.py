"""Steps of one run on several meshes, compared with one device: `python -m tests.mesh_runs float64 everything 8x1 2x4`.

Prints, for each mesh, by how much the worst leaf of the state or the sums differs, relative to 1 + its size; how many
leaves are divided; and the bytes of state and batch on a device beside those on one device. Devices are simulated.

With `--save FILE` after one mesh the leaves go to a file instead; as one of several processes with `--coordinator ...`.
"""

import argparse
import dataclasses
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn import mesh as meshes
from jaxcnn import processes
from jaxcnn.build import build_job
from jaxcnn.config import DataConfig, EvaluationConfig, LoopConfig, MeshConfig, ModelConfig, OptimConfig, TrainConfig
from jaxcnn.job import Job
from jaxcnn.training.step import StepOptions, make_step, zero_sums

BATCH = 32


def config_of(kind: str, dtype: str) -> TrainConfig:
    """A narrow ResNet-8 on 200 digits; all but "plain": frozen leaves, moving averages, accumulation and clipping."""
    whole = kind != "plain"
    return TrainConfig(
        data=DataConfig(
            train_split="train[:200]", validation_split="validation[:64]", test_split="test[:64]", image_size=12
        ),
        model=ModelConfig(name="resnet8", width=8, dtype=dtype),  # type: ignore[arg-type]
        optim=OptimConfig(
            name=kind if kind in ("lars", "lamb") else "sgd",  # type: ignore[arg-type]
            peak_lr=0.01 if kind == "lamb" else 0.1,
            ema_decay=0.9 if whole else None,
            accumulation=2 if whole else 1,
            clip_norm=1.0 if whole else None,
        ),
        freeze=("backbone/stem/**", "backbone/stage1/**") if whole else (),
        train=LoopConfig(epochs=5.0, batch_size=BATCH),
        evaluation=EvaluationConfig(batch_size=BATCH, train_examples=0),
    )


def in_float64(job: Job) -> Job:
    """The job with steps in double precision throughout: a batch is normalised in it, and not augmented."""
    config, inputs = job.config, job.network.preprocessing

    def normalised(key: jax.Array, images: jax.Array) -> tuple[jax.Array, None]:
        return (images.astype(jnp.float64) / 255 - np.array(inputs.mean)) / np.array(inputs.std), None

    options = StepOptions(config.seed, config.train.label_smoothing, config.optim.accumulation, config.optim.ema_decay)
    phase = job.phases[0]
    step = make_step(phase.model, phase.optimizer, normalised, options)
    return dataclasses.replace(job, phases=(dataclasses.replace(phase, step=step),))


def run(config: TrainConfig, num_steps: int) -> tuple[Any, Any, int]:
    """Returns (state, sums) after some steps, and the bytes of the arguments of the program on a device."""
    wide = config.model.dtype not in ("float32", "bfloat16")
    job = build_job(config)
    if wide:
        job = in_float64(job)
    state = job.initial_state()
    if wide:
        state = jax.tree.map(lambda leaf: leaf.astype(jnp.float64) if leaf.dtype == jnp.float32 else leaf, state)
    images = jax.ShapeDtypeStruct((BATCH, *job.feed.image_shape), job.feed.image_dtype)
    sums = zero_sums(job.phases[0].step, state, images, jax.ShapeDtypeStruct((BATCH,), jnp.int32))
    sums = meshes.replicate(job.mesh, sums)
    compiled = job.compile_chunk(state, sums)
    inputs = job.feed.inputs(0, num_steps)
    state, sums, _ = compiled(state, sums, job.feed.source, inputs, np.int32(num_steps))
    return state, sums, compiled.memory_analysis().argument_size_in_bytes  # type: ignore[attr-defined]


def compare(dtype: str, kind: str, meshes: list[str]) -> dict[str, dict[str, Any]]:
    """Returns what is printed, by mesh."""
    config, num_steps = config_of(kind, dtype), 20 if dtype == "float64" else 1
    *one, bytes_of_one = run(dataclasses.replace(config, mesh=MeshConfig(data=1)), num_steps)
    found = {}
    for mesh in meshes:
        data, fsdp = map(int, mesh.split("x"))
        devices = MeshConfig(data=data, fsdp=fsdp, shard_min=64)
        *other, held = run(dataclasses.replace(config, mesh=devices), num_steps)
        pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
        worst = max(float(np.max(np.abs(np.asarray(b) - a) / (1 + np.abs(a)))) for a, b in map(_host, pairs))
        divided = sum(not leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(other[0]))
        found[mesh] = {"worst": worst, "divided": divided, "bytes": held, "bytes_of_one": bytes_of_one}
    return found


def save(dtype: str, kind: str, mesh: str, file: str) -> None:
    """Writes the state and the sums after the steps of one mesh; the first process does."""
    data, fsdp = map(int, mesh.split("x"))
    config = dataclasses.replace(config_of(kind, dtype), mesh=MeshConfig(data=data, fsdp=fsdp, shard_min=64))
    *found, _ = run(config, 20 if dtype == "float64" else 1)
    leaves = jax.tree.leaves(meshes.to_host(found))
    if processes.is_first():
        np.savez(file, *leaves)


def _host(pair: tuple[Any, Any]) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(pair[0], np.float64), np.asarray(pair[1], np.float64)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("dtype", choices=["float32", "float64"])
    parser.add_argument("kind", choices=["plain", "everything", "lars", "lamb"])
    parser.add_argument("meshes", nargs="+")
    parser.add_argument("--save")
    processes.add_options(parser)
    given = parser.parse_args()
    jax.config.update("jax_enable_x64", given.dtype == "float64")
    if given.save:
        with processes.joined(processes.launch_of(given)):
            save(given.dtype, given.kind, given.meshes[0], given.save)
    else:
        print(json.dumps(compare(given.dtype, given.kind, given.meshes)))
