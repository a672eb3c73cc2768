"""A subject made fit for a few hundred steps: what is frozen is computed once, batches are smaller on CPU.

Batches of a few examples, on the other hand, are made larger, for a few hundred steps of them tell little. The learning
rate follows the batch.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxcnn.models.classifier import Classifier, output_at
from jaxcnn.models.cost import count_multiply_adds
from jaxcnn.paths import flatten
from jaxcnn.runtime import compiler_options
from jaxcnn.training.partition import FrozenStatistics, partition_variables
from jaxcnn.tuning.lr_curve import BACK_OFF, back_off_of
from jaxcnn.tuning.passes import takes
from jaxcnn.tuning.subject import Examples, Subject

STEP_FLOP, PASS_FLOP = 40e9, 5e12
"""Most operations of a step and of one pass over examples on CPU: half a second, and a minute, at 80 GFLOP/s."""
LEAST_BATCH, LEAST_EXAMPLES = 16, 128
TELLING_BATCH = 32
"""Examples a step that are taken in the place of fewer planned ones: the loss of less is mostly noise."""
_FEATURE_BATCH = 32


def affordable(subject: Subject) -> Subject:
    """Returns the subject for short trainings: itself, or with less to compute.

    Where the first parts of a `Classifier` are frozen, images give way to what these make of them, without
    augmentation, so that training begins there. The batch is as planned, but at most all examples and at least
    `TELLING_BATCH` where there are so many; on CPU it is halved, down to 16, while a step takes more than `STEP_FLOP`.
    The planned learning rate is scaled with it: see `scaled_rate`.
    """
    point = frozen_point(subject)
    if point is not None:
        subject = _from_features(subject, point)
    planned, most = subject.batch_size, len(subject.train)
    batch = min(max(planned, TELLING_BATCH), most)
    if not takes(subject, batch):
        batch = min(planned, most)
    if jax.default_backend() == "cpu":
        cut, flop = batch, 6 * multiply_adds(subject)  # forward, and twice that for the gradients
        while cut * flop > STEP_FLOP and cut // 2 >= LEAST_BATCH and cut % 2 == 0:
            cut //= 2
        batch = cut if takes(subject, cut) else batch
    return dataclasses.replace(subject, batch_size=batch, peak_lr=scaled_rate(subject, batch))


def scaled_rate(subject: Subject, batch_size: int) -> float:
    """Returns the planned learning rate for another batch.

    It grows with the batch for gradient descent (Goyal et al. 2017, section 2.1), with its square root for adaptive
    optimizers (Malladi et al. 2022, On the SDEs and Scaling Rules for Adaptive Gradient Algorithms).
    """
    ratio = batch_size / subject.batch_size
    if ratio == 1:
        return subject.peak_lr
    moving, _ = partition_variables(subject.variables, subject.frozen)
    optimizer = subject.optimizer(optax.constant_schedule(0.0))
    adaptive = back_off_of(jax.eval_shape(optimizer.init, moving["params"])) == BACK_OFF["adaptive"]
    return subject.peak_lr * (math.sqrt(ratio) if adaptive else ratio)


def frozen_point(subject: Subject) -> str | None:
    """Returns the last part of a Classifier's backbone up to which nothing trains or moves; none: its first does."""
    model, rule = subject.model, subject.frozen
    if not isinstance(model, Classifier) or model.start is not None or not rule.patterns:
        return None
    params, statistics = (flatten(subject.variables.get(name, {})) for name in ("params", "batch_stats"))
    point = None
    for name in model.backbone.part_names:
        part = f"backbone/{name}/"
        still = all(rule.matches(path) for path in params if path.startswith(part))
        norms = FrozenStatistics(rule)
        if not (still and all(norms.matches(path) for path in statistics if path.startswith(part))):
            break
        point = name
    return point


def multiply_adds(subject: Subject) -> int:
    """Returns the multiply-adds of the network for one image, forward."""
    image = jax.ShapeDtypeStruct((1, *subject.train.images.shape[1:]), jnp.float32)
    program = jax.make_jaxpr(lambda variables, x: subject.model.apply(variables, x, train=False))
    return count_multiply_adds(program(subject.variables, image).jaxpr)


def _from_features(subject: Subject, point: str) -> Subject:
    """The subject that begins after a frozen part: images are maps, and nothing changes or normalises them."""
    model: Any = subject.model
    program = jax.jit(
        lambda variables, images: output_at(model, variables, subject.normalise(images), point),
        compiler_options=compiler_options(),
    )
    train, validation = subject.train, subject.validation
    if jax.default_backend() == "cpu":
        affords = max(LEAST_EXAMPLES, int(PASS_FLOP / (2 * max(multiply_adds(subject), 1))))
        share = affords / (len(train) + len(validation))
        if share < 1:
            train, validation = (_some(part, max(round(share * len(part)), 1), subject) for part in (train, validation))

    def mapped(examples: Examples) -> Examples:
        maps = []
        for begin in range(0, len(examples), _FEATURE_BATCH):
            images = examples.images[begin : begin + _FEATURE_BATCH]
            filled = np.resize(images, (_FEATURE_BATCH, *images.shape[1:]))
            maps.append(np.asarray(program(subject.variables, filled))[: len(images)])
        return Examples(np.concatenate(maps), examples.labels)

    return dataclasses.replace(
        subject,
        model=model.clone(start=point),
        train=mapped(train),
        validation=mapped(validation),
        mean=(0.0,),
        std=(1 / 255,),
        augment=lambda key, maps: (maps.astype(jnp.float32), None),
        reference_model=None if subject.reference_model is None else subject.reference_model.clone(start=point),
    )


def _some(examples: Examples, count: int, subject: Subject) -> Examples:
    return examples.take(np.random.default_rng(subject.seed).permutation(len(examples))[:count])
