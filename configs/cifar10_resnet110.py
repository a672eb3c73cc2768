"""ResNet-110 on CIFAR-10 after He et al. 2015, section 4.2: 6.43 % test error there (6.61 ± 0.16 over five runs).

As published: batch 128, momentum 0.9, weight decay 1e-4, rate 0.1 for 64,000 steps of 128 of the 45,000 images (182
epochs), padding of 4 pixels with random crops, and flips; Kaiming initialisation, no dropout, no moving averages.
Otherwise than published: the warm-up at 0.01, which ends when the training error is below 80 %, about 400 steps, is
linear here, and the rate then falls as a cosine instead of by 10 at 32,000 and 48,000 steps; biases and norms are not
decayed; each channel is divided by its deviation.
The equal blocks are scanned: the network compiles in 6.8 instead of 14.7 s (docs/performance.md).
"""

from jaxcnn.config import (
    AffineConfig,
    AugmentConfig,
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
        name="cifar10_resnet110",
        data=DataConfig(name="cifar10", train_split="train[:45000]", validation_split="train[45000:]"),
        model=ModelConfig(name="resnet110", scan_blocks=True),
        augment=AugmentConfig(PadCropConfig(1.0, 4), AffineConfig(0.0), FlipConfig(0.5)),
        optim=OptimConfig(name="sgd", peak_lr=0.1, momentum=0.9, nesterov=False, weight_decay=1e-4, ema_decay=None),
        schedule=ScheduleConfig(name="cosine", warmup_epochs=1.0),
        train=LoopConfig(epochs=182.0, batch_size=128, label_smoothing=0.0),
    )
