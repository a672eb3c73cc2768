"""The operations of a model, whatever the compiler makes of them."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxcnn.config import MeshConfig
from jaxcnn.phases import Phase
from jaxcnn.plan.subject import Planned


def model_flops(planned: Planned) -> float:
    """Returns the operations of a step of the whole batch, by XLA's count of the program as it is traced.

    That of the network without our own forms of convolutions, without loops, which XLA counts once, and without what is
    computed again to save memory.
    """
    job = planned.job
    step = countable_phase(planned).step
    state = job.phases[planned.phase].state_shapes(job.network)
    size = job.config.train.batch_size
    images = jax.ShapeDtypeStruct((size, *job.feed.image_shape), job.feed.image_dtype)
    cost: Any = jax.jit(step).lower(state, images, jax.ShapeDtypeStruct((size,), jnp.int32)).cost_analysis()
    return float(cost["flops"])


def countable_phase(planned: Planned, images: int | None = None) -> Phase:
    """Returns the phase of a run in the form whose operations XLA counts right.

    Args:
      planned: the run.
      images: those of a step on one device, with what is computed again for memory; none: of the whole batch, without.
    """
    config = planned.job.config
    fields: dict[str, Any] = {"plain": True, "scan_blocks": False, "virtual_batch_size": None}
    if images is None:
        fields["remat"] = ()
    config = dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, **fields),
        optim=dataclasses.replace(config.optim, accumulation=1),
        train=dataclasses.replace(config.train, batch_size=images or config.train.batch_size),
        mesh=MeshConfig(),
    )
    return planned.job.phases_of(config, None)[planned.phase]
