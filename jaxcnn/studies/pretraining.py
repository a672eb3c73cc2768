"""Networks that others start from: trained by the study, and kept as runs."""

import dataclasses
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxcnn.config import TrainConfig
from jaxcnn.config_reader import to_json
from jaxcnn.errors import InputError
from jaxcnn.job import Job
from jaxcnn.run_folder import is_run
from jaxcnn.studies.setting import AS_THEY_ARE, HE_2015, Setting
from jaxcnn.studies.transfer_tasks import Transfer
from jaxcnn.training.state import TrainState
from jaxcnn.weights.imported_run import write_run

EPOCHS = {"quick": 5, "cpu": 15, "paper": 100}
"""Of the training on the source."""
SOURCE_BATCH = 64


def source_config(setting: Setting, transfer: Transfer) -> TrainConfig:
    """Returns how the networks are trained that are transferred; digits are not mirrored."""
    if transfer.source is None:
        raise ValueError("without weights, a source is needed to train them on")
    augment = AS_THEY_ARE if "mnist" in transfer.source.name else HE_2015
    return dataclasses.replace(setting, data=transfer.source).config(
        "source", transfer.model, epochs=EPOCHS[setting.size], every_epochs=EPOCHS[setting.size], clean=0,
        batch_size=SOURCE_BATCH, augment=augment,
    )  # fmt: skip


@dataclass(frozen=True)
class Keeper:
    """Writes trained networks as runs, so that others start from them."""

    folder: Path

    def place(self, config: TrainConfig) -> Path:
        """Returns where the run of a config goes."""
        key = hashlib.sha256(to_json(config).encode()).hexdigest()[:10]
        return self.folder / f"{config.name}-{config.seed}-{key}"

    def write(self, job: Job, state: TrainState) -> dict[str, Any]:
        """A `trials.Measure`: writes the run, where it is not there yet."""
        place, network = self.place(job.config), job.network
        if not is_run(place):
            origin = {"study": job.config.name, "data": network.class_names}
            write_run(place, job.config, network.class_names, network.preprocessing, state.variables, origin)
        return {}


def pretrained(setting: Setting, config: TrainConfig) -> list[str]:
    """Returns the runs of a config, a seed each, which are trained where that was not done before.

    Raises:
      InputError: a run that was trained before has been removed.
    """
    if setting.trials.folder is None:
        raise ValueError("networks that others start from are kept in a folder")
    keeper = Keeper(setting.trials.folder.parent / "networks")
    setting.trials.run(config.name, config, setting.seeds, keeper.write)
    places = [keeper.place(dataclasses.replace(config, seed=seed)) for seed in setting.seeds]
    for place in places:
        if not is_run(place):
            raise InputError(f"{place} is gone: remove {setting.trials.folder / config.name}-*.json too")
    return [str(place) for place in places]
