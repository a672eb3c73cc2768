"""Where the gap between train and validation comes from: the same training examples measured in three ways."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxcnn import mesh as meshes
from jaxcnn.data.feed import Batches
from jaxcnn.data.loader import Arrays, take
from jaxcnn.evaluation import evaluate
from jaxcnn.inputs import host_batches, training_transform
from jaxcnn.job import Job
from jaxcnn.runtime import compiler_options
from jaxcnn.training import metrics
from jaxcnn.training.state import TrainState


def measure_gap(
    job: Job, state: TrainState, phase: int, validation: dict[str, Any], between: Callable[[], None] = lambda: None
) -> dict[str, Any] | None:
    """Returns loss and top1 of the same weights on the same training examples in three ways, and on validation.

    From `training` to `augmented` only dropout and the statistics of norms change, from there to `clean` only
    augmentation (and, where `evaluation` averages several views, the views), from there to `validation` only the
    images: what is left is generalisation.

    Args:
      job: the run; its `clean` examples are measured, in training mode less those that do not fill a batch.
      state: its averaged weights are measured, as validation's are.
      phase: of the state: which norms are frozen.
      validation: the figures of the validation split.
      between: called before each batch; it may raise, and the figures are given up.

    Returns:
      examples; training (training mode, augmented), augmented (evaluation mode, augmented), clean (evaluation mode, as
      they are), validation: {"loss", "top1"}. None where no training examples are measured, or features are read for
      images, which are augmented already or not at all.
    """
    if job.clean is None or job.start is not None:
        return None
    size = min(job.config.train.batch_size, len(job.inputs.part) // job.mesh.size * job.mesh.size)
    if not size:
        return None
    program = _program(job, phase)
    sums: Any = None
    for index, (batch, mask) in enumerate(_training_form(job).batches(size)):
        if not mask.all():
            break
        between()
        images, labels = meshes.divide(job.mesh, (batch.images, batch.labels), size)
        new = program(state.variables, images, labels, np.int32(index))
        sums = new if sums is None else metrics.add(sums, new)
    ways = {name: metrics.divide(found) for name, found in jax.device_get(sums).items()}
    ways["clean"] = evaluate(
        job.measured, state.variables, job.clean, job.config.evaluation.batch_size, job.mesh, between
    )
    ways["validation"] = validation
    told = {name: {"loss": found["loss"], "top1": found["top1"]} for name, found in ways.items()}
    return {"examples": ways["training"]["examples"], **told}


def _training_form(job: Job) -> Batches:
    """The measured training examples as training reads them, random crops on the host included."""
    train, part = job.inputs.train, job.inputs.part
    if isinstance(train, Arrays):
        return take(train, part)
    return host_batches(train.subset(part), training_transform(job.config, job.network.preprocessing))


def _program(job: Job, phase: int) -> Any:
    """(variables, images as training reads them, labels, index of the batch) -> the sums of two ways."""
    model: Any = job.phases[phase].model
    augment = job.phases[phase].augment

    def measure(variables: Any, images: Any, labels: Any, index: jax.Array) -> dict[str, Any]:
        augment_key, dropout_key = jax.random.split(jax.random.fold_in(jax.random.key(job.config.seed), index))
        augmented, _ = augment(augment_key, images)
        rngs = {"dropout": dropout_key}
        logits, _ = model.apply(variables, augmented, train=True, rngs=rngs, mutable=["batch_stats"])
        return {
            "training": metrics.sums_of(logits, labels),
            "augmented": metrics.sums_of(model.apply(variables, augmented, train=False), labels),
        }

    return jax.jit(measure, compiler_options=compiler_options(deterministic=job.config.train.deterministic))
