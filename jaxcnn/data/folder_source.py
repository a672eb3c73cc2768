"""Folders of images: ROOT/SPLIT/CLASS/* or ROOT/CLASS/*, read file by file.

A class is the folder right below the split (or below ROOT); all that lies deeper in it belongs to it. Hidden files are
left out, links are followed. The order of the examples of a split is that of a hash of their paths: at random, so that
`train[:90%]` holds all classes, and the same on every machine; a new file takes its place without moving the others.
"""

import hashlib
import logging
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jaxcnn.data.decode import UnreadableImage
from jaxcnn.data.folder_walk import Found, class_name, find_images, printable, visible_folders
from jaxcnn.data.source import Records, Subset
from jaxcnn.data.split_expressions import DataSet, held_out
from jaxcnn.errors import InputError

LOG = logging.getLogger("jaxcnn")

SPLIT_FOLDERS = {
    "train": "train",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "test": "test",
}


@dataclass(frozen=True)
class FolderRecords:
    """Image files, encoded until decoded: paths below `root`, and their labels int32 [N]."""

    root: str
    paths: tuple[str, ...]
    targets: np.ndarray

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, places: Sequence[int]) -> list[tuple[bytes | np.ndarray, int]]:
        return [(self._bytes(place), int(self.targets[place])) for place in places]

    def labels(self) -> np.ndarray:
        return self.targets

    def where(self, place: int) -> str:
        return printable(os.path.join(self.root, self.paths[place]))

    def _bytes(self, place: int) -> bytes:
        path = os.path.join(self.root, self.paths[place])
        try:
            if not stat.S_ISREG(os.stat(path).st_mode):  # to read a pipe would wait for ever
                raise UnreadableImage(self.where(place), "not a regular file")
            with open(path, "rb") as file:
                return file.read()
        except OSError as error:
            raise UnreadableImage(self.where(place), error.strerror or str(error)) from None


def open_folder(root: str) -> DataSet:
    """Returns the data set that a folder holds.

    Without a validation folder a tenth of each class of train is its validation split; without any split folder
    another tenth is its test split.

    Raises:
      InputError: it is no folder, or holds no classes or no images.
    """
    if not Path(root).is_dir():
        raise InputError(f"data.data_dir={root!r}: {'not a folder' if Path(root).exists() else 'no such folder'}")
    split_folders = _split_folders(Path(root))
    places = split_folders or {"": Path(root)}
    found = {split: _in_order(find_images(Path(root), folder)) for split, folder in places.items()}
    folders = {image.folder for images in found.values() for image in images}
    _tell_empty(places, found)
    class_names = tuple(sorted({class_name(folder) for folder in folders}))
    if not class_names:
        raise InputError(f"data.data_dir={root!r}: no images in {_layout(split_folders)}")
    if len(class_names) == 1:
        LOG.warning(f"warning: {root}: a single class, {class_names[0]!r}")
    labels = {name: label for label, name in enumerate(class_names)}
    records: dict[str, Records] = {
        split: FolderRecords(
            root,
            tuple(image.path for image in images),
            np.array([labels[class_name(image.folder)] for image in images], np.int32),
        )
        for split, images in found.items()
        if images
    }
    return DataSet(root, class_names, None, _divided(records, root), _fingerprint(found))


def _split_folders(root: Path) -> dict[str, Path]:
    """The folders of splits by the split's name; none if the folders of `root` are classes.

    A folder called `train` that holds images and no folders is a class: of a data set of vehicles, for instance.
    """
    folders = visible_folders(root)
    splits: dict[str, Path] = {}
    for folder in folders:
        split = SPLIT_FOLDERS.get(folder.name.lower())
        if split is None or not visible_folders(folder):
            continue
        if split in splits:
            raise InputError(f"data.data_dir={str(root)!r}: {splits[split].name} and {folder.name} are the same split")
        splits[split] = folder
    others = [printable(folder.name) for folder in folders if folder not in splits.values()]
    if splits and others:
        LOG.warning(f"warning: {root}: {', '.join(others)}: not a split (train, validation, test), left out")
    return splits


def _in_order(images: list[Found]) -> list[Found]:
    """The images in the order of a hash of their paths."""
    return sorted(images, key=lambda image: hashlib.blake2b(os.fsencode(image.path), digest_size=8).digest())


def _tell_empty(split_folders: dict[str, Path], found: dict[str, list[Found]]) -> None:
    """Warns of each class folder without images: its class exists only if another split has it."""
    for split, folder in split_folders.items():
        full = {class_name(image.folder) for image in found[split]}
        for own in visible_folders(folder):
            if class_name(own.name) not in full:
                LOG.warning(f"warning: {printable(str(own))}: a class folder without images")


def _layout(split_folders: dict[str, Path]) -> str:
    if split_folders:
        return "its split folders (ROOT/SPLIT/CLASS/*): " + ", ".join(folder.name for folder in split_folders.values())
    return "class folders below it (ROOT/CLASS/* or ROOT/SPLIT/CLASS/*)"


def _divided(records: dict[str, Records], root: str) -> dict[str, Records]:
    """The records with the splits that are made where the folder has none: a tenth of each class each."""
    if "validation" in records or not {"", "train"} & set(records):
        return records
    whole = records[""] if "" in records else records["train"]
    names = ["train", "validation", "test"] if "" in records else ["train", "validation"]
    kept = dict(zip(names, held_out(whole.labels(), len(names) - 1), strict=True))
    told = " and ".join(f"{len(kept[name]):,} for {name}" for name in names[1:])
    LOG.info(f"{root}: of {len(whole):,} images {told} are kept from train, a tenth of each class")
    made: dict[str, Records] = {name: Subset(whole, places) for name, places in kept.items() if len(places)}
    return {**{name: own for name, own in records.items() if name not in ("", "train")}, **made}


def _fingerprint(found: dict[str, list[Found]]) -> str:
    """A key of what the folder holds: paths, sizes and times of its files."""
    digest = hashlib.sha256()
    for split, images in found.items():
        digest.update(f"{split}\n".encode())
        for image in images:
            digest.update(os.fsencode(f"{image.path}\n{image.size} {image.mtime_ns}\n"))
    return digest.hexdigest()[:24]
