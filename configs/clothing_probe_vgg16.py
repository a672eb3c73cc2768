"""Linear probe: a head on the frozen convolutions of an ImageNet VGG-16, for a folder of photos in classes.

    python train.py --config configs/clothing_probe_vgg16.py --data.data-dir PHOTOS --init-from VGG16.safetensors

PHOTOS/{train,validation}/CLASS/*.jpg; 3,409 clothing photos: A. Grigorev's clothing-dataset-small. The convolutions are
run once over the photos and once over each of the augmented views; `--features.views 1 --augment.flip.prob 0
--augment.resized-crop.prob 0` does without views.
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
        name="clothing_probe_vgg16",
        data=DataConfig(source="folder", image_size=128, loader="streamed"),  # crops are taken from whole photos
        model=ModelConfig(name="vgg16", neck="pooled", dropout=0.5),
        augment=AugmentConfig(
            PadCropConfig(0.0),
            AffineConfig(0.0),
            FlipConfig(0.5),
            CutoutConfig(0.0),
            ResizedCropConfig(1.0, area=(0.35, 1.0)),
        ),
        optim=OptimConfig(name="adamw", peak_lr=1e-3, weight_decay=0.1, ema_decay=0.99),
        schedule=ScheduleConfig(warmup_epochs=1.0),
        train=LoopConfig(epochs=100.0, batch_size=128, label_smoothing=0.0, save_every_epochs=20),
        evaluation=EvaluationConfig(batch_size=64, every_epochs=5),
        freeze=("backbone/**",),
        features=FeaturesConfig(cache="auto", views=4),
    )
