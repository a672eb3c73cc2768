"""What an experiment is: frozen dataclasses. `config_reader.py` reads them from files.

Every field has its default, its range (in the annotation) and a line of documentation, which is its `--help` text.
`TrainConfig()` is the quick start. Sequences are tuples, so a config is hashable and can be compared.
"""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge, Interval, Le, MinLen

from jaxcnn.config_augment import (
    AffineConfig,
    AugmentConfig,
    BlurConfig,
    BrightnessConfig,
    ContrastConfig,
    CutmixConfig,
    CutoutConfig,
    ErasingConfig,
    FlipConfig,
    GrayscaleConfig,
    HueConfig,
    MixupConfig,
    PadCropConfig,
    RandAugmentConfig,
    ResizedCropConfig,
    SaturationConfig,
    TrivialAugmentConfig,
    VerticalFlipConfig,
)
from jaxcnn.config_features import FeaturesConfig
from jaxcnn.config_health import HealthConfig
from jaxcnn.config_mesh import MeshConfig
from jaxcnn.config_optim import OptimConfig, ScheduleConfig
from jaxcnn.config_strict import Count, Positive, Strict

__all__ = [
    "AffineConfig", "AugmentConfig", "BlurConfig", "BrightnessConfig", "ContrastConfig", "CutmixConfig",
    "CutoutConfig", "DataConfig", "ErasingConfig", "EvaluationConfig", "FeaturesConfig", "FlipConfig",
    "GrayscaleConfig", "HealthConfig", "HueConfig", "LoopConfig", "MeshConfig", "MixupConfig", "ModelConfig",
    "OptimConfig", "PadCropConfig", "Preprocessing", "RandAugmentConfig", "ResizedCropConfig",
    "SaturationConfig", "ScheduleConfig", "TrainConfig", "TrivialAugmentConfig", "VerticalFlipConfig",
]  # fmt: skip


@dataclass(frozen=True)
class DataConfig(Strict):
    """Which data, how they are split, and how they reach the device."""

    source: Literal["tfds", "folder", "npz", "synthetic"] = "tfds"
    """tfds: a prepared TFDS data set; folder: image files, a folder a class; npz: arrays; synthetic: shapes."""
    name: str = "mnist5k"
    """TFDS name of the data set; `mnist5k`, 5,000 real digits, is embedded."""
    data_dir: str | None = None
    """Where the data lie: the folder of prepared TFDS data sets (none: TFDS_DATA_DIR or ~/tensorflow_datasets), the
    folder of images (ROOT/SPLIT/CLASS/* or ROOT/CLASS/*), or the .npz file."""
    train_split: str | None = None
    """Split expression to train on, such as `train[:90%]`; none: the data set's own, less the validation part."""
    validation_split: str | None = None
    """Split to validate on after each epoch; none: the data set's own, or else a tenth of its train split."""
    test_split: str | None = None
    """Split for the final figures; none: the data set's own test split, if it has one."""
    classes: tuple[str, ...] | None = None
    """Classes by name: their examples alone, in all splits, labelled in this order; none: all classes."""
    per_class: Count | None = None
    """Train on so many examples of each class at most; validation and test stay as they are; none: on all."""
    per_class_draw: Annotated[int, Ge(0)] = 0
    """Which examples `per_class` takes: each number is another draw, in which 10 a class are among 20 a class."""
    image_size: Annotated[int, Interval(ge=1, le=2**14)] | None = None
    """Side in pixels of the network's input, to which images are resized and cropped; none: as stored."""
    crop_share: Annotated[float, Interval(gt=0.0, le=1.0)] = 1.0
    """Part of the resized image's side that evaluation's centre crop keeps; 0.875 is 224 of 256 pixels."""
    channels: Literal[1, 3] | None = None
    """1: grey, colours are weighted to it; 3: RGB, grey is repeated, for weights made for colour; none: as stored."""
    sampling: Literal["shuffled", "balanced"] = "shuffled"
    """shuffled: each example once an epoch; balanced: each class equally often, so examples of rare ones repeat."""
    unreadable: Literal["refuse", "skip"] = "refuse"
    """What an unreadable image does: ends the command before training, by name; or is left out, and counted."""
    loader: Literal["auto", "resident", "cached", "streamed"] = "auto"
    """resident: decoded once, on the device; cached: decoded once, memory-mapped on disk; streamed: decoded in each
    epoch by workers; auto: resident if it fits resident_limit_gib, else streamed."""
    resident_limit_gib: Positive = 4.0
    """Most memory, in GiB, that a resident data set may take on the device."""
    cache_dir: str | None = None
    """Where decoded sets and statistics are kept; none: the user's cache folder."""
    workers: Annotated[int, Ge(0)] = 0
    """Processes that decode for the streamed loader; 0: threads of this process, one a core."""


