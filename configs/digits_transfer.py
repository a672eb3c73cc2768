"""The digits 5 to 9 from 10 images of each: a new head on a frozen backbone. Seconds on two CPU cores.

python train.py --config configs/digits_pretrain.py --workdir runs/digits
python train.py --config configs/digits_transfer.py --init-from runs/digits
"""

from jaxcnn.config import (
    DataConfig,
    EvaluationConfig,
    LoopConfig,
    OptimConfig,
    ScheduleConfig,
    TrainConfig,
)


def get_config() -> TrainConfig:
    return TrainConfig(
        name="digits_transfer",
        data=DataConfig(classes=("5", "6", "7", "8", "9"), per_class=10),
        freeze=("backbone/**",),
        optim=OptimConfig(peak_lr=0.3, ema_decay=None),
        schedule=ScheduleConfig(warmup_epochs=0.0),
        train=LoopConfig(epochs=200.0, batch_size=50, save_every_epochs=40),
        evaluation=EvaluationConfig(every_epochs=40),
    )
