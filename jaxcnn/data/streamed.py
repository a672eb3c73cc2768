"""Batches decoded while the device works: an iterator over steps, filled by threads or by worker processes.

An element of the pipeline is the whole batch of a step, so grain's cost an element is paid once a batch. A batch is a
pure function of its step: what fills it, and from which step on, changes nothing, and resuming needs one integer.
"""

import gc
import multiprocessing
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import numpy as np

from jaxcnn.data.host_crop import Transform
from jaxcnn.data.source import Source
from jaxcnn.errors import InputError, RunFailed
from jaxcnn.interruption import SIGNALS
from jaxcnn.runtime import usable_cores

Batch = tuple[np.ndarray, np.ndarray]
"""Images uint8 [B, H, W, C] and labels int32 [B]."""

PlacesOf = Callable[[int, int], np.ndarray]
"""(first_step, num_steps) -> which examples the steps see, int32 [num_steps, B]; picklable."""


@dataclass(frozen=True)
class GivenPlaces:
    """An order that is written down: places int32 [steps, B], such as those of an evaluation."""

    places: np.ndarray

    def __call__(self, first_step: int, num_steps: int) -> np.ndarray:
        return self.places[first_step : first_step + num_steps]


def stream(
    source: Source,
    places_of: PlacesOf,
    transform: Transform,
    first_step: int,
    stop_step: int,
    *,
    shard: tuple[int, int] = (0, 1),
    workers: int = 0,
    threads: int | None = None,
    buffer: int = 2,
) -> "Stream":
    """Returns the batches of steps first_step, ..., stop_step - 1; decoding begins at once.

    Args:
      source: where the examples are.
      places_of: which of them each step sees; on several hosts, this host's part of them.
      transform: an encoded image to uint8 [H, W, C].
      first_step, stop_step: which steps. On resume, first_step is the step to go on with.
      shard: (index, count): which part of each batch is this host's, so that no two hosts draw the same.
      workers: processes that decode; 0: threads of this process.
      threads: with workers=0, how many; none: one a core.
      buffer: batches kept ready, beside the one that each thread or process is at; processes may keep two times as
        many, and at least two each.

    `Stream` is to be closed. OpenCV's own threads are turned off in the process that decodes: they would contend for
    the same cores.
    """
    batches = Batches(source, places_of, transform, first_step, stop_step, shard)
    if workers:
        return Stream(_with_workers(batches, workers, buffer), _shared=True)
    return Stream(_with_threads(batches, threads, buffer))


@dataclass(frozen=True)
class Batches:
    """Random access to batches: element i is that of step first_step + i."""

    source: Source
    places_of: PlacesOf
    transform: Transform
    first_step: int
    stop_step: int
    shard: tuple[int, int] = (0, 1)

    def __len__(self) -> int:
        return max(0, self.stop_step - self.first_step)

    def __getitem__(self, index: int) -> Batch:
        """Returns the batch; raises InputError, which names the image, where one is unreadable."""
        step = self.first_step + int(index)
        places = [int(place) for place in self.places_of(step, 1)[0]]
        host, hosts = self.shard
        position = (step * hosts + host) * len(places)  # of the first, in the sequence that all hosts see
        images = np.empty((len(places), *self.transform.shape), np.uint8)
        labels = np.empty(len(places), np.int32)
        for at, (place, (image, label)) in enumerate(zip(places, self.source.records.read(places), strict=True)):
            labels[at] = label
            if at and place == places[at - 1] and not self.transform.random:  # padding of an evaluation's last batch
                images[at] = images[at - 1]
            else:
                images[at] = self.transform(image, position + at, self.source.records.where(place))
        return images, labels


@dataclass
class Stream:
    """An iterator over batches, to be closed: use it in a `with`."""

    _iterator: Any = field(repr=False)
    _shared: bool = False

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        """Returns the next batch.

        Raises:
          InputError: an image is unreadable; the message names it.
          RunFailed: a worker process has died, or a file could no longer be read.
        """
        if self._iterator is None:
            raise StopIteration
        try:
            images, labels = next(self._iterator)
        except StopIteration:
            self.close()
            raise
        except InputError as error:
            self.close()
            raise InputError(str(error)) from None  # without the traceback of another process
        except RuntimeError as error:
            self.close()
            if (death := _death(error)) is None:
                raise
            raise RunFailed(death) from None
        except OSError as error:
            self.close()
            raise RunFailed(f"reading images: {error}") from None
        except BaseException:
            self.close()
            raise
        return self._own(images), self._own(labels)

    def _own(self, array: np.ndarray) -> np.ndarray:
        """The array in memory of its own: that of a worker is unlinked when grain's object goes."""
        return np.array(array, subok=False) if self._shared else array

    def close(self) -> None:
        """Ends the threads, once each is done with its batch, or the processes."""
        iterator, self._iterator = self._iterator, None
        if iterator is None:
            return
        iterator.close()
        if self._shared:
            del iterator
            gc.collect()  # cycles in grain keep the last batches in shared memory, and the tracker would report them

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _with_threads(batches: Batches, threads: int | None, buffer: int) -> Any:
    """A started grain iterator whose elements are made by threads of this process."""
    import grain

    _one_opencv_thread()
    count = min(threads or len(usable_cores()), max(1, len(batches)))
    options = grain.ReadOptions(num_threads=count, prefetch_buffer_size=count + buffer)
    return _started(grain.MapDataset.source(batches).to_iter_dataset(options))


def _with_workers(batches: Batches, workers: int, buffer: int) -> Any:
    """A started grain iterator whose elements are made by processes, which take turns."""
    import grain
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # grain hands its flags to the processes
    count = min(workers, max(1, len(batches)))
    dataset = grain.MapDataset.source(batches).to_iter_dataset(grain.ReadOptions(0, 0))
    options = grain.MultiprocessingOptions(num_workers=count, per_worker_buffer_size=-(-buffer // count))
    return _started(dataset.mp_prefetch(options, worker_init_fn=_start_of_worker))


def _started(dataset: Any) -> Any:
    iterator = iter(dataset)
    iterator.start_prefetch()
    return iterator


def _start_of_worker(index: int, count: int) -> None:
    """What a worker process does first.

    A signal to stop reaches all processes of a terminal or a job: the run answers it, and still needs its batches while
    it saves. If the run is killed, its workers would wait for it without end.
    """
    _one_opencv_thread()
    for asked_to_stop in SIGNALS:
        signal.signal(asked_to_stop, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _one_opencv_thread() -> None:
    import cv2

    cv2.setNumThreads(1)


def _death(error: RuntimeError) -> str | None:
    """One line on a worker process that has died; none if the error is something else."""
    found = re.search(r"Worker process was terminated unexpectedly with exit code (-?\d+)", str(error))
    if not found:
        return None
    code = int(found[1])
    hint = {-9: ", perhaps for want of memory", -7: ", perhaps for want of shared memory in /dev/shm"}.get(code, "")
    return f"a process that decodes images ended with exit code {code}{hint}; with data.workers=0 threads decode"
