"""Kept features: the logits, the steps and the batches are those of the network on images."""

import dataclasses
import functools
import logging
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn import mesh as meshes
from jaxcnn.augment.pipeline import make_augment
from jaxcnn.config import (
    AugmentConfig,
    DataConfig,
    EvaluationConfig,
    FeaturesConfig,
    ModelConfig,
    OptimConfig,
    ResizedCropConfig,
    TrainConfig,
)
from jaxcnn.data.feed import MappedFeed, ResidentFeed
from jaxcnn.data.order import TrainingOrder, ViewOrder
from jaxcnn.evaluation import evaluate
from jaxcnn.feature_cache.extraction import Extraction
from jaxcnn.inputs import batches_of, feed_of
from jaxcnn.models.classifier import output_at
from jaxcnn.paths import GlobRule
from jaxcnn.runtime import compiler_options
from jaxcnn.training.optim import make_optimizer
from jaxcnn.training.state import TrainState, create_state
from jaxcnn.training.step import StepOptions, make_chunk, make_step, zero_sums
from tests.feature_runs import MOVING, STILL, Taken, config_of, splits, take_apart
from tests.test_mesh import on_devices

VIEWS = {"augment": MOVING, "features": FeaturesConfig("auto", 3)}
BFLOAT16 = ModelConfig(name="resnet8", width=4, dtype="bfloat16")
VGG = ModelConfig(name="vgg11", width=4, neck="dense", dropout=0.0)


@functools.partial(jax.jit, static_argnums=0, compiler_options=compiler_options())
def logits_of(model: Any, variables: Any, x: jax.Array) -> jax.Array:
    return model.apply(variables, x, train=False)


@pytest.mark.parametrize("point", ["stem", "stage2", "pooled"])
@pytest.mark.parametrize("model", [ModelConfig(name="resnet8", width=4), BFLOAT16], ids=lambda model: model.dtype)
def test_logits_from_features_are_those_of_the_whole_network(tmp_path, point, model) -> None:
    taken = take_apart(config_of(tmp_path, model=model))
    cached = taken.cached(point)
    assert cached.feed.image_dtype == (jnp.float32 if point == "pooled" else jnp.dtype(model.dtype))
    whole = logits_of(taken.network.model, taken.variables, taken.network.normalise(taken.inputs.train.images))
    assert isinstance(cached.feed, ResidentFeed)
    found = logits_of(cached.network.model, taken.variables, cached.feed.source.images)
    # Two programs, cut at the point, may round otherwise than one: to 1e-6 of the largest logit, not bit for bit.
    np.testing.assert_allclose(found, whole, rtol=0, atol=1e-6 * float(jnp.abs(whole).max()))


@pytest.mark.parametrize("point", ["stage3", "stage5", "pooled"])
def test_logits_of_a_vgg_with_a_neck_from_features_are_those_of_the_whole(tmp_path, point) -> None:
    taken = take_apart(config_of(tmp_path, model=VGG, freeze=("backbone/**", "neck/**")), splits(32))
    cached = taken.cached(point)
    whole = logits_of(taken.network.model, taken.variables, taken.network.normalise(taken.inputs.train.images))
    found = logits_of(cached.network.model, taken.variables, cached.feed.source.images)
    np.testing.assert_allclose(found, whole, rtol=0, atol=1e-6 * float(jnp.abs(whole).max()))


@pytest.mark.parametrize("limit_gib", [4.0, 1e-9])
def test_figures_from_features_are_those_of_the_whole_network(tmp_path, limit_gib) -> None:
    taken = take_apart(config_of(tmp_path, data=DataConfig(cache_dir=str(tmp_path), loader="resident")))
    small = dataclasses.replace(taken.config, data=DataConfig(cache_dir=str(tmp_path), resident_limit_gib=limit_gib))
    cached, mesh = dataclasses.replace(taken, config=small).cached("stage2"), meshes.make_mesh(1)
    whole = evaluate(
        taken.network, taken.variables, batches_of(taken.inputs.others["validation"], taken.network, mesh), 8, mesh
    )
    found = evaluate(cached.network, taken.variables, cached.splits["validation"], 8, mesh)
    assert isinstance(cached.feed, ResidentFeed if limit_gib == 4 else MappedFeed)
    assert found["examples"] == 13
    np.testing.assert_array_equal(found["confusion"], whole["confusion"])
    assert found["loss"] == pytest.approx(whole["loss"], rel=1e-6)


