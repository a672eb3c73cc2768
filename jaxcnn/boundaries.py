"""The evaluations of a run: after which steps."""

import math

from jaxcnn.job import Job


def boundaries(job: Job, step: int, *, evaluated: bool) -> list[tuple[int, float]]:
    """Returns (step, epoch) of the evaluations still to come; the end of the run is always one.

    Args:
      job: the run.
      step: steps done.
      evaluated: whether the evaluation at this step, if there is one, is done; a run that was interrupted in it has
        saved the state before it.
    """
    every = job.config.evaluation.every_epochs
    epochs = [float(epoch) for epoch in range(every, math.floor(job.config.train.epochs) + 1, every)]
    epochs += [phase.epoch for phase in job.phases[1:]]
    points = {job.step_of(epoch): epoch for epoch in epochs}
    points.setdefault(job.total_steps, float(job.config.train.epochs))
    first = step + 1 if evaluated else step
    return [(point, epoch) for point, epoch in sorted(points.items()) if point >= first]
