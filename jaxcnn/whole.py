"""Files that are written whole or not at all."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

_PARTS: set[Path] = set()


@contextlib.contextmanager
def part(path: Path) -> Iterator[Path]:
    """The name of a file or folder while it is written; what is not moved to its place in here is removed.

    Also where the process is ended from another thread, by `remove_parts`.
    """
    _PARTS.add(path)
    try:
        yield path
    finally:
        _remove(path)
        _PARTS.discard(path)


def remove_parts() -> None:
    """Removes what is being written at this moment: for a process that ends."""
    for path in list(_PARTS):
        _remove(path)


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def write_whole(path: Path, text: str) -> None:
    """Writes a text file whole or not at all: who reads it meanwhile sees the old one, and so does a crash.

    Raises:
      OSError: it cannot be written.
    """
    with part(path.with_name(f".{path.name}.part")) as unfinished:
        with open(unfinished, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