def train(taken: Taken, feed: Any, model: Any, augment: Any, steps: int) -> TrainState:
    """The state after so many steps, from the variables of `taken`."""
    config = taken.config
    optimizer = make_optimizer(config.optim, lambda step: 0.05)
    step = make_step(model, optimizer, augment, StepOptions(0, 0.1, config.optim.accumulation, config.optim.ema_decay))
    state = create_state(jax.tree.map(jnp.copy, taken.variables), GlobRule(config.freeze), optimizer, True)
    shape = jax.ShapeDtypeStruct((config.train.batch_size, *feed.image_shape), feed.image_dtype)
    sums = zero_sums(step, state, shape, jax.ShapeDtypeStruct(shape.shape[:1], jnp.int32))
    chunk = jax.jit(make_chunk(step, feed.take), compiler_options=compiler_options(training=True))
    for first in range(0, steps, feed.rows):
        count = min(feed.rows, steps - first)
        state, sums, _ = chunk(state, sums, feed.source, feed.inputs(first, count), np.int32(count))
    assert int(sums["examples"]) == steps * config.train.batch_size
    return state


@pytest.mark.parametrize(
    ("point", "freeze"), [("pooled", ("backbone/**",)), ("stage2", ("backbone/**", "!backbone/stage3/**"))]
)
def test_training_on_features_is_training_on_images(tmp_path, point, freeze) -> None:
    optim = OptimConfig(accumulation=2, clip_norm=1.0)
    taken = take_apart(config_of(tmp_path, freeze=freeze, optim=optim))
    cached, statistics = taken.cached(point), taken.network.preprocessing
    augment = make_augment(taken.config.augment, statistics.mean, statistics.std, statistics.image_shape)
    images = feed_of(taken.config, taken.inputs, taken.network, meshes.make_mesh(1), 20)
    whole = train(taken, images, taken.network.model, augment, 12)  # two epochs and a part
    found = train(taken, cached.feed, cached.network.model, lambda key, x: (x, None), 12)
    assert jax.tree.structure(found) == jax.tree.structure(whole)
    for name in ("params", "batch_stats", "ema"):
        for (path, want), have in zip(
            jax.tree_util.tree_leaves_with_path(getattr(whole, name)),
            jax.tree.leaves(getattr(found, name)),
            strict=True,
        ):
            np.testing.assert_allclose(have, want, rtol=1e-4, atol=1e-5, err_msg=f"{name} {path}")
    moved = jax.tree.map(
        lambda a, b: float(jnp.abs(a - b).max()), found.params["head"], taken.variables["params"]["head"]
    )
    assert min(jax.tree.leaves(moved)) > 1e-4


def test_the_frozen_leaves_and_statistics_are_not_touched(tmp_path) -> None:
    taken = take_apart(config_of(tmp_path))
    cached = taken.cached()
    state = train(taken, cached.feed, cached.network.model, lambda key, x: (x, None), 5)
    jax.tree.map(
        np.testing.assert_array_equal, state.frozen["params"], {"backbone": taken.variables["params"]["backbone"]}
    )
    jax.tree.map(np.testing.assert_array_equal, state.frozen["batch_stats"], taken.variables["batch_stats"])
    assert not jax.tree.leaves(state.batch_stats)


