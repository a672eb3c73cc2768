"""Checks of the data of a run: labels, normalisation, splits."""

import hashlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxcnn.data.scan import Scan
from jaxcnn.data.source import Source
from jaxcnn.data.suspicions import suspicions
from jaxcnn.tuning.findings import Finding, Verdict
from jaxcnn.tuning.passes import num_logits, some
from jaxcnn.tuning.subject import Examples, Subject

OVERLAP = 0.01
"""Share of the validation images that may be training images too; CIFAR-10 has some equal images of its own."""
LEAST_BOTH = 3
"""Images from which a share counts: one pair of a small sample, scaled up, may be one by chance."""
MOST_SCALED = 10.0
"""Factor from a sample to the whole split up to which finding nothing says something."""


def labels_in_range(subject: Subject) -> Finding:
    """Labels are whole numbers from 0 to K - 1, K being the outputs of the network, and each class has examples.

    Fails for labels that the network has no output for, fewer outputs than classes, or a class that no training example
    has; warns of a class without validation examples, and of outputs without a class.
    """
    outputs, classes = num_logits(subject), len(subject.class_names)
    verdict, advice = _labels(subject, outputs, classes)
    splits = {"train": subject.train, "validation": subject.validation}
    least, most = (int(f(f(split.labels) for split in splits.values())) for f in (min, max))
    figure = f"labels {least} to {most}, {classes} classes, {outputs} outputs"
    numbers = {"least": least, "most": most, "classes": classes, "outputs": outputs}
    expected = f"labels 0 to {outputs - 1}, all present"
    return Finding("labels in range", verdict, figure, expected, advice, numbers)


def _labels(subject: Subject, outputs: int, classes: int) -> tuple[Verdict, str]:
    for name, split in (("train", subject.train), ("validation", subject.validation)):
        if not np.issubdtype(split.labels.dtype, np.integer):
            return "fail", f"{name}: labels are {split.labels.dtype}: give class numbers, not one-hot rows or names"
        wrong = np.flatnonzero((split.labels < 0) | (split.labels >= outputs))
        if wrong.size:
            return "fail", (
                f"{name}: example {wrong[0]} has label {split.labels[wrong[0]]} for {outputs} outputs: "
                "leave model.num_classes out, or count labels from 0"
            )
    if outputs < classes:
        return "fail", f"the network has {outputs} outputs for {classes} classes: leave model.num_classes out"
    if absent := _absent(subject, subject.train):
        return "fail", f"no training example of {absent}: look at data.train_split and data.classes"
    if absent := _absent(subject, subject.validation):
        return "warn", f"no validation example of {absent}: choose another data.validation_split"
    if outputs > classes:
        return "warn", f"{outputs - classes} outputs have no class: leave model.num_classes out"
    return "pass", ""


def _absent(subject: Subject, split: Examples) -> str:
    """The classes without examples, in words; "" if there are none."""
    counts = np.bincount(split.labels, minlength=len(subject.class_names))
    names = [repr(name) for name, count in zip(subject.class_names, counts, strict=False) if not count]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more classes" if len(names) > 3 else "")


def channel_statistics(subject: Subject) -> Finding:
    """Normalised training images have mean 0 and deviation 1 a channel, and augmented ones are normalised as they are.

    LeCun et al. 1998, Efficient BackProp, section 4.3. Warn from a mean of 0.2 or a deviation outside 0.8 to 1.25, fail
    from 1 or outside 0.4 to 2.5: a mean and std of 0.5, which many use for everything, leave MNIST at -0.74 and 0.62,
    and it trains; those of CIFAR-10 leave it at -1.4, and pixels of 0..1 have a deviation of 0.31. Augmentation moves
    these figures, so there only what cannot be its doing fails: a mean more than 2 away, or a deviation 3 times that
    of the images as they are, or a third.

    What pretrained weights were trained with counts more than the new images: then only the units are looked at (means
    in 0..1, deviations of at most 1; VGG's weights from Caffe have 1/255, which leaves pixels 60 times as wide as
    usual) and that the images lie around the mean, within 2 of their own deviations, else a warning. Wrong statistics
    of the right order can not be told from right ones here: they have to come with the weights.
    """
    batch = subject.train.take(np.random.default_rng(subject.seed).permutation(len(subject.train))[:512])
    normalised = np.asarray(subject.normalise(batch.images), np.float64)
    mean, std = normalised.mean((0, 1, 2)), normalised.std((0, 1, 2))
    few = some(subject, 64)
    drawn = np.asarray(jax.jit(subject.augment)(jax.random.key(subject.seed), few.images)[0], np.float64)
    shift = np.max(np.abs(drawn.mean((0, 1, 2)) - mean) / np.maximum(std, 1e-6))
    ratio = drawn.std((0, 1, 2)) / np.maximum(std, 1e-6)
    if subject.pretrained:
        verdict, advice = _with_weights(subject, np.max(np.abs(mean) / np.maximum(std, 1e-6)))
        expected = "mean in 0..1, deviation up to 1 (those of the weights), images within 2 deviations"
    else:
        verdict, advice = _of_data(float(np.max(np.abs(mean))), float(std.min()), float(std.max()))
        expected = "mean 0 within 0.2, deviation 1 within 0.8 to 1.25"
    if verdict != "fail" and (shift > 2 or ratio.max() > 3 or ratio.min() < 1 / 3):
        verdict, advice = (
            "fail",
            ("augmented images are not normalised as those for evaluation are: normalise both in the same way, once"),
        )
    figure = f"mean {_told(mean)}, deviation {_told(std)} a channel; augmented {_told(drawn.std((0, 1, 2)))}"
    numbers = {"mean": mean.tolist(), "std": std.tolist(), "augmented_mean": drawn.mean((0, 1, 2)).tolist()}
    numbers["augmented_std"] = drawn.std((0, 1, 2)).tolist()
    return Finding("channel statistics", verdict, figure, expected, advice, numbers)


