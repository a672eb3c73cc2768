"""A subject of a config is what a run of it trains."""

import dataclasses

import jax
import numpy as np
import pytest

from jaxcnn.config import AugmentConfig, FeaturesConfig, PadCropConfig, ResizedCropConfig, TrainConfig
from jaxcnn.paths import flatten
from jaxcnn.training.losses import Targets
from jaxcnn.tuning.building import sample, subject_of
from tests.conftest import with_fields


@pytest.fixture(scope="module")
def built(digits_dir: str) -> tuple:
    return subject_of(tiny(digits_dir))


def tiny(folder: str) -> TrainConfig:
    return with_fields(
        TrainConfig(),
        data__data_dir=folder,
        data__train_split="train[:200]",
        data__validation_split="validation[:70]",
        data__test_split="test[:50]",
        model__width=4,
        train__batch_size=32,
        evaluation__batch_size=32,
    )


def test_a_subject_starts_as_the_run_does(built: tuple) -> None:
    job, subject = built
    expected = flatten(job.initial_state().current)
    found = flatten(subject.variables)
    assert expected.keys() == found.keys()
    assert all(np.array_equal(expected[path], found[path]) for path in found)


def test_a_subject_has_the_figures_of_its_config(built: tuple) -> None:
    job, subject = built
    assert (len(subject.train), len(subject.validation), subject.num_train) == (200, 70, 200)
    assert (subject.mean, subject.std) == (job.network.preprocessing.mean, job.network.preprocessing.std)
    assert (subject.peak_lr, subject.batch_size, subject.label_smoothing) == (0.3, 32, 0.1)
    assert not subject.pretrained
    assert not subject.frozen.patterns
    np.testing.assert_allclose(np.mean(subject.normalise(subject.train.images)), 0, atol=1e-5)


def test_the_loss_is_that_of_a_step(built: tuple) -> None:
    logits, labels = np.random.default_rng(0).normal(size=(6, 10)).astype(np.float32), np.arange(6)
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = -0.9 * np.log(shares[np.arange(6), labels]) - 0.1 * np.log(shares).mean(1)
    np.testing.assert_allclose(built[1].loss(logits, Targets(labels)), expected, rtol=1e-5)


def test_the_optimizer_takes_another_network_too(digits_dir: str) -> None:
    """What is planted may have other leaves than those that `optim.layer_decay` has factors of."""
    config = with_fields(tiny(digits_dir), optim__layer_decay=0.5, optim__weight_decay=0.0)
    optimizer = subject_of(config)[1].optimizer(lambda step: 0.1)
    params = {"head": {"kernel": np.ones(2)}, "backbone": {"stem": {"conv": {"kernel": np.ones(2)}}, "own": np.ones(2)}}
    updates, _ = optimizer.update(params, optimizer.init(params), params)
    steps = {path: float(abs(leaf).max()) for path, leaf in flatten(updates).items()}
    assert steps["backbone/own"] == steps["head/kernel"] > steps["backbone/stem/conv/kernel"]


def test_a_larger_split_is_sampled_with_each_class(digits_dir: str) -> None:
    _, subject = subject_of(tiny(digits_dir), max_examples=40)
    assert len(subject.train) == len(subject.validation) == 40
    assert subject.num_train == 200
    assert set(subject.train.labels.tolist()) == set(range(10))


def test_a_sample_has_one_of_each_label_and_no_place_twice() -> None:
    labels = np.array([0] * 997 + [1, 2, 3])
    for seed in range(5):
        places = sample(labels, 20, seed)
        assert len(set(places.tolist())) == 20
        assert set(labels[places].tolist()) == {0, 1, 2, 3}


def test_where_features_are_kept_the_subject_is_the_whole_network_on_images(digits_dir: str) -> None:
    config = dataclasses.replace(
        tiny(digits_dir),
        freeze=("backbone/**",),
        features=FeaturesConfig(cache="auto", views=2),
        augment=AugmentConfig(PadCropConfig(0.0), resized_crop=ResizedCropConfig(1.0)),
    )
    job, subject = subject_of(config)
    assert job.start is None
    assert subject.frozen.matches("backbone/stem/conv/kernel")
    images, _ = subject.augment(jax.random.key(0), subject.train.images[:3])
    assert images.shape == (3, 28, 28, 1)
    assert subject.model.apply(subject.variables, images).shape == (3, 10)


def test_streamed_data_give_the_same_images(digits_dir: str, built: tuple) -> None:
    config = with_fields(tiny(digits_dir), data__loader="streamed")
    _, subject = subject_of(config)
    np.testing.assert_array_equal(subject.train.images, built[1].train.images)
    np.testing.assert_array_equal(subject.train.labels, built[1].train.labels)


def test_of_a_narrow_compute_type_there_is_a_twin_in_float32(digits_dir: str, built: tuple) -> None:
    assert built[1].reference_model is None
    config = with_fields(tiny(digits_dir), model__dtype="bfloat16")
    subject = subject_of(config)[1]
    x = subject.normalise(subject.train.images[:2])
    twin = subject.reference_model
    assert twin is not None
    narrow, wide = (model.apply(subject.variables, x) for model in (subject.model, twin))
    assert 0 < float(abs(narrow - wide).max()) < 0.1
