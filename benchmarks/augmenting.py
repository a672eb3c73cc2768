"""`python -m benchmarks augment`: each augmentation alone, and two usual sets, on this machine.

The batch is 128 images of 32x32x3, uint8, on the device; what is timed is one call of the compiled `make_augment`, with
normalisation. All take one turn a round in this process, in an order drawn anew; nothing else should run.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import report
from benchmarks.arguments import RESULTS, Parser, count
from benchmarks.ratios import orders
from jaxcnn import config_augment as configs
from jaxcnn.config import AugmentConfig

LIMITS_MS = {"flip, pad_crop, cutout": 1.0, "RandAugment and colours": 15.0}
"""What the two sets may cost here; see docs/augmentation.md."""


def main(argv: Sequence[str]) -> int:
    """Measures, prints and writes augment.json and augment.md."""
    parser = Parser("python -m benchmarks augment", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=count, default=40, help="turns of each operation")
    parser.add_argument("--batch", type=count, default=128, help="images a call")
    parser.add_argument("--image-px", type=count, default=32, help="side of the images")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of augment.json and augment.md")
    found = parser.parse_args(argv)
    report.check_folder(found.out)
    rows = measure(found.batch, found.image_px, found.rounds)
    report.write(found.out, "augment", argv, rows, table(rows))
    return 0


def workloads() -> dict[str, AugmentConfig]:
    """Returns what is timed by name: each operation for all images with its default strength, and the sets."""
    off = {"pad_crop": configs.PadCropConfig(0.0), "affine": configs.AffineConfig(0.0)}
    alone: dict[str, Any] = {
        "resized_crop": configs.ResizedCropConfig(1.0),
        "pad_crop": configs.PadCropConfig(1.0, 4),
        "affine": configs.AffineConfig(1.0, translate=0.1),
        "flip": configs.FlipConfig(0.5),
        "vertical_flip": configs.VerticalFlipConfig(0.5),
        "randaugment": configs.RandAugmentConfig(1.0),
        "trivialaugment": configs.TrivialAugmentConfig(1.0),
        "brightness": configs.BrightnessConfig(1.0),
        "contrast": configs.ContrastConfig(1.0),
        "saturation": configs.SaturationConfig(1.0),
        "hue": configs.HueConfig(1.0),
        "grayscale": configs.GrayscaleConfig(0.2),
        "blur": configs.BlurConfig(0.5, sigma_px=(0.1, 1.0)),
        "cutout": configs.CutoutConfig(1.0),
        "erasing": configs.ErasingConfig(0.5),
        "mixup": configs.MixupConfig(1.0),
        "cutmix": configs.CutmixConfig(1.0),
    }
    usual = {name: alone[name] for name in ("pad_crop", "flip", "cutout")}
    strong = ("randaugment", "brightness", "contrast", "saturation", "hue", "grayscale", "erasing")
    colours = {**off, **usual, **{name: alone[name] for name in strong}}
    mixed = {"mixup": configs.MixupConfig(0.5), "cutmix": configs.CutmixConfig(0.5)}
    return {
        "normalisation alone": AugmentConfig(**off),
        **{name: AugmentConfig(**{**off, name: config}) for name, config in alone.items()},
        "flip, pad_crop, cutout": AugmentConfig(**{**off, **usual}),
        "RandAugment and colours": AugmentConfig(**{**colours, **mixed}),
    }


def measure(batch: int, image_px: int, rounds: int) -> list[dict[str, Any]]:
    """Returns a row for each workload, with the seconds of each round."""
    calls = {name: _prepared(config, batch, image_px) for name, config in workloads().items()}
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for order in orders(list(calls), rounds):
        for name in order:
            started = time.perf_counter()
            calls[name]()
            seconds[name].append(time.perf_counter() - started)
    return [
        {
            "operation": name,
            "batch": batch,
            "image_px": image_px,
            "median_ms": 1000 * float(np.median(times)),
            "low_ms": 1000 * float(np.quantile(times, 0.16)),
            "high_ms": 1000 * float(np.quantile(times, 0.84)),
            "limit_ms": LIMITS_MS.get(name) if (batch, image_px) == (128, 32) else None,
            "seconds": times,
        }
        for name, times in seconds.items()
    ]


def _prepared(config: AugmentConfig, batch: int, image_px: int) -> Callable[[], None]:
    """Returns what augments one batch and waits for it, compiled and warm."""
    import jax
    import jax.numpy as jnp

    from jaxcnn.augment import make_augment
    from jaxcnn.runtime import compiler_options

    drawn = np.random.default_rng(0).integers(0, 256, (batch, image_px, image_px, 3), np.uint8)
    key, images = jax.random.key(0), jnp.asarray(drawn)
    augment = jax.jit(make_augment(config, (0.5,) * 3, (0.25,) * 3), compiler_options=compiler_options(training=True))
    compiled = augment.lower(key, images).compile()

    def call() -> None:
        jax.block_until_ready(compiled(key, images))

    for _ in range(3):
        call()
    return call


def table(rows: list[dict[str, Any]]) -> str:
    """Returns the Markdown table."""
    lines = [
        [
            row["operation"],
            f"{row['median_ms']:.2f}",
            f"{row['low_ms']:.2f} to {row['high_ms']:.2f}",
            "" if row["limit_ms"] is None else f"{row['limit_ms']:.0f}",
        ]
        for row in rows
    ]
    head = f"ms for {rows[0]['batch']} of {rows[0]['image_px']}x{rows[0]['image_px']}"
    return report.markdown(["operation", head, "16 to 84 %", "at most"], lines)
