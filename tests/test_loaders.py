"""Runs by each loader: the same images, every example once, resumed bit by bit, and what is told when it fails."""

import json
import logging
import time
from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest

from jaxcnn.build import build_job
from jaxcnn.config import AugmentConfig
from jaxcnn.data.feed import HostBatches, HostFeed, ResidentFeed
from jaxcnn.data.host_crop import CentreCrop
from jaxcnn.data.loader import Arrays
from jaxcnn.data.order import TrainingOrder
from jaxcnn.data.source import ArrayRecords, Source, Splits
from jaxcnn.errors import InputError, Interrupted
from jaxcnn.inputs import choose_loader
from jaxcnn.interruption import StopRequest
from jaxcnn.loop import train
from jaxcnn.pace import Ending
from jaxcnn.run_folder import RunFolder
from tests.conftest import with_fields
from tests.runs import fingerprint, same
from tests.test_resume import StopAt

IMAGES = np.random.default_rng(0).integers(0, 256, (30, 6, 6, 3), np.uint8)
LABELS = (np.arange(30) % 3).astype(np.int32)
SOURCE = Source("made up", ("a", "b", "c"), (6, 6, 3), ArrayRecords(IMAGES, LABELS))


def batches_of(feed) -> list[tuple[np.ndarray, np.ndarray]]:
    found = []
    for first, count in ((0, 3), (3, 1), (4, 2), (1, 2)):  # the last goes back, as a resumed run does
        inputs = feed.inputs(first, count)
        for row in range(count):
            batch = feed.take(feed.source, jax.tree.map(lambda leaf, row=row: leaf[row], inputs))
            found.append((np.asarray(batch.images), np.asarray(batch.labels)))
    feed.close()
    return found


def placed(tree: Any, batch_size: int) -> Any:
    assert all(leaf.shape[1] == batch_size for leaf in jax.tree.leaves(tree))
    return jax.device_put(tree)


def test_both_feeds_give_the_same_batches() -> None:
    order = TrainingOrder(30, 8, 5)
    resident = batches_of(ResidentFeed(Arrays(IMAGES, LABELS), order, 4, jax.device_put))
    host = batches_of(HostFeed(SOURCE, order, CentreCrop((6, 6, 3)), 20, 4, 0, placed))
    for (images, labels), (others, other_labels) in zip(resident, host, strict=True):
        np.testing.assert_array_equal(images, others)
        np.testing.assert_array_equal(labels, other_labels)


def test_evaluation_batches_from_the_host_cover_each_example_once() -> None:
    seen = []
    for batch, mask in HostBatches(SOURCE, CentreCrop((6, 6, 3))).batches(8):
        assert batch.images.shape == (8, 6, 6, 3)
        seen += list(np.asarray(batch.images)[mask])
    np.testing.assert_array_equal(np.array(seen), IMAGES)


@pytest.mark.parametrize("loader", ["cached", "streamed"])
def test_a_crop_that_leaves_a_border_out_is_the_same_from_every_loader(tiny_config, tmp_path, loader) -> None:
    fields = {"data__crop_share": 0.75, "data__cache_dir": str(tmp_path), "augment": AugmentConfig()}
    jobs = [build_job(with_fields(tiny_config, data__loader=name, **fields)) for name in ("resident", loader)]
    means = [job.network.preprocessing.mean for job in jobs]
    assert means[0] == pytest.approx(means[1], rel=1e-6)
    batches = [jax.tree.map(lambda leaf: leaf[0], job.feed.inputs(0, 1)) for job in jobs]
    images = [np.asarray(job.feed.take(job.feed.source, item).images) for job, item in zip(jobs, batches, strict=True)]
    np.testing.assert_array_equal(*images)
    measured = [next(job.splits["validation"].batches(32))[0].images for job in jobs]
    np.testing.assert_array_equal(*map(np.asarray, measured))
    for job in jobs:
        job.feed.close()


def run_of(config, path) -> RunFolder:
    job = build_job(config)
    folder = RunFolder.create(path, config, job.network.class_names, job.network.preprocessing)
    train(job, folder, StopRequest())
    return folder


@pytest.fixture
def streamed_config(tiny_config, tmp_path):
    return with_fields(tiny_config, data__loader="streamed", data__cache_dir=str(tmp_path / "cache"))


def test_a_streamed_run_interrupted_anywhere_equals_the_uninterrupted_one(streamed_config, tmp_path) -> None:
    whole = run_of(streamed_config, tmp_path / "whole")
    job = build_job(streamed_config)
    parts = RunFolder.create(tmp_path / "parts", job.config, job.network.class_names, job.network.preprocessing)
    interruptions = 0
    for dispatches in (1, 3, 2, 1000):
        try:
            train(job, RunFolder(parts.path), StopAt(dispatches))
        except Interrupted:
            interruptions += 1
    assert interruptions == 3
    same(fingerprint(whole.path), fingerprint(parts.path))