@dataclass(frozen=True)
class ModelConfig(Strict):
    """Which network. What is none is chosen by the network or by the data, and logged."""

    name: str = "resnet8"
    """Network, by its name in the registry: resnet18, resnet20, vgg16, ...; `jaxcnn models` lists them."""
    num_classes: Count | None = None
    """Classes of the head; none: those of the data set. Another number than the data set's is an error."""
    width: Count | None = None
    """Channels of the first stage; none: the network's own (16 for CIFAR ResNets, 64 otherwise)."""
    stage_sizes: Annotated[tuple[Count, ...], MinLen(1)] | None = None
    """Blocks (VGG: convolutions) in each stage, such as `2 2 2`: another depth; none: the network's own."""
    block: Literal["basic", "bottleneck", "plain", "preact", "preact_bottleneck"] | None = None
    """Residual block (plain: basic without its addition; preact: ResNet v2's); none: the network's own."""
    bottleneck_stride: Literal["3x3", "1x1"] | None = None
    """Convolution of a bottleneck that has the stride. 3x3: v1.5; 1x1: v1, as in the paper; none: 3x3."""
    stem: Literal["small", "imagenet", "deep"] | None = None
    """small: one 3x3; imagenet: 7x7 stride 2 and max-pool; deep: three 3x3 for the 7x7; none: by image size."""
    shortcut: Literal["projection", "pad", "pool"] | None = None
    """What reshapes a shortcut: a 1x1 convolution, zeros (option A) or ResNet-D's mean and 1x1; none: its own."""
    squeeze_excite: bool | None = None
    """Weigh the channels at the end of each residual block (SE-ResNet); none: the network's own."""
    neck: Literal["dense", "pooled"] | None = None
    """VGG only. dense: two layers of 4,096 units; pooled: the mean over the map; none: by image size."""
    norm: Literal["batch", "layer", "instance", "group", "none"] | None = None
    """Normalisation; none: the network's own (batch for ResNet, no norm for VGG, as in torchvision)."""
    num_groups: Count = 32
    """Groups of `norm=group`; must divide every number of channels."""
    virtual_batch_size: Count | None = None
    """Images that share batch statistics (ghost batch norm); must divide the batch; none: the whole batch."""
    weight_standardisation: bool = False
    """Use each convolution kernel with mean 0 and variance 1 an output channel; meant to go with norm=group."""
    activation: Literal["relu", "gelu", "gelu_tanh", "silu", "sigmoid", "tanh", "leaky_relu", "elu", "hard_swish"] = (
        "relu"
    )
    """Activation after each convolution and hidden dense layer."""
    init: Literal[
        "kaiming_fan_out_normal",
        "kaiming_fan_in_normal",
        "kaiming_fan_out_uniform",
        "kaiming_fan_in_uniform",
        "xavier_normal",
        "xavier_uniform",
        "lecun_normal",
        "orthogonal",
        "normal",
    ] = "kaiming_fan_out_normal"
    """Initialiser of the convolution kernels; Kaiming's gain is that of the activation."""
    head_init: Literal["default", "zero", "prior"] = "default"
    """Start of a head that is not from init_from. default: its usual kernel; zero: kernel and bias 0, so that all
    classes are equally likely; prior: kernel 0, and the bias the logarithm of each class's share of the data."""
    init_std: Positive = 0.01
    """Standard deviation of `init=normal`."""
    zero_last_scale: bool = False
    """Start the last norm scale of each residual block at 0, so that each block starts as its shortcut."""
    dropout: Annotated[float, Interval(ge=0.0, lt=1.0)] | None = None
    """Probability of dropping a unit before the head and inside VGG's dense layers; none: the network's own."""
    block_dropout: Annotated[float, Interval(ge=0.0, lt=1.0)] | None = None
    """Probability of dropping before each block's last convolution, or after each stage of VGG; none: its own."""
    block_dropout_kind: Literal["unit", "channel"] = "unit"
    """What `block_dropout` drops: single values of a map, or whole channels (spatial dropout)."""
    stochastic_depth: Annotated[float, Interval(ge=0.0, lt=1.0)] = 0.0
    """Probability of skipping the last residual block for an image; it falls linearly to the first block."""
    scan_blocks: bool = False
    """ResNets: apply the equal blocks of a stage in one loop, so that deep networks compile in half the time."""
    remat: tuple[str, ...] = ()
    """Parts whose maps are computed anew on the way back, such as `stem stage1` or `stage*` or `all`: less memory for
    up to a third more arithmetic; see docs/large_batches.md."""
    plain: bool = False
    """Leave convolutions, pooling, batch norm and their gradients to JAX; slow on CPU, but with forward derivatives."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Compute type; parameters, norm statistics, logits and loss are float32 in any case."""


