"""How alike the features of a trained network are: what studies ask of their trials."""

from typing import Any

import jax
import numpy as np

from jaxcnn.inspection.dropping import mean_correlation
from jaxcnn.job import Job
from jaxcnn.models.classifier import POOLED, output_at
from jaxcnn.training.state import TrainState

MOST = 2000  # validation images over which features are correlated


def feature_correlation(job: Job, state: TrainState) -> dict[str, Any]:
    """Returns the mean correlation of the inputs of the head on validation images, without dropout."""
    network, parts, count = job.network, [], 0
    run = jax.jit(lambda variables, x: output_at(network.model, variables, network.normalise(x), POOLED))
    for batch, mask in job.splits["validation"].batches(500):
        parts.append(np.asarray(run(state.variables, batch.images))[np.asarray(mask, bool)])
        count += len(parts[-1])
        if count >= MOST:
            break
    features = np.concatenate(parts)[:MOST]
    return {"correlation": mean_correlation(features), "live": int(np.sum(features.std(axis=0) > 0))}
