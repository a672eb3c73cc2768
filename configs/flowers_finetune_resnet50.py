"""Fine-tuning of an ImageNet ResNet-50 on Oxford Flowers 102, 10 training images a class, for a GPU. Not measured.

    pip install -e ".[cuda,hub,tf]"
    jaxcnn data prepare oxford_flowers102
    python train.py --config configs/flowers_finetune_resnet50.py

The head alone for two epochs, then all, each stage at 0.7 of the rate of the one after it. The weights come from the
timm hub, with their mean and std.
"""

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
    RandAugmentConfig,
    ResizedCropConfig,
    ScheduleConfig,
    TrainConfig,
)


def get_config() -> TrainConfig:
    return TrainConfig(
        name="flowers_finetune_resnet50",
        data=DataConfig(name="oxford_flowers102", image_size=224, crop_share=0.875),
        model=ModelConfig(name="resnet50", dtype="bfloat16", dropout=0.2),
        augment=AugmentConfig(
            PadCropConfig(0.0),
            AffineConfig(0.0),
            FlipConfig(0.5),
            CutoutConfig(0.0),
            ResizedCropConfig(1.0, area=(0.35, 1.0)),
            randaugment=RandAugmentConfig(0.5),
        ),
        optim=OptimConfig(
            name="adamw", peak_lr=1e-3, weight_decay=0.05, layer_decay=0.7, clip_norm=1.0, ema_decay=0.99
        ),
        schedule=ScheduleConfig(warmup_epochs=1.0),
        train=LoopConfig(epochs=60.0, batch_size=64, label_smoothing=0.1, save_every_epochs=5),
        freeze=("backbone/**",),
        unfreeze=((2.0, "**"),),
        init_from="hf-hub:timm/resnet50.a1_in1k",
    )