def test_views_are_draws_of_the_augmentation(tmp_path) -> None:
    taken = take_apart(config_of(tmp_path, **VIEWS))
    views = taken.extraction("stem").run()["train"]
    assert len(views) == 3
    images, statistics, model = taken.inputs.train.images, taken.network.preprocessing, taken.network.model
    shifted = [  # every place that padding by 2 and cropping can give
        np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)))[:, top : top + 8, left : left + 8]
        for top in range(5)
        for left in range(5)
    ]
    stem = jax.jit(lambda x: output_at(model, taken.variables, x, "stem"))
    possible = np.stack([stem(taken.network.normalise(part)) for part in shifted])  # [25, N, ...]
    assert statistics.image_shape == (8, 8, 3)
    for view in views:
        distance = np.abs(possible - view).max(axis=(2, 3, 4)).min(axis=0)  # [N], to the nearest of the places
        assert distance.max() < 1e-4 * np.abs(view).max()
    for first, second in ((0, 1), (0, 2), (1, 2)):
        same = np.all(views[first] == views[second], axis=(1, 2, 3))
        assert same.mean() < 0.5  # 1 in 25 is expected


def crops_config(tmp_path, loader: str) -> TrainConfig:
    crops = AugmentConfig(STILL.pad_crop, STILL.affine, resized_crop=ResizedCropConfig(prob=1.0, area=(0.3, 0.6)))
    data = DataConfig(cache_dir=str(tmp_path), loader=loader)
    return config_of(tmp_path, augment=crops, features=FeaturesConfig("auto", 2), data=data)


@pytest.mark.parametrize("loader", ["resident", "cached", "streamed"])
def test_views_of_crops_by_each_loader_differ_and_come_again(tmp_path, loader) -> None:
    config = crops_config(tmp_path, loader)
    first, second = take_apart(config).extraction().run()["train"]
    assert np.mean(np.all(first == second, axis=1)) < 0.2  # images of 8x8 have few crops, so some are drawn twice
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, cache_dir=str(tmp_path / "other")))
    again = take_apart(config).extraction().run()["train"]
    np.testing.assert_array_equal(first, again[0])
    np.testing.assert_array_equal(second, again[1])


def test_crops_by_the_host_do_not_depend_on_the_batch_size(tmp_path) -> None:
    config = crops_config(tmp_path, "streamed")
    found = take_apart(config).extraction("stem").run()["train"]
    config = dataclasses.replace(config, evaluation=EvaluationConfig(batch_size=5))
    for one, other in zip(found, take_apart(config).extraction("stem").run()["train"], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_without_augmentation_all_loaders_give_the_same_features(tmp_path) -> None:
    found = []
    for loader in ("resident", "cached", "streamed"):
        data = DataConfig(cache_dir=str(tmp_path / loader), loader=loader, crop_share=0.75)
        config = config_of(tmp_path, data=data)
        found.append(take_apart(config).extraction().run())
    for other in found[1:]:
        np.testing.assert_array_equal(found[0]["train"][0], other["train"][0])
        np.testing.assert_array_equal(found[0]["validation"][0], other["validation"][0])


@pytest.mark.parametrize("labels", [None, (np.arange(30) % 7 == 0).astype(np.int32)], ids=["shuffled", "balanced"])
@pytest.mark.parametrize("batch", [6, 7])
def test_each_epoch_sees_each_image_in_one_view_and_so_many_epochs_see_all_views(labels, batch) -> None:
    plain = TrainingOrder(30, batch, 5, labels)
    order = ViewOrder(plain, 4)
    steps = 8 * 30 // batch
    places = order(0, steps).ravel()
    np.testing.assert_array_equal(places % 30, plain(0, steps).ravel())
    for position, place in enumerate(places):
        assert place // 30 == (position // 30 + place % 30) % 4
    if labels is None and batch == 6:
        for first in (0, 3):  # any four epochs
            assert len(set(places[first * 30 : (first + 4) * 30].tolist())) == 120
    parts = [order(first, count) for first, count in ((0, 3), (3, 1), (4, steps - 4))]
    np.testing.assert_array_equal(np.concatenate(parts).ravel(), places)


def test_the_shards_of_a_batch_of_views_are_the_batch() -> None:
    whole = ViewOrder(TrainingOrder(30, 8, 5), 4)(2, 6)
    parts = [ViewOrder(TrainingOrder(30, 8, 5, shard=(index, 2)), 4)(2, 6) for index in range(2)]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)


