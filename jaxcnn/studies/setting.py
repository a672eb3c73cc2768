"""In which size and on which data a study is run."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from jaxcnn.config import (
    AffineConfig,
    AugmentConfig,
    CutoutConfig,
    DataConfig,
    EvaluationConfig,
    FlipConfig,
    LoopConfig,
    ModelConfig,
    OptimConfig,
    PadCropConfig,
    ScheduleConfig,
    TrainConfig,
)
from jaxcnn.studies.trials import Trials

Size = Literal["quick", "cpu", "paper"]

DATA: dict[str, DataConfig] = {
    "quick": DataConfig(),
    "cpu": DataConfig(name="cifar10", train_split="train[:20000]", validation_split="test[:5000]"),
    "paper": DataConfig(name="cifar10", train_split="train", validation_split="test"),
}
"""What each size is run on, where nothing else is said. CIFAR-10's test split serves as validation: no study chooses
anything by it, all measure the weights of the last step."""

AS_THEY_ARE = AugmentConfig(PadCropConfig(0.0), AffineConfig(0.0), FlipConfig(0.0), CutoutConfig(0.0))
"""No augmentation."""
HE_2015 = AugmentConfig(PadCropConfig(1.0, 4), AffineConfig(0.0), FlipConfig(0.5), CutoutConfig(0.0))
"""He et al. 2015, section 4.2: 4 pixels of zeros, a random crop, a mirror image in half of the cases."""


@dataclass(frozen=True)
class Setting:
    """What the command line says of a study.

    Attributes:
      size: "quick" on digits, in minutes; "cpu" on CIFAR-10, cut so that a seed takes some 40 minutes on two cores at
        most; "paper" as published, for a GPU.
      data: the data of it; a study may take fewer images (`config`).
      seeds: of initial weights, order and draws.
      trials: trains; what it has trained before it reads.
    """

    size: Size
    data: DataConfig
    seeds: tuple[int, ...]
    trials: Trials

    @property
    def data_name(self) -> str:
        """Of the data set, or of the folder or file."""
        named = {"tfds": self.data.name, "synthetic": "drawn shapes"}
        return named.get(self.data.source) or Path(self.data.data_dir or "").name

    def pick(self, **by_size: Any) -> Any:
        """Returns the value of this size: `setting.pick(quick=2, cpu=10, paper=160)`."""
        return by_size[self.size]

    def resized(self, **side_by_size: int | None) -> "Setting":
        """Returns the same with images of so many pixels a side, unless the data name their own; none: as stored."""
        side = self.data.image_size or self.pick(**side_by_size)
        return dataclasses.replace(self, data=dataclasses.replace(self.data, image_size=side))

    def config(
        self,
        name: str,
        model: ModelConfig,
        *,
        epochs: float,
        optim: OptimConfig | None = None,
        batch_size: int = 128,
        augment: AugmentConfig = AS_THEY_ARE,
        per_class: int | None = None,
        every_epochs: int = 1,
        warmup_epochs: float = 1.0,
        schedule: Literal["cosine", "constant"] = "cosine",
        clean: int | None = None,
    ) -> TrainConfig:
        """Returns the config of a trial: SGD with momentum 0.9, no averages, no label smoothing, plain cross-entropy.

        Args:
          name: of the trial, in messages.
          model: the network.
          epochs: passes over the training images.
          optim: none: `rate(0.1)`.
          batch_size: images a step.
          augment: none unless one is given.
          per_class: training images of each class; none: what `data` has.
          every_epochs: between evaluations; the end is always one.
          warmup_epochs: of the learning rate.
          schedule: its shape.
          clean: training images that are measured without augmentation; none: as `EvaluationConfig.train_examples`.
        """
        data = self.data if per_class is None else _fewer(self.data, per_class)
        return TrainConfig(
            name=name,
            data=data,
            model=model,
            augment=augment,
            optim=optim or rate(0.1),
            schedule=ScheduleConfig(name=schedule, warmup_epochs=warmup_epochs),
            train=LoopConfig(epochs=epochs, batch_size=batch_size, label_smoothing=0.0),
            evaluation=EvaluationConfig(every_epochs=every_epochs, train_examples=clean),
        )


def rate(peak_lr: float, *, weight_decay: float = 1e-4, momentum: float = 0.9) -> OptimConfig:
    """Returns SGD as He et al. 2015 have it, section 3.4, but with momentum after Nesterov; no moving averages."""
    return OptimConfig(name="sgd", peak_lr=peak_lr, weight_decay=weight_decay, momentum=momentum, ema_decay=None)


def _fewer(data: DataConfig, per_class: int) -> DataConfig:
    most = per_class if data.per_class is None else min(per_class, data.per_class)
    return dataclasses.replace(data, per_class=most)
