"""The streamed loader: a batch is a function of its step alone, and what goes wrong ends the run with its reason."""

import functools
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from jaxcnn.data.host_crop import CentreCrop, RandomResizedCrop
from jaxcnn.data.order import TrainingOrder, evaluation_batches
from jaxcnn.data.source import ArrayRecords, Source
from jaxcnn.data.streamed import Batch, Batches, GivenPlaces, Stream, stream
from jaxcnn.errors import InputError, RunFailed

ROOT = Path(__file__).parent.parent
SIZE, BATCH = 8, 6
WHOLE = CentreCrop((SIZE, SIZE, 1))
CROP = RandomResizedCrop((SIZE, SIZE, 1), seed=3)


def source_of(num_examples: int) -> Source:
    """PNGs of different sizes; example i is labelled i."""
    draws = np.random.default_rng(0)
    encoded = []
    for _ in range(num_examples):
        image = draws.integers(0, 256, (*draws.integers(9, 20, 2), 1), dtype=np.uint8)
        encoded.append(cv2.imencode(".png", image)[1].tobytes())
    names = tuple(map(str, range(num_examples)))
    return Source("tiny", names, None, ArrayRecords(encoded, np.arange(num_examples)))


def order(source: Source, shard: tuple[int, int] = (0, 1)) -> functools.partial:
    return TrainingOrder(source.num_examples, BATCH, 0, shard=shard)


def all_of(batches: Stream) -> list[Batch]:
    with batches:
        return list(batches)


def assert_equal(first: list[Batch], second: list[Batch]) -> None:
    assert len(first) == len(second)
    for (images, labels), (others, other_labels) in zip(first, second, strict=True):
        np.testing.assert_array_equal(images, others)
        np.testing.assert_array_equal(labels, other_labels)


def decoding_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if "grain-prefetch" in thread.name]


