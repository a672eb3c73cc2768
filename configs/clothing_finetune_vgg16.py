"""Fine-tuning of the last stage of an ImageNet VGG-16, the four before it frozen and run once a view of each photo.

    python train.py --config configs/clothing_finetune_vgg16.py --data.data-dir PHOTOS --init-from VGG16.safetensors

The folder is that of clothing_probe_vgg16.py. The last stage learns at a tenth of the head's rate.
"""

from jaxcnn.config import (
    AffineConfig,
    AugmentConfig,
    CutoutConfig,
    DataConfig,
    EvaluationConfig,
    FeaturesConfig,
    FlipConfig,
    LoopConfig,
    ModelConfig,
    OptimConfig,
    PadCropConfig,
    ResizedCropConfig,
    ScheduleConfig,
    TrainConfig,
)


def get_config() -> TrainConfig:
    return TrainConfig(
        name="clothing_finetune_vgg16",
        data=DataConfig(source="folder", image_size=128, loader="streamed"),  # crops are taken from whole photos
        model=ModelConfig(name="vgg16", neck="pooled", dropout=0.5),
        augment=AugmentConfig(
            PadCropConfig(0.0),
            AffineConfig(0.0),
            FlipConfig(0.5),
            CutoutConfig(0.0),
            ResizedCropConfig(1.0, area=(0.35, 1.0)),
        ),
        optim=OptimConfig(
            name="adamw",
            peak_lr=1e-3,
            weight_decay=0.1,
            lr_multipliers=(("backbone/**", 0.1),),
            clip_norm=1.0,
            ema_decay=0.98,
        ),
        schedule=ScheduleConfig(warmup_epochs=0.5),
        train=LoopConfig(epochs=6.0, batch_size=64, label_smoothing=0.1),
        evaluation=EvaluationConfig(batch_size=64),
        freeze=("backbone/**", "!backbone/stage5/**"),
        features=FeaturesConfig(cache="auto", views=4),
    )
