"""Stock TFDS data sets prepared as array_record files, from the network or from files that lie in a folder."""

import contextlib
import hashlib
import importlib.util
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from jaxcnn.config import DataConfig
from jaxcnn.data.tfds_source import find_builder, first_line, is_prepared
from jaxcnn.errors import InputError

# Debian's dataset-fashion-mnist has the original files compressed as they were, but without name and time in the
# head of the .gz. Put back (Unix times of 31 August 2017) they are the files whose checksums TFDS knows.
_GZIP_TIMES = (1504176606, 1504176627)


def prepare(name: str, data_dir: str | None, manual_dir: str | None) -> tuple[Path, dict[str, int]]:
    """Returns where a data set is prepared and the examples of each split; does it unless it is done.

    Args:
      name: TFDS name.
      data_dir: folder of prepared data sets; none: TFDS's own.
      manual_dir: folder of files under their registered names, taken instead of downloads; checksums are verified.

    Raises:
      InputError: no such data set, no network or files, TensorFlow is needed and missing, a wrong checksum.
    """
    import tensorflow_datasets as tfds

    if manual_dir is not None and not Path(manual_dir).is_dir():
        raise InputError(f"--manual-dir {manual_dir}: no such folder")
    builder = find_builder(DataConfig(name=name, data_dir=data_dir))
    if not is_prepared(builder):
        root = Path(data_dir or builder._data_dir_root).expanduser()
        try:
            root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".prepare-", dir=root) as scratch:
                _prepare(tfds, builder, manual_dir, Path(scratch))
        except OSError as error:
            raise InputError(f"{name} cannot be prepared in {root}: {first_line(error)}") from None
    return Path(builder.data_path), {split: info.num_examples for split, info in builder.info.splits.items()}


def _prepare(tfds: Any, builder: Any, manual_dir: str | None, scratch: Path) -> None:
    folder = _originals(builder, Path(manual_dir), scratch / "manual") if manual_dir else None
    config = tfds.download.DownloadConfig(
        manual_dir=folder, extract_dir=scratch / "extracted" if folder else None, try_download_gcs=False
    )
    try:
        with contextlib.redirect_stdout(sys.stderr):  # TFDS prints to standard output, which may be a script's
            builder.download_and_prepare(
                file_format="array_record",
                download_config=config,
                download_dir=scratch / "downloads" if folder else None,
            )
    except Exception as error:  # of TFDS, its downloader, its extractor and the builder, each its own
        raise InputError(_reason(builder, error, manual_dir)) from None


def _reason(builder: Any, error: Exception, manual_dir: str | None) -> str:
    """What one line says of a failure, with the remedy."""
    if importlib.util.find_spec("tensorflow") is None and "tensorflow" in str(error).lower():
        return f'{builder.name} needs TensorFlow to be prepared, not to be read: pip install "jaxcnn[tf]"'
    if type(error).__name__ == "NonMatchingChecksumError":
        where = f"in {manual_dir} " if manual_dir else ""
        return f"{builder.name}: a file {where}is not the registered one: {first_line(error)}"
    files = ", ".join(info.filename or url for url, info in builder.url_infos.items())
    hint = f"; it needs these files, downloaded or in --manual-dir: {files}" if files else ""
    return f"{builder.name} cannot be prepared: {first_line(error)}{hint}"


def _originals(builder: Any, given: Path, folder: Path) -> Path:
    """A folder with the registered files as links, or with their .gz head put back where that makes the checksum."""
    folder.mkdir()
    for entry in given.iterdir():
        os.symlink(entry.resolve(), folder / entry.name)
    for info in builder.url_infos.values():
        file = folder / (info.filename or "")
        if not file.is_file() or file.suffix != ".gz":
            continue
        body = file.read_bytes()
        for made in _with_name(body, file.stem):
            if hashlib.sha256(made).hexdigest() == info.checksum:
                file.unlink()
                file.write_bytes(made)
                break
    return folder


def _with_name(body: bytes, name: str) -> list[bytes]:
    """A .gz whose head has neither name nor flags, with this name and each of the known times; else nothing."""
    if body[:4] != b"\x1f\x8b\x08\x00":
        return []
    return [b"\x1f\x8b\x08\x08" + time.to_bytes(4, "little") + b"\0\3" + name.encode() + b"\0" + body[10:]
            for time in _GZIP_TIMES]  # fmt: skip