def children() -> list[int]:
    """The worker processes of this one; the tracker of shared memory is none."""
    own = os.getpid()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
            if parent == own and b"spawn_main" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def wait_for(condition, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


# Each example, wherever


def test_each_example_appears_once_an_epoch_and_two_epochs_differ() -> None:
    source = source_of(20)  # 20 = 3 batches of 6 and a remainder of 2
    batches = all_of(stream(source, order(source), CROP, 0, 20, threads=2))
    labels = np.concatenate([labels for _, labels in batches]).reshape(-1, 20)
    assert all(sorted(epoch) == list(range(20)) for epoch in labels)
    assert not np.array_equal(labels[0], labels[1])
    assert batches[0][0].shape == (BATCH, SIZE, SIZE, 1)
    assert batches[0][0].dtype == np.uint8
    assert batches[0][1].dtype == np.int32


def test_an_image_is_cropped_anew_in_each_epoch() -> None:
    source = source_of(BATCH)
    (first, labels), (second, others) = all_of(stream(source, order(source), CROP, 0, 2, threads=1))
    changed = [
        not np.array_equal(first[np.flatnonzero(labels == label)[0]], second[np.flatnonzero(others == label)[0]])
        for label in range(BATCH)
    ]
    assert sum(changed) >= BATCH - 1


def test_the_parts_of_several_hosts_are_the_batch_of_one() -> None:
    source = source_of(20)
    whole = all_of(stream(source, order(source), CROP, 0, 7, threads=1))
    parts = [
        all_of(stream(source, order(source, (host, 3)), CROP, 0, 7, shard=(host, 3), threads=1)) for host in range(3)
    ]
    joined = [tuple(np.concatenate(pieces) for pieces in zip(*step, strict=True)) for step in zip(*parts, strict=True)]
    assert_equal(whole, joined)


def test_an_evaluation_sees_each_example_once_under_its_mask() -> None:
    source = source_of(20)
    places, masks = map(np.stack, zip(*evaluation_batches(20, BATCH), strict=True))
    batches = all_of(stream(source, GivenPlaces(places), WHOLE, 0, len(places), threads=2))
    labels = np.stack([labels for _, labels in batches])
    assert sorted(labels[masks]) == list(range(20))
    images, _ = source.read([19])
    padded = batches[-1][0][~masks[-1]]
    assert len(padded) == 4
    assert all(np.array_equal(image, WHOLE(images[0], 0, "")) for image in padded)


# A function of the step alone


def test_resuming_in_the_middle_of_an_epoch_is_bit_identical() -> None:
    source = source_of(20)
    whole = all_of(stream(source, order(source), CROP, 0, 9, threads=2))
    assert_equal(whole[5:], all_of(stream(source, order(source), CROP, 5, 9, threads=2)))


def test_threads_and_processes_give_the_same_data() -> None:
    source = source_of(20)
    batches = Batches(source, order(source), CROP, 2, 9)
    expected = [batches[index] for index in range(len(batches))]
    for settings in ({"threads": 1}, {"threads": 5}, {"workers": 1}):  # two processes: below
        assert_equal(expected, all_of(stream(source, order(source), CROP, 2, 9, **settings)))


def test_batches_survive_pickling() -> None:
    source = source_of(4)
    again = pickle.loads(pickle.dumps(Batches(source, order(source), CROP, 0, 3)))
    assert_equal([again[0]], [Batches(source, order(source), CROP, 0, 3)[0]])


def test_no_steps_are_no_batches() -> None:
    source = source_of(4)
    assert all_of(stream(source, order(source), CROP, 5, 5)) == []


# What goes wrong


@pytest.mark.parametrize("settings", [{"threads": 2}, {"workers": 1}], ids=["threads", "processes"])
def test_an_unreadable_image_is_named(settings: dict[str, int]) -> None:
    source = source_of(20)
    source.records.images[13] = b"no image"
    with stream(source, order(source), CROP, 0, 4, **settings) as batches:
        with pytest.raises(InputError, match="example 13") as caught:
            list(batches)
        assert "\n" not in str(caught.value)
        assert caught.value.__cause__ is None
        assert next(batches, None) is None


def test_a_killed_process_ends_the_run_with_its_reason() -> None:
    source = source_of(20)
    with stream(source, order(source), CROP, 0, 10**6, workers=2) as batches:
        next(batches)
        for worker in children():
            os.kill(worker, signal.SIGKILL)
        start = time.monotonic()
        with pytest.raises(RunFailed, match="exit code -9"):
            list(batches)
        assert time.monotonic() - start < 10
    wait_for(lambda: not children())


def test_a_signal_to_stop_is_for_the_run_and_not_for_its_processes() -> None:
    source = source_of(20)
    expected = Batches(source, order(source), CROP, 0, 30)
    with stream(source, order(source), CROP, 0, 30, workers=2) as batches:
        first = [next(batches) for _ in range(4)]
        for worker in children():
            os.kill(worker, signal.SIGINT)
            os.kill(worker, signal.SIGTERM)
        assert_equal([expected[index] for index in range(30)], first + list(batches))
    wait_for(lambda: not children())


def test_processes_end_with_a_run_that_is_killed() -> None:
    program = (
        "import tests.test_streamed as t, time\n"
        "if __name__ == '__main__':\n"
        "    source = t.source_of(20)\n"
        "    batches = t.stream(source, t.order(source), t.CROP, 0, 10**6, workers=1)\n"
        "    next(batches)\n"
        "    print(*t.children(), flush=True)\n"
        "    time.sleep(60)\n"
    )
    run = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert run.stdout is not None
    (worker,) = run.stdout.readline().split()
    run.kill()
    run.wait()
    wait_for(lambda: not Path(f"/proc/{worker}").exists())


def test_a_file_that_is_gone_ends_the_run_with_its_name(tmp_path: Path) -> None:
    class Gone(ArrayRecords):
        def read(self, places):
            return [((tmp_path / "gone.png").read_bytes(), 0) for _ in places]

    source = Source("gone", ("a",), None, Gone([], np.arange(20)))
    with stream(source, order(source), CROP, 0, 4, threads=1) as batches, pytest.raises(RunFailed, match=r"gone\.png"):
        next(batches)


def test_closing_ends_threads() -> None:
    source = source_of(20)
    with stream(source, order(source), CROP, 0, 10**6, threads=3) as batches:
        next(batches)
        assert len(decoding_threads()) == 3
    wait_for(lambda: not decoding_threads())
    assert next(batches, None) is None


def test_closing_ends_processes_and_frees_their_shared_memory() -> None:
    source = source_of(20)
    before = set(Path("/dev/shm").glob("psm_*"))
    with stream(source, order(source), CROP, 0, 10**6, workers=2) as batches:
        next(batches)
        assert len(children()) == 2
    wait_for(lambda: not children())
    wait_for(lambda: not set(Path("/dev/shm").glob("psm_*")) - before)


def test_only_so_many_batches_are_made_ahead() -> None:
    made = []

    class Counting(ArrayRecords):
        def read(self, places):
            made.append(places)
            return super().read(places)

    plain = source_of(20)
    source = Source("counting", plain.class_names, None, Counting(plain.records.images, plain.records.targets))
    with stream(source, order(source), CROP, 0, 10**6, threads=2, buffer=3) as batches:
        wait_for(lambda: len(made) == 5)
        time.sleep(0.2)
        assert len(made) == 5
        next(batches)
        wait_for(lambda: len(made) == 6)
