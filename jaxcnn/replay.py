"""A step that was not finite, done again from what its run saved: the same value, and where it begins."""

from typing import Any

import numpy as np

from jaxcnn.inputs import Inputs
from jaxcnn.network import build_network
from jaxcnn.nonfinite import load, load_notes, run_again
from jaxcnn.phases import make_phases
from jaxcnn.run_folder import RunFolder
from jaxcnn.training.learning_rates import peak_rate
from jaxcnn.training.schedules import make_schedule


def replay(folder: RunFolder) -> dict[str, Any]:
    """Returns the notes of a run's failed step, with objective, grad_norm and `first` as they come out now.

    The data of the run are not needed: the batch is saved. The schedule does not matter: the loss and the gradient of
    a step do not depend on it.

    Args:
      folder: the run.

    Raises:
      InputError: it has no failed step, or what is saved of it is not whole.
    """
    notes, config, images = load_notes(folder), folder.config, folder.preprocessing
    network = build_network(config, images, folder.class_names)
    labels = np.repeat(np.arange(len(notes["class_counts"])), notes["class_counts"]).astype(np.int32)
    inputs = Inputs(notes["loader"], None, {}, labels, images.mean, images.std)  # type: ignore[arg-type]
    schedule = make_schedule(config.schedule, peak_rate(config), 1, 1.0)
    phase = make_phases(config, network, schedule, inputs, notes["start"], devices=notes.get("devices", 1))[
        notes["phase"]
    ]
    failed = load(folder, phase.state_shapes(network))
    return {**failed.notes, **run_again(phase.step, phase.look, failed.state, failed.batch)}
