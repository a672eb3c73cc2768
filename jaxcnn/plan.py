"""What a training step will cost on TPUs, by the compiler's own figures, on a machine without one.

libtpu compiles ahead of time for a described topology: `plan_step(config, (224, 224, 3), 1000, "v5e:2x4")`.
"""

import importlib.util
import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxcnn import mesh as meshes
from jaxcnn.config import Preprocessing, TrainConfig
from jaxcnn.errors import InputError
from jaxcnn.network import build_network
from jaxcnn.phases import make_phases
from jaxcnn.training.learning_rates import peak_rate

_TOPOLOGY = "a generation and the chips along each axis, such as v5e:2x2, v5e:2x4 or v4:2x2x1"
_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "s64": 8, "u64": 8, "f64": 8}
_COLLECTIVE = re.compile(r" = (\(.*?\)|\S+) (?:all-reduce|all-gather|reduce-scatter|all-to-all)(?:-start)?\(")
_SHAPE = re.compile(r"\b([a-z]+\d+|pred)\[([\d,]*)\]")


@dataclass(frozen=True)
class StepFigures:
    """What the compiler says of one step, a chip."""

    flops: float
    """Floating-point operations."""
    bytes_accessed: float
    """Bytes that all instructions read and write, those moved to fast memory ahead of use among them."""
    temp_bytes: int
    """Memory besides arguments and outputs: mostly the maps that are kept for the way back."""
    argument_bytes: int
    """The state and the batch."""
    output_bytes: int
    """The new state and the sums; the state takes the place of the old one."""
    collective_bytes: int
    """Results of the collectives: gradients and batch statistics, added over the chips."""


def topology_mesh(topology: str) -> Mesh:
    """Returns a mesh over the described chips, with the `data` axis of `mesh.py`, to compile for.

    Raises:
      InputError: libtpu is not installed, does not know the topology, or is held by another process.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise InputError('compiling for a TPU needs libtpu: pip install -e ".[tpu]"')
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # else it asks a metadata server, which only a TPU machine has
    from jax.experimental import topologies

    try:
        # libtpu takes a host to have four chips; one chip alone has to be said.
        one = {"chips_per_host_bounds": [1, 1, 1]} if re.fullmatch(r"\w+:1x1", topology) else {}
        described = topologies.get_topology_desc(platform="tpu", topology_name=topology, **one)
    except Exception as error:  # JaxRuntimeError or NotImplementedError, by version and cause
        cause = str(error).splitlines()[0] if str(error) else type(error).__name__
        if "lockfile" in cause:
            raise InputError(
                "libtpu is held by another process; wait for it, or set ALLOW_MULTIPLE_LIBTPU_LOAD=1 (safe here: "
                "compiling needs no chip)"
            ) from None
        raise InputError(f"topology={topology!r}: libtpu knows no such; it is {_TOPOLOGY} ({cause})") from None
    return Mesh(np.array(described.devices), ("data",))


def plan_step(config: TrainConfig, image_shape: tuple[int, int, int], num_classes: int, topology: str) -> StepFigures:
    """Returns the figures of the training step of a config; no data are read.

    Args:
      config: what to train; `train.batch_size` images over all chips.
      image_shape: height, width and channels of the network's input.
      num_classes: outputs of the head.
      topology: the TPUs, such as "v5e:2x4".

    Raises:
      InputError: what does not fit in the config, a batch that the chips cannot share, and as `topology_mesh`.
    """
    mesh = topology_mesh(topology)
    if config.train.batch_size % mesh.size:
        raise InputError(f"train.batch_size={config.train.batch_size} must be a multiple of the {mesh.size} chips")
    channels = image_shape[2]
    preprocessing = Preprocessing(image_shape, (0.5,) * channels, (0.25,) * channels)
    network = build_network(config, preprocessing, tuple(map(str, range(num_classes))))
    phase = make_phases(config, network, lambda _: peak_rate(config))[-1]  # the one in which most trains
    images = jax.ShapeDtypeStruct((config.train.batch_size, *image_shape), jnp.uint8)
    return figures_of(compile_step(phase.step, phase.state_shapes(network), images, mesh))


def compile_step(step: Callable, state: Any, images: jax.ShapeDtypeStruct, mesh: Mesh) -> jax.stages.Compiled:
    """Returns (state, images, labels) -> ... compiled for a mesh: the batch divided, the state whole and donated."""
    everywhere, divided = meshes.replicated(mesh), meshes.over_data(mesh)
    state = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=everywhere), state)
    batch = jax.ShapeDtypeStruct(images.shape, images.dtype, sharding=divided)
    labels = jax.ShapeDtypeStruct(images.shape[:1], jnp.int32, sharding=divided)
    return jax.jit(step, donate_argnums=0, out_shardings=everywhere).lower(state, batch, labels).compile()


def figures_of(compiled: jax.stages.Compiled) -> StepFigures:
    """Returns the figures that a compiled program gives of itself."""
    cost, memory = compiled.cost_analysis(), compiled.memory_analysis()
    assert cost is not None
    assert memory is not None
    return StepFigures(
        flops=cost["flops"],
        bytes_accessed=cost["bytes accessed"],
        temp_bytes=memory.temp_size_in_bytes,
        argument_bytes=memory.argument_size_in_bytes,
        output_bytes=memory.output_size_in_bytes,
        collective_bytes=collective_bytes(compiled.as_text() or ""),
    )


def collective_bytes(program: str) -> int:
    """Returns the bytes of the results of all collectives in the text of a compiled program."""
    return sum(
        _BYTES.get(kind, 4) * math.prod(int(length) for length in lengths.split(",") if length)
        for result in _COLLECTIVE.findall(program)
        for kind, lengths in _SHAPE.findall(result)
    )
