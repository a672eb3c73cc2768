"""Where the gap between train and validation comes from: the same training examples measured in three ways."""

from typing import Any

import jax
import numpy as np

from jaxcnn import mesh as meshes
from jaxcnn.augment.test_time import crops_and_flips
from jaxcnn.data.feed import Batches
from jaxcnn.data.loader import Arrays, take
from jaxcnn.inputs import host_batches, training_transform
from jaxcnn.job import Job
from jaxcnn.runtime import compiler_options
from jaxcnn.training import metrics
from jaxcnn.training.state import TrainState


def measure_gap(job: Job, state: TrainState, validation: dict[str, Any]) -> dict[str, Any] | None:
    """Returns loss and top1 of the same weights on the same training examples in three ways, and on validation.

    From `training` to `augmented` only dropout and the statistics of norms change, from there to `clean` only
    augmentation, from there to `validation` only the images: what is left is generalisation.

    Args:
      job: the run; its `clean` examples are measured, less those that do not fill a batch.
      state: its averaged weights are measured, as validation's are.
      validation: the figures of the validation split.

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
    program = _program(job)
    sums: Any = None
    both = zip(_training_form(job).batches(size), job.clean.batches(size), strict=True)
    for index, ((batch, mask), (clean, _)) in enumerate(both):
        if not mask.all():
            break
        parts = jax.device_put((batch.images, clean.images, batch.labels), meshes.over_data(job.mesh))
        new = program(state.variables, *parts, np.int32(index))
        sums = new if sums is None else metrics.add(sums, new)
    ways = {name: metrics.divide(found) for name, found in jax.device_get(sums).items()}
    told = {name: {"loss": found["loss"], "top1": found["top1"]} for name, found in ways.items()}
    told["validation"] = {"loss": validation["loss"], "top1": validation["top1"]}
    return {"examples": ways["clean"]["examples"], **told}


def _training_form(job: Job) -> Batches:
    """The measured training examples as training reads them, random crops on the host included."""
    train, part = job.inputs.train, job.inputs.part
    if isinstance(train, Arrays):
        return take(train, part)
    return host_batches(train.subset(part), training_transform(job.config, job.network.preprocessing))


def _program(job: Job) -> Any:
    """(variables, images as training reads them, and as they are measured, labels, index) -> the sums of each way."""
    model: Any = job.network.model
    augment, network = job.phases[-1].augment, job.network
    height, width, _ = network.preprocessing.image_shape

    def measure(variables: Any, images: Any, clean: Any, labels: Any, index: jax.Array) -> dict[str, Any]:
        augment_key, dropout_key = jax.random.split(jax.random.fold_in(jax.random.key(job.config.seed), index))
        augmented, _ = augment(augment_key, images)
        rngs = {"dropout": dropout_key}
        logits, _ = model.apply(variables, augmented, train=True, rngs=rngs, mutable=["batch_stats"])
        (view,) = crops_and_flips(clean, height, width, 1, False)
        return {
            "training": metrics.sums_of(logits, labels),
            "augmented": metrics.sums_of(model.apply(variables, augmented, train=False), labels),
            "clean": metrics.sums_of(model.apply(variables, network.normalise(view), train=False), labels),
        }

    return jax.jit(measure, compiler_options=compiler_options())