def test_cached_equals_streamed_and_resident_measures_the_same(streamed_config, tmp_path) -> None:
    streamed = run_of(streamed_config, tmp_path / "streamed")
    cached = run_of(with_fields(streamed_config, data__loader="cached"), tmp_path / "cached")
    same(fingerprint(streamed.path), fingerprint(cached.path))
    resident = run_of(with_fields(streamed_config, data__loader="resident"), tmp_path / "resident")
    assert resident.preprocessing == streamed.preprocessing == cached.preprocessing
    for one, other in zip(resident.metrics(), streamed.metrics(), strict=True):
        assert one["train"]["loss"] == pytest.approx(
            other["train"]["loss"], rel=1e-3
        )  # another program, other rounding
        assert one["train"]["examples"] == other["train"]["examples"]
        assert 0 <= other["data_wait_share"] <= 1
    assert len(list((tmp_path / "cache" / "decoded").glob("*.npy"))) == 3


def test_the_loader_is_chosen_by_size_and_said(tiny_config, caplog, monkeypatch) -> None:
    monkeypatch.setattr(logging.getLogger("jaxcnn"), "propagate", True)
    caplog.set_level(logging.INFO)
    config = replace(tiny_config.data, resident_limit_gib=2.0)
    assert choose_loader(config, 1.5) == "resident"
    assert choose_loader(config, 2.5) == "streamed"
    assert choose_loader(replace(config, loader="cached"), 1.5) == "cached"
    assert "loader: streamed, decoded in each epoch by threads (2.5 GiB decoded" in caplog.text
    with pytest.raises(InputError, match=r"data.loader=resident: 2.5 GiB decoded"):
        choose_loader(replace(config, loader="resident"), 2.5)


def test_data_from_python_train_without_a_data_set(tiny_config, tmp_path) -> None:
    rng = np.random.default_rng(1)
    labels = np.tile(np.arange(2, dtype=np.int32), 40)
    images = (rng.integers(0, 100, (80, 8, 8, 1)) + 100 * labels[:, None, None, None]).astype(np.uint8)
    source = Source("mine", ("dark", "light"), (8, 8, 1), ArrayRecords(images, labels))
    config = with_fields(tiny_config, train__epochs=8.0, augment__affine=replace(tiny_config.augment.affine, prob=0.0))
    job = build_job(config, splits=Splits(source, source, None))
    folder = RunFolder.create(tmp_path / "run", config, job.network.class_names, job.network.preprocessing)
    result = train(job, folder, StopRequest())
    assert result["validation"]["top1"] > 0.9
    assert "test" not in result
    assert json.loads((folder.path / "confusion" / "validation.json").read_text())["class_names"] == ["dark", "light"]


def test_the_device_waits_from_when_it_is_done_until_its_next_batch_is_there() -> None:
    class Result:
        def block_until_ready(self) -> None:
            time.sleep(0.1)

    began = time.perf_counter()
    ending = Ending(Result())
    assert ending.waited(began) == 0.0
    time.sleep(0.3)
    assert ending.at == pytest.approx(began + 0.1, abs=0.08)
    assert ending.waited(began) == pytest.approx(0.2, abs=0.1)
    assert ending.waited(time.perf_counter() - 0.05) == pytest.approx(0.05, abs=0.04)


@pytest.mark.slow
def test_a_run_whose_decoder_is_slow_says_that_the_device_waited(streamed_config, tmp_path, monkeypatch) -> None:
    original = CentreCrop.__call__

    def slow(self, *arguments):
        time.sleep(0.02)
        return original(self, *arguments)

    monkeypatch.setattr(CentreCrop, "__call__", slow)
    folder = run_of(with_fields(streamed_config, train__epochs=1.0), tmp_path / "run")
    assert folder.metrics()[0]["data_wait_share"] > 0.5


def test_each_of_three_processes_decodes_its_part_of_a_batch() -> None:
    order = TrainingOrder(30, 6, 5)

    def stacked(tree: Any, batch_size: int) -> Any:
        return tree

    feeds = [HostFeed(SOURCE, order, CentreCrop((6, 6, 3)), 20, 4, 0, stacked, (part, 3)) for part in range(3)]
    parts = [feed.inputs(3, 2) for feed in feeds]
    for feed in feeds:
        feed.close()
    assert [part.images.shape[1] for part in parts] == [2, 2, 2]
    labels = np.concatenate([part.labels[:2] for part in parts], axis=1)
    np.testing.assert_array_equal(labels, LABELS[order(3, 2)])


def test_each_of_two_processes_decodes_its_part_of_an_evaluation() -> None:
    whole = list(HostBatches(SOURCE, CentreCrop((6, 6, 3))).batches(8))
    parts = [list(HostBatches(SOURCE, CentreCrop((6, 6, 3)), (part, 2)).batches(8)) for part in range(2)]
    for (batch, mask), *halves in zip(whole, *parts, strict=True):
        np.testing.assert_array_equal(batch.images, np.concatenate([half.images for half, _ in halves]))
        assert all((own == mask).all() for _, own in halves)
