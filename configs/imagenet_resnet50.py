"""ResNet-50 on ImageNet after Goyal et al. 2017 (arXiv:1706.02677). Not measured here; there 76.4 % top-1 at batch 256.

    jaxcnn plan --config configs/imagenet_resnet50.py --topology v5e:2x4

As published (section 5.1): rate 0.1 for each 256 of the batch, five epochs of warm-up, 90 epochs, Nesterov momentum of
0.9, weight decay of 1e-4 but not of norms, last norm scales from 0, random resized crops and flips. Otherwise than
published: the rate falls as a cosine instead of by 10 at 30, 60 and 80 epochs, warm-up begins at 0 instead of 0.1,
labels are smoothed by 0.1, the head's bias is not decayed, its kernel is drawn by its width instead of with a deviation
of 0.01, and maps are bfloat16. Batch norm is over the whole batch, there over 32 images.
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
        name="imagenet_resnet50",
        data=DataConfig(name="imagenet2012", image_size=224, crop_share=0.875, loader="streamed"),
        model=ModelConfig(name="resnet50", dtype="bfloat16", zero_last_scale=True),
        augment=AugmentConfig(
            PadCropConfig(0.0), AffineConfig(0.0), FlipConfig(0.5), resized_crop=ResizedCropConfig(1.0)
        ),
        optim=OptimConfig(
            name="sgd", peak_lr=0.1, lr_scaling="linear", momentum=0.9, weight_decay=1e-4, ema_decay=None
        ),
        schedule=ScheduleConfig(name="cosine", warmup_epochs=5.0),
        train=LoopConfig(epochs=90.0, batch_size=1024, label_smoothing=0.1),
        evaluation=EvaluationConfig(batch_size=1024),
    )
