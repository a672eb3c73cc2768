"""Config -> what is checked of it: the job, and its parts as a Subject."""

import collections
import dataclasses
import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn.augment.pipeline import make_augment
from jaxcnn.build import build_job
from jaxcnn.config import FeaturesConfig, TrainConfig
from jaxcnn.data import loader
from jaxcnn.data.source import Source, Splits
from jaxcnn.data.sources import open_splits
from jaxcnn.job import Job
from jaxcnn.network import build_network
from jaxcnn.training.class_weights import class_weights
from jaxcnn.training.learning_rates import batch_factor, factors_of, peak_rate
from jaxcnn.training.losses import target_losses
from jaxcnn.training.optim import make_optimizer
from jaxcnn.tuning.subject import Examples, Subject

MAX_EXAMPLES = 4096
MAX_BYTES = 2**28
"""Of each split no more is held in memory than either allows."""


def subject_of(
    config: TrainConfig, splits: Splits | None = None, max_examples: int = MAX_EXAMPLES
) -> tuple[Job, Subject]:
    """Returns the job of a config, and its parts to be checked.

    The subject is the whole network on images as evaluation sees them, resized and cropped at the centre, whatever the
    loader; random resized crops are taken from those. Where the config keeps features of a frozen part, the job is that
    of the same run without: nothing is extracted for a check.

    Args:
      config: what to train.
      splits: the data, for those who have them in Python; none: those that `config.data` names.
      max_examples: of each split; of a larger one a sample, drawn by the seed, that has at least one example of each
        class that there is.

    Raises:
      InputError: as `build_job`.
    """
    config = dataclasses.replace(config, features=FeaturesConfig())
    splits = open_splits(config.data) if splits is None else splits
    job = build_job(config, splits=splits)
    images, optim = job.network.preprocessing, config.optim
    factors = factors_of(  # of the optimizer, which takes 1 for other paths: who checks may put in another network
        job.network.shapes["params"], job.network.model.part_paths, optim.layer_decay, optim.lr_multipliers
    )
    counts = np.bincount(splits.train.labels, minlength=len(splits.train.class_names)).tolist()
    read = functools.partial(_examples, config, job, max_examples=max_examples)
    subject = Subject(
        model=job.network.model,
        variables=jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)), job.initial_state().current),
        train=read(splits.train),
        validation=read(splits.validation),
        class_names=job.network.class_names,
        mean=images.mean,
        std=images.std,
        optimizer=lambda schedule: make_optimizer(optim, schedule, collections.defaultdict(lambda: 1.0, factors)),
        peak_lr=peak_rate(config),
        batch_size=config.train.batch_size,
        augment=make_augment(config.augment, images.mean, images.std, images.image_shape),
        loss=functools.partial(
            target_losses,
            smoothing=config.train.label_smoothing,
            class_weights=class_weights(counts, config.train.class_weights),
        ),
        frozen=job.phases[0].rule,
        activation=config.model.activation,
        pretrained=config.init_from is not None,
        label_smoothing=config.train.label_smoothing,
        seed=config.seed,
        num_train=job.num_train,
        rate_factor=batch_factor(config),
        rates=(1e-3, 1e3) if optim.name == "lars" else (1e-5, 10.0),  # lars: of its trust_coefficient of a kernel
        reference_model=_in_float32(config, job),
    )
    return job, subject


def _in_float32(config: TrainConfig, job: Job) -> nn.Module | None:
    """The same network computing in float32; none where it does."""
    if config.model.dtype == "float32":
        return None
    model = dataclasses.replace(config.model, dtype="float32")
    config = dataclasses.replace(config, model=model)
    return build_network(config, job.network.preprocessing, job.network.class_names).model


def _examples(config: TrainConfig, job: Job, source: Source, max_examples: int) -> Examples:
    """A split, or a sample of it, as evaluation sees it."""
    images = job.network.preprocessing
    limit = max(1, min(max_examples, MAX_BYTES // math.prod(images.image_shape)))
    if source.num_examples > limit:
        source = source.subset(sample(source.labels, limit, config.seed))
    arrays = loader.read_arrays(source, images.image_shape, images.crop_share, config.data.unreadable)
    return Examples(np.asarray(arrays.images), np.asarray(arrays.labels))


def sample(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Returns `count` places in ascending order, at random, but one of each label first, if there are enough places."""
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    _, first = np.unique(labels[shuffled], return_index=True)
    rest = np.delete(shuffled, first)
    return np.sort(np.concatenate([shuffled[np.sort(first)], rest])[:count])
