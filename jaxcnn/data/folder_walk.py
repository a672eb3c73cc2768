"""The image files below a folder: links followed but not in circles, and what is left out is told."""

import logging
import os
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jaxcnn.data.decode import IMAGE_SUFFIXES

LOG = logging.getLogger("jaxcnn")

_NO_CLASS = frozenset({"__MACOSX"})  # what archives made on a Mac have beside the data


@dataclass(frozen=True)
class Found:
    """An image file: its path below the root, its class folder, size in bytes (-1 if gone) and time."""

    path: str
    folder: str
    size: int
    mtime_ns: int


def printable(text: str) -> str:
    """The text with \\xNN for each byte of a file name that is not UTF-8."""
    return os.fsencode(text).decode("utf-8", "backslashreplace")


def class_name(folder: str) -> str:
    """The name of the class of a folder: composed Unicode (NFC), since Macs write é as two characters."""
    return unicodedata.normalize("NFC", printable(folder))


def visible_folders(place: Path) -> list[Path]:
    """Returns the folders in a folder, by name, without hidden ones."""
    entries = sorted(entry for entry in place.iterdir() if entry.is_dir())
    return [entry for entry in entries if not entry.name.startswith(".") and entry.name not in _NO_CLASS]


def find_images(root: Path, split_folder: Path) -> list[Found]:
    """Returns the image files in the class folders of a split; what is left out is told in the log."""
    above = tuple(_identity(str(place)) for place in (split_folder, root, *root.resolve().parents))
    found: list[Found] = []
    others: Counter[str] = Counter()
    for folder in visible_folders(split_folder):
        if printable(folder.name) != folder.name:
            LOG.warning(f"warning: {printable(str(folder))}: its name is not UTF-8; its class is called so")
        for entry in _files(str(folder), above):
            suffix = os.path.splitext(entry.name)[1].lower()
            if suffix in IMAGE_SUFFIXES:
                found.append(Found(os.path.relpath(entry.path, root), folder.name, *_size_and_time(entry)))
            else:
                others[printable(suffix) or "no suffix"] += 1
    loose = sum(entry.suffix.lower() in IMAGE_SUFFIXES for entry in split_folder.iterdir() if entry.is_file())
    if loose:
        LOG.warning(f"warning: {split_folder}: {loose:,} images lie in no class folder and are left out")
    if others:
        kinds = ", ".join(f"{count:,} {suffix}" for suffix, count in others.most_common(5))
        LOG.info(f"{split_folder}: {others.total():,} files that are no images are left out ({kinds})")
    return found


def _files(folder: str, above: tuple[tuple[int, int], ...]) -> Iterator[os.DirEntry[str]]:
    """Yields the files below a folder by name, hidden ones left out; `above` are the folders on the way to it."""
    here = _identity(folder)
    if here in above:
        LOG.warning(f"warning: {printable(folder)}: a symlink loop, not followed")
        return
    try:
        with os.scandir(folder) as entries:
            inside = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        LOG.warning(f"warning: {printable(folder)}: {error.strerror}, left out")
        return
    for entry in inside:
        if entry.name.startswith("."):
            continue
        try:
            is_folder = entry.is_dir()
        except OSError:  # a link to itself
            is_folder = False
            LOG.warning(f"warning: {printable(entry.path)}: a symlink loop, not followed")
        if is_folder:
            yield from _files(entry.path, (*above, here))
        else:
            yield entry


def _identity(folder: str) -> tuple[int, int]:
    stat = os.stat(folder)
    return stat.st_dev, stat.st_ino


def _size_and_time(entry: os.DirEntry) -> tuple[int, int]:
    try:
        stat = entry.stat()
    except OSError:  # a link to nothing: told as unreadable, by name, once it is read
        return -1, 0
    return stat.st_size, stat.st_mtime_ns