def batches_from(feed: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    found = []
    for first, count in ((0, 3), (3, 1), (4, 2), (1, 2)):  # the last goes back, as a resumed run does
        inputs = feed.inputs(first, count)
        for row in range(count):
            batch = feed.take(feed.source, jax.tree.map(lambda leaf, row=row: leaf[row], inputs))
            found.append((np.asarray(batch.images), np.asarray(batch.labels)))
    feed.close()
    return found


@pytest.mark.parametrize("model", [ModelConfig(name="resnet8", width=4), BFLOAT16], ids=lambda model: model.dtype)
def test_features_on_the_device_and_on_disk_come_in_the_same_batches(tmp_path, model) -> None:
    taken = take_apart(config_of(tmp_path, model=model, **VIEWS))
    small = dataclasses.replace(taken.config.data, resident_limit_gib=1e-9)
    mapped = dataclasses.replace(taken, config=dataclasses.replace(taken.config, data=small)).cached("stage1").feed
    resident = taken.cached("stage1").feed
    assert isinstance(resident, ResidentFeed)
    assert isinstance(mapped, MappedFeed)
    assert (mapped.image_shape, mapped.image_dtype) == (resident.image_shape, resident.image_dtype)
    for (features, labels), (others, other_labels) in zip(batches_from(resident), batches_from(mapped), strict=True):
        assert features.shape == (6, 8, 8, 4)
        np.testing.assert_array_equal(features.view(np.uint8), others.view(np.uint8))
        np.testing.assert_array_equal(labels, other_labels)


def test_a_batch_has_the_features_and_the_label_of_its_view(tmp_path) -> None:
    taken = take_apart(config_of(tmp_path, **VIEWS))
    views, feed = taken.extraction().run()["train"], taken.cached().feed
    order = TrainingOrder(30, 6, 0)
    for step, (features, labels) in zip((0, 1, 2, 3, 4, 5), batches_from(feed), strict=False):
        for at, example in enumerate(order(step, 1)[0]):
            np.testing.assert_array_equal(features[at], views[(step // 5 + example) % 3][example])
            assert labels[at] == example % 3


# A split in views through the frozen part, two steps and an evaluation, on so many devices: prints their sums.
DEVICES = """
import sys, tempfile
from pathlib import Path
import jax, numpy as np
from jaxcnn import mesh as meshes
from jaxcnn.evaluation import evaluate
from tests.test_features import VIEWS, config_of, take_apart
taken = take_apart(config_of(Path(tempfile.mkdtemp()), **VIEWS))
count = int(sys.argv[1])
cached, mesh = taken.cached("stage2", count), meshes.make_mesh(count)
batch = jax.tree.map(lambda leaf: leaf[1], cached.feed.inputs(0, 2))
images = jax.jit(cached.feed.take, out_shardings=meshes.over_data(mesh))(cached.feed.source, batch).images
assert len(images.sharding.device_set) == count
loss = evaluate(cached.network, meshes.replicate(mesh, taken.variables), cached.splits["validation"], 8, mesh)["loss"]
print(float(np.sum(images)), loss)
"""


def test_features_are_divided_over_devices_as_images_are() -> None:
    one, two = (np.array(on_devices(2, DEVICES, count).split(), float) for count in (1, 2))
    np.testing.assert_allclose(one, two, rtol=1e-5)


def test_the_log_says_what_is_computed_and_what_is_ready(tmp_path, caplog) -> None:
    extraction: Extraction = take_apart(config_of(tmp_path)).extraction()
    with caplog.at_level(logging.INFO, "jaxcnn"):
        extraction.run()
        extraction.run()
    assert "train, validation to compute" in caplog.text
    assert "features: train: 30 images in" in caplog.text
    assert "all found ready" in caplog.text
