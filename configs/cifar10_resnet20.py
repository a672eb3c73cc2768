"""ResNet-20 on CIFAR-10 with the augmentation of He et al. 2015, section 4.2 (and cosine instead of steps)."""

from jaxcnn.config import (
    AffineConfig,
    AugmentConfig,
    CutoutConfig,
    DataConfig,
    FlipConfig,
    LoopConfig,
    ModelConfig,
    OptimConfig,
    PadCropConfig,
    ScheduleConfig,
    TrainConfig,
)


def get_config() -> TrainConfig:
    return TrainConfig(
        name="cifar10_resnet20",
        data=DataConfig(name="cifar10"),
        model=ModelConfig(name="resnet20"),
        augment=AugmentConfig(PadCropConfig(1.0, 4), AffineConfig(0.0), FlipConfig(0.5), CutoutConfig(0.5, 8)),
        optim=OptimConfig(name="sgd", peak_lr=0.1, weight_decay=5e-4, ema_decay=0.995),
        schedule=ScheduleConfig(name="cosine", warmup_epochs=1.0),
        train=LoopConfig(epochs=30.0, batch_size=128),
    )
