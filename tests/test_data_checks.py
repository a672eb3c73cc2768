"""Planted faults of data and augmentation, and the check that finds each."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.augment.normalise import normalise
from jaxcnn.augment.pipeline import make_augment
from jaxcnn.config import (
    AffineConfig,
    AugmentConfig,
    CutmixConfig,
    CutoutConfig,
    ErasingConfig,
    PadCropConfig,
    RandAugmentConfig,
    ResizedCropConfig,
    TrivialAugmentConfig,
)
from jaxcnn.data.scan import scan
from jaxcnn.data.source import ArrayRecords, Source
from jaxcnn.tuning import data_checks as checks
from jaxcnn.tuning.augment_checks import augmentation_keeps_content
from jaxcnn.tuning.findings import Finding
from jaxcnn.tuning.subject import Examples, Subject
from tests.tuning_subjects import SHAPE, Chain, augmented_by, healthy, subject_with

ALL = [checks.labels_in_range, checks.channel_statistics, checks.split_overlap, augmentation_keeps_content]
OFF = AugmentConfig(PadCropConfig(0.0), AffineConfig(0.0))


@pytest.mark.parametrize("check", ALL, ids=lambda check: check.__name__)
def test_a_healthy_subject_passes(check: Callable[[Subject], Finding]) -> None:
    found = check(healthy())
    assert (found.verdict, found.advice) == ("pass", ""), found


def relabelled(labels: np.ndarray) -> Subject:
    return dataclasses.replace(healthy(), train=Examples(healthy().train.images, labels))


def test_labels_that_count_from_one_are_found() -> None:
    found = checks.labels_in_range(relabelled(healthy().train.labels + 1))
    assert found.verdict == "fail"
    assert found.numbers["most"] == 10


def test_labels_that_are_no_numbers_are_found() -> None:
    assert checks.labels_in_range(relabelled(healthy().train.labels.astype(np.float32))).verdict == "fail"


def test_a_last_layer_without_enough_classes_is_found() -> None:
    found = checks.labels_in_range(subject_with(Chain(num_classes=8)))
    assert found.verdict == "fail"
    assert "8 outputs" in found.advice


def test_a_last_layer_with_too_many_classes_is_told() -> None:
    assert checks.labels_in_range(subject_with(Chain(num_classes=1000))).verdict == "warn"


def test_a_class_without_training_examples_is_found_and_named() -> None:
    kept = healthy().train.take(healthy().train.labels != 7)
    found = checks.labels_in_range(dataclasses.replace(healthy(), train=kept))
    assert found.verdict == "fail"
    assert "'7'" in found.advice


def unnormalised(mean: tuple[float, ...], std: tuple[float, ...], pretrained: bool = False) -> Finding:
    return checks.channel_statistics(
        dataclasses.replace(healthy(), mean=mean, std=std, augment=make_augment(OFF, mean, std), pretrained=pretrained)
    )


@pytest.mark.parametrize(
    ("mean", "std"), [((0.0,), (1.0,)), ((0.0,), (1 / 255,)), ((0.485,), (0.229,))], ids=["0..1", "0..255", "ImageNet"]
)
def test_a_missing_or_wrong_normalisation_is_found(mean: tuple[float], std: tuple[float]) -> None:
    assert unnormalised(mean, std).verdict == "fail"


@pytest.mark.parametrize(("mean", "std"), [(0.5, 0.5), (0.5, 0.25), (0.0, 0.6)])
def test_a_normalisation_that_trains_is_worth_a_look_alone(mean: float, std: float) -> None:
    """Pixels with mean 0.1307 and deviation 0.3081, those of MNIST; the last two end where it fails, by a mean of -1.5
    and not by a deviation of 0.51."""
    draw = np.random.default_rng(0).random((256, *SHAPE)) < 0.1307 / 0.8564  # of two levels with these moments
    images = np.where(draw, round(255 * 0.8564), 0).astype(np.uint8)
    subject = dataclasses.replace(healthy(), train=Examples(images, np.arange(256) % 10), mean=(mean,), std=(std,))
    found = checks.channel_statistics(
        dataclasses.replace(subject, augment=make_augment(OFF, subject.mean, subject.std))
    )
    assert found.numbers["mean"] == pytest.approx([(0.1307 - mean) / std], abs=0.05)
    assert found.numbers["std"] == pytest.approx([0.3081 / std], abs=0.05)
    assert found.verdict == ("fail" if std == 0.25 else "warn")


def test_statistics_of_pretrained_weights_are_judged_by_their_units() -> None:
    assert unnormalised((0.485,), (0.229,), pretrained=True).verdict == "pass"
    assert unnormalised((0.45,), (1 / 255,), pretrained=True).verdict == "pass"
    assert unnormalised((123.7,), (58.4,), pretrained=True).verdict == "fail"


def test_augmented_images_that_are_not_normalised_are_found() -> None:
    subject = dataclasses.replace(healthy(), augment=lambda key, images: (images.astype(jnp.float32), None))
    assert checks.channel_statistics(subject).verdict == "fail"


@pytest.mark.parametrize(("shared", "verdict"), [(0, "pass"), (1, "warn"), (2, "warn"), (3, "fail"), (100, "fail")])
def test_images_in_both_splits_are_counted(shared: int, verdict: str) -> None:
    images = healthy().validation.images.copy()
    images[:shared] = healthy().train.images[:shared]
    found = checks.split_overlap(
        dataclasses.replace(healthy(), validation=Examples(images, healthy().validation.labels))
    )
    assert (found.verdict, found.numbers["both"]) == (verdict, shared)


@pytest.mark.parametrize(
    ("whole", "shared", "verdict"),
    [
        (10, 0, "pass"),
        (10, 1, "warn"),
        (10, 2, "warn"),
        (10, 3, "fail"),
        (12, 0, "skip"),
        (12, 1, "warn"),
        (12, 3, "fail"),
    ],
)
def test_the_overlap_of_a_sample_is_scaled_to_the_whole_split_if_it_is_no_chance(
    whole: int, shared: int, verdict: str
) -> None:
    images = healthy().validation.images.copy()
    images[:shared] = healthy().train.images[:shared]
    subject = dataclasses.replace(
        healthy(), validation=Examples(images, healthy().validation.labels), num_train=whole * len(healthy().train)
    )
    found = checks.split_overlap(subject)
    assert found.numbers["share"] == pytest.approx(whole * shared / 200)
    assert found.verdict == verdict
    assert bool(found.advice) == bool(shared)


def test_whole_splits_are_judged_by_their_scans() -> None:
    def source(name: str, examples: Examples) -> Source:
        return Source(name, tuple("0123456789"), SHAPE, ArrayRecords(examples.images, examples.labels))

    train, validation = healthy().train, healthy().validation
    apart = {"train": source("train", train), "validation": source("validation", validation)}
    same = {"train": source("train", train), "validation": source("validation", train.take(slice(0, 100)))}
    fine, found = (
        checks.suspicious_data(splits, {name: scan(each, SHAPE, progress=False) for name, each in splits.items()})
        for splits in (apart, same)
    )
    assert fine.verdict == "pass", fine
    assert found.verdict == "fail"
    assert found.numbers["overlap"] == {"validation": 1.0}


@pytest.mark.parametrize(
    "config",
    [
        dataclasses.replace(OFF, resized_crop=ResizedCropConfig(1.0, area=(0.001, 0.005))),
        dataclasses.replace(OFF, cutout=CutoutConfig(1.0, 14)),
        dataclasses.replace(OFF, cutout=CutoutConfig(1.0, 28)),
        dataclasses.replace(OFF, pad_crop=PadCropConfig(1.0, 14)),
        dataclasses.replace(OFF, erasing=ErasingConfig(1.0, area=(0.95, 1.0), aspect=(1.0, 1.0))),
    ],
    ids=["resized_crop", "cutout", "cutout of all", "pad_crop", "erasing"],
)
def test_augmentation_that_takes_the_image_away_is_found(config: AugmentConfig) -> None:
    found = augmentation_keeps_content(augmented_by(config))
    assert found.verdict == "fail", found


def test_a_blank_augmentation_is_found() -> None:
    blank = dataclasses.replace(healthy(), augment=lambda key, images: (jnp.zeros(images.shape), None))
    assert augmentation_keeps_content(blank).verdict == "fail"


@pytest.mark.parametrize(
    "config",
    [
        AugmentConfig(),
        dataclasses.replace(OFF, resized_crop=ResizedCropConfig(1.0)),
        dataclasses.replace(OFF, randaugment=RandAugmentConfig(1.0)),
        dataclasses.replace(OFF, trivialaugment=TrivialAugmentConfig(1.0)),
        dataclasses.replace(OFF, cutout=CutoutConfig(1.0, 7)),
        dataclasses.replace(OFF, cutmix=CutmixConfig(1.0)),
        OFF,
    ],
    ids=["default", "resized_crop", "randaugment", "trivialaugment", "cutout", "cutmix", "off"],
)
def test_usual_augmentation_passes(config: AugmentConfig) -> None:
    found = augmentation_keeps_content(augmented_by(config))
    assert found.verdict == "pass", found


def test_no_augmentation_keeps_everything() -> None:
    subject = healthy()
    plain = dataclasses.replace(
        subject, augment=lambda key, images: (normalise(images, subject.mean, subject.std), jax.random.uniform(key))
    )
    assert augmentation_keeps_content(plain).numbers == {"lost": 0.0, "area": 1.0, "edges": pytest.approx(1.0)}
