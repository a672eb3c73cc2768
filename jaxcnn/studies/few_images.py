"""A pretrained start against none, from few images a class: frozen, fine-tuned, from scratch."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxcnn.config import ModelConfig
from jaxcnn.studies.setting import Setting, rate
from jaxcnn.studies.spread import Spread
from jaxcnn.studies.stage_probes import PRETRAINED, RANDOM, Probed, Weighed

FROZEN, TUNED, SCRATCH, CONTROL = "frozen", "fine-tuned", "from scratch", "frozen, random"
BATCH, TUNING_RATE, SCRATCH_RATE = 50, 0.03, 0.1


@dataclass(frozen=True)
class Few:
    """Top-1 on validation, 0..1, from so many images a class (none: all there are), one value a seed, by method."""

    count: int | None
    top1: dict[str, Spread]


def from_few(
    setting: Setting, task: Probed, points: tuple[str, str], counts: tuple[int, ...], trained: "Trained | None"
) -> tuple[Few, ...]:
    """Returns the curve over the number of images a class, of all that a class has at last.

    Args:
      setting: its seeds are draws of images, and of random weights.
      task: what is learnt.
      points: of the network, for probes on pretrained and on random weights.
      counts: images a class; those that a class does not have are left out.
      trained: how networks are trained from them; none: probes alone.
    """
    curve, least = [], int(np.bincount(task.labels).min())
    kinds = {FROZEN: (PRETRAINED, points[0]), CONTROL: (RANDOM, points[1])}
    for count in [count for count in counts if count < least]:
        top1 = {
            name: Spread.of(task.from_few(kind, point, count, setting.seeds)) for name, (kind, point) in kinds.items()
        }
        curve.append(Few(count, top1 | ({} if trained is None else trained.top1(setting, count))))
    whole = {
        name: Spread.of([task.probe(kind, index, point)[1] for index in range(len(task.train[kind]))])
        for name, (kind, point) in kinds.items()
    }
    return (*curve, Few(None, whole))


@dataclass(frozen=True)
class Trained:
    """How networks are trained from few images: with one preprocessing, and equally long."""

    model: ModelConfig
    places: list[str]
    target: Probed
    weighed: Weighed
    steps: int

    def top1(self, setting: Setting, count: int) -> dict[str, Spread]:
        """Returns top-1 on validation of the fine-tuned networks, and of those from scratch, a seed each."""
        images, num_train = self.weighed.network.preprocessing, count * len(self.target.class_names)
        batch_size = min(BATCH, num_train)
        side = images.image_shape[0] if images.image_shape[0] == images.image_shape[1] else None
        channels: Any = images.image_shape[2]
        data = dataclasses.replace(self.target.data, image_size=side, channels=channels, crop_share=images.crop_share)
        own = dataclasses.replace(setting, data=data)
        found = {}
        for name, peak_lr in ((TUNED, TUNING_RATE), (SCRATCH, SCRATCH_RATE)):
            epochs = self.steps * batch_size / num_train
            config = own.config(
                f"{name}-{count}", self.model, epochs=epochs, optim=rate(peak_lr), batch_size=batch_size,
                per_class=count, every_epochs=max(1, int(epochs) + 1), warmup_epochs=epochs / 10, clean=0,
            )  # fmt: skip
            each = [
                dataclasses.replace(
                    config,
                    seed=seed,
                    data=dataclasses.replace(config.data, per_class_draw=seed),
                    init_from=self.places[index % len(self.places)] if name == TUNED else None,
                )
                for index, seed in enumerate(setting.seeds)
            ]
            trials = setting.trials.run_each(f"{name.replace(' ', '-')}-{count}", each, preprocess=images)
            found[name] = Spread.of([trial.top1 for trial in trials])
        return found
