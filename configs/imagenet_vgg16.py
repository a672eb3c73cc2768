"""VGG-16 with batch norm on ImageNet after torchvision's recipe: 73.4 % top-1 there. Not measured here.

    jaxcnn plan --config configs/imagenet_vgg16.py --topology v5e:2x4

As in torchvision's reference (references/classification; with batch norm its defaults): 90 epochs at batch 256, rate
0.1, momentum 0.9, weight decay 1e-4, random resized crops and flips, dropout of 0.5 between the dense layers. Otherwise
than there: the rate falls as a cosine after five epochs of warm-up instead of by 10 every 30 epochs, momentum is
Nesterov's, biases and norms are not decayed, and maps are bfloat16.
"""

from jaxcnn.config import (
    AffineConfig,
    AugmentConfig,
    DataConfig,
    EvaluationConfig,
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
        name="imagenet_vgg16",
        data=DataConfig(name="imagenet2012", image_size=224, crop_share=0.875, loader="streamed"),
        model=ModelConfig(name="vgg16", norm="batch", dtype="bfloat16", dropout=0.5),
        augment=AugmentConfig(
            PadCropConfig(0.0), AffineConfig(0.0), FlipConfig(0.5), resized_crop=ResizedCropConfig(1.0)
        ),
        optim=OptimConfig(name="sgd", peak_lr=0.1, momentum=0.9, weight_decay=1e-4, ema_decay=None),
        schedule=ScheduleConfig(name="cosine", warmup_epochs=5.0),
        train=LoopConfig(epochs=90.0, batch_size=256, label_smoothing=0.0),
        evaluation=EvaluationConfig(batch_size=256),
    )
