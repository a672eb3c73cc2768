"""A function on many things at once, in threads: OpenCV lets others run while it decodes."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from jaxcnn.runtime import usable_cores

Item = TypeVar("Item")
Result = TypeVar("Result")


def results_in_threads(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yields function(item) in order; when that is broken off, what has not begun is left undone."""
    pool = ThreadPoolExecutor(len(usable_cores()))
    try:
        yield from pool.map(function, items)
    finally:
        pool.shutdown(cancel_futures=True)


def in_threads(function: Callable[[Item], None], items: Iterable[Item]) -> None:
    """Calls function(item) for each item."""
    for _ in results_in_threads(function, items):
        pass