def _told(values: np.ndarray) -> str:
    return "/".join(f"{value:.2f}" for value in values)


def _of_data(mean: float, least: float, most: float) -> tuple[Verdict, str]:
    advice = "normalise with the mean and std of the training images, in units of 0..1, after dividing by 255"
    if mean > 1.0 or least < 0.4 or most > 2.5:
        return "fail", advice
    return ("warn", advice) if mean > 0.2 or least < 0.8 or most > 1.25 else ("pass", "")


def _with_weights(subject: Subject, offset: float) -> tuple[Verdict, str]:
    mean, std = np.array(subject.mean), np.array(subject.std)
    if mean.min() < 0 or mean.max() > 1 or std.min() <= 0 or std.max() > 1:
        return "fail", f"mean {subject.mean} and std {subject.std} are to be in units of 0..1: divide them by 255"
    if offset > 2:
        return "warn", "the images lie far from the mean of the weights: see whether mean, std and BGR order are theirs"
    return "pass", ""


def split_overlap(subject: Subject) -> Finding:
    """No image of the validation split is in the training split too, by its pixels as the network gets them.

    What is in both is remembered, not recognised (Barz & Denzler 2020 found 3.3 % near duplicates of CIFAR-10's test
    images). Fail above 1 % of the validation images, if that is 3 images or more; warn of any. Of a training split of
    which only a sample is held the share is scaled up to the whole; one that has less than a tenth says nothing where
    none are found in it: what reads whole splits does (`suspicious_data`).
    """
    train, validation = (_digests(split) for split in (subject.train, subject.validation))
    known = set(train)
    both = sum(digest in known for digest in validation)
    whole = max((subject.num_train or len(train)) / len(train), 1.0)
    share = min(both / len(validation) * whole, 1.0)
    verdict: Any = "pass" if whole <= MOST_SCALED else "skip"
    if both:
        verdict = "fail" if share > OVERLAP and both >= LEAST_BOTH else "warn"
    figure = f"{both:,} of {len(validation):,} validation images ({100 * share:.2g} %)"
    if whole > 1:
        figure = f"{figure[:-1]} of all, by {len(train):,} of {subject.num_train:,} training images)"
    if verdict == "skip":
        figure += ": too small a sample to say"
    advice = (
        ""
        if not both
        else ("take the images of data.validation_split out of data.train_split; `jaxcnn data` names the equal ones")
    )
    numbers = {"both": both, "share": share, "validation": len(validation), "train": len(train)}
    expected = f"none; fails above 1 %, from {LEAST_BOTH} images on"
    return Finding("split overlap", verdict, figure, expected, advice, numbers)


def _digests(split: Examples) -> list[bytes]:
    return [hashlib.blake2b(np.ascontiguousarray(image).tobytes(), digest_size=16).digest() for image in split.images]


def suspicious_data(splits: Mapping[str, Source], scans: Mapping[str, Scan]) -> Finding:
    """What `jaxcnn data` tells of whole splits: unreadable, odd and equal images, classes that are missing or rare.

    Fails where more than 1 % of the images of another split are in the training split, warns of all else.

    Args:
      splits: the sources by name, "train" among them.
      scans: what `data.scan.scan` found in each.
    """
    lines = suspicions(splits, scans)
    known = {digest for digest in scans["train"].digests() if digest}
    shares = {
        name: float(np.mean([digest in known for digest in found.digests()]))
        for name, found in scans.items()
        if name != "train"
    }
    worst = max(shares.values(), default=0.0)
    verdict: Any = "fail" if worst > OVERLAP else "warn" if lines else "pass"
    told = ", ".join(f"{100 * share:.2g} % of {name} in train" for name, share in shares.items())
    advice = f"look at: {lines[0]}" if lines else ""
    numbers = {"overlap": shares, "lines": lines}
    return Finding("whole splits", verdict, f"{len(lines)} remarks; {told}", "none; overlap up to 1 %", advice, numbers)
