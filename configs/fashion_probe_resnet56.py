"""Linear probe: Fashion-MNIST on the frozen features of a ResNet-56 that was trained on CIFAR-10.

    python train.py --config configs/fashion_probe_resnet56.py --data.data-dir DIR --init-from resnet56-4bfd9763.th

DIR holds Fashion-MNIST, prepared by `jaxcnn data prepare fashion_mnist`; the weights are those of akamaster's
pytorch_resnet_cifar10, and need `pip install -e ".[torch]"`. Both have ten classes, but others: the head starts anew.
"""

from jaxcnn.config import (
    AffineConfig,
    AugmentConfig,
    CutoutConfig,
    DataConfig,
    FeaturesConfig,
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
        name="fashion_probe_resnet56",
        data=DataConfig(name="fashion_mnist", image_size=32, channels=3),
        model=ModelConfig(name="resnet56"),
        augment=AugmentConfig(PadCropConfig(0.0), AffineConfig(0.0), FlipConfig(0.0), CutoutConfig(0.0)),
        optim=OptimConfig(name="adamw", peak_lr=0.1, weight_decay=0.0, ema_decay=0.99),
        schedule=ScheduleConfig(warmup_epochs=0.5),
        train=LoopConfig(epochs=40.0, batch_size=256, label_smoothing=0.0, save_every_epochs=10),
        freeze=("backbone/**",),
        replace_head="always",
        features=FeaturesConfig(cache="auto"),
    )