@dataclass(frozen=True)
class LoopConfig(Strict):
    """Length and cadence of the run."""

    epochs: Positive = 46.0
    """Passes over the training split; parts of an epoch are allowed."""
    batch_size: Count = 128
    """Examples a step, over all devices."""
    label_smoothing: Annotated[float, Interval(ge=0.0, lt=1.0)] = 0.1
    """Share of the target spread evenly over all classes (Szegedy et al. 2015, section 7)."""
    class_weights: Literal["none", "balanced", "effective"] = "none"
    """Weight of an example's loss by its class, 1 on average. balanced: 1 / its share of the training examples;
    effective: 1 / its effective number of examples (Cui et al. 2019), milder for large classes."""
    patience_epochs: Count | None = None
    """Stop after this many epochs without a higher validation top-1; none: never."""
    save_every_epochs: Count = 1
    """Epochs between checkpoints; one is always written at the end and on interruption."""
    max_steps_per_dispatch: Annotated[int, Ge(1), Le(4096)] = 128
    """Most steps sent to the device in one go; fewer are sent when steps are slow, with the same result."""
    compilation_cache: bool = True
    """Keep compiled programs in the user's cache folder, so that the next start is fast."""
    deterministic: bool = False
    """On a GPU: operations that give the same bits each time, chosen without measuring, so that two runs, and one that
    was interrupted, are equal bit by bit; slower (docs/preemption.md). On CPU and TPU they are so anyway."""


@dataclass(frozen=True)
class EvaluationConfig(Strict):
    """How the network is measured. Each example counts exactly once."""

    batch_size: Count = 500
    """Examples a forward pass, over all devices."""
    every_epochs: Count = 1
    """Epochs between evaluations on the validation split."""
    flip: bool = False
    """Average the probabilities of each image and its mirror image."""
    train_examples: Annotated[int, Ge(0)] | None = None
    """Training examples that are measured as validation is, without augmentation, beside it; 0: none are; none: a
    tenth of them, and no more than validation has, in whole batches."""
    crops: Literal[1, 5] = 1
    """1: the centre crop; 5: the mean of the probabilities of the corners and the centre, see data.crop_share."""


@dataclass(frozen=True)
class TrainConfig(Strict):
    """One experiment. The defaults are the quick start: a ResNet-8 on 5,000 real digits."""

    name: str = "quickstart"
    """Name of the experiment; the run folder is runs/NAME-TIME unless --workdir says otherwise."""
    seed: Annotated[int, Interval(ge=0, lt=2**31)] = 0
    """Seed of the initial weights, the order of examples, augmentation and dropout."""
    data: DataConfig = field(default_factory=DataConfig)
    """Which data."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """Which network."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """Random changes to training images."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """The optimizer."""
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    """The learning rate over the run."""
    train: LoopConfig = field(default_factory=LoopConfig)
    """Length and cadence."""
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    """How the network is measured."""
    freeze: tuple[str, ...] = ()
    """Globs of parameter paths that do not train, such as `backbone/**`; `!` takes back, the last match wins."""
    unfreeze: tuple[tuple[float, str], ...] = ()
    """Epochs with globs of what trains from then on, such as `2 backbone/stage4/** 5 **`: gradual unfreezing."""
    features: FeaturesConfig = field(default_factory=FeaturesConfig)
    """Whether the output of the frozen part is kept."""
    init_from: str | None = None
    """Run folder, file of weights (.safetensors, .pth, .h5) or hf-hub:OWNER/NAME from whose weights this run starts.

    Images are then normalised with the statistics of those weights; a head for other classes starts anew, and
    colour weights are summed for grey images unless data.channels is 3."""
    replace_head: Literal["auto", "always", "never"] = "auto"
    """Whether the head of init_from gives way to a new one. auto: where its classes are others, by number or by name;
    never: then it is an error."""
    mesh: MeshConfig = field(default_factory=MeshConfig)
    """The devices, and what each of them holds."""
    health: HealthConfig = field(default_factory=HealthConfig)
    """What is watched of each layer while it trains."""


@dataclass(frozen=True)
class Preprocessing(Strict):
    """How an image becomes the network's input: what must travel with the weights."""

    image_shape: tuple[int, int, int]
    """Height, width and channels of the input."""
    mean: tuple[float, ...]
    """Mean of each channel, in units of 0..1."""
    std: tuple[float, ...]
    """Standard deviation of each channel, in units of 0..1."""
    channel_order: Literal["RGB", "grey"] = "RGB"
    """Order of the channels. Weights made for BGR are turned when they are imported."""
    crop_share: Annotated[float, Interval(gt=0.0, le=1.0)] = 1.0
    """Part of the resized image's side that the centre crop keeps: 0.875 is 224 of 256 pixels."""
