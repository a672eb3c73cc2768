"""`jaxcnn data`: everything bad in a folder is told by name; reports, sheets, preparing."""

import importlib.util
import json

import cv2
import numpy as np
import pytest
from PIL import Image

from jaxcnn.cli import main
from jaxcnn.sheets import draw_grid
from tests.image_files import deep_pixels, kinds


@pytest.fixture
def bad(tmp_path):
    """A folder with each kind of bad data."""
    encoded, root = kinds(), tmp_path / "data"
    for split, first in (("train", 0), ("validation", 60)):
        for name, count in (("a", 24), ("ünï 犬", 2), *([("only", 1)] if split == "train" else ())):
            (root / split / name).mkdir(parents=True)
            for number in range(first, first + count):
                colour = (number, len(name), 9)
                Image.new("RGB", (6, 5), colour).save(root / split / name / f"{number}.png")
    a = root / "train" / "a"
    (a / "zero.jpg").write_bytes(b"")
    (a / "text.jpg").write_text("hello")
    (a / "cut.jpg").write_bytes(encoded["jpeg"][:-30])
    (a / "cmyk.jpg").write_bytes(encoded["jpeg cmyk"])
    (a / "moving.gif").write_bytes(encoded["gif animated"])
    Image.new("RGB", (1, 1)).save(a / "dot.png")
    cv2.imwrite(str(a / "deep.png"), deep_pixels())
    (a / "loop").symlink_to(root)
    (root / "train" / "void").mkdir()
    (a / "copy.png").write_bytes((a / "3.png").read_bytes())
    (root / "train" / "ünï 犬" / "twin.png").write_bytes((a / "4.png").read_bytes())
    (root / "validation" / "a" / "leak.png").write_bytes((a / "5.png").read_bytes())
    return root


def info(capsys, *argv: str) -> tuple[int, str, str]:
    code = main(["data", "info", *map(str, argv)])
    return code, *capsys.readouterr()


def test_everything_bad_is_told_by_name(bad, tmp_path, capsys) -> None:
    code, out, err = info(capsys, bad, "--data.cache-dir", tmp_path, "--sheet", tmp_path / "s.png")
    assert code == 0
    lines = [line.removeprefix("suspicious: ") for line in out.splitlines() if line.startswith("suspicious: ")]
    told = {
        "train: unreadable: 3: ": ["cut.jpg (truncated JPEG)", "text.jpg (a text file)", "zero.jpg (empty file)"],
        "train: CMYK, converted to RGB: 1: ": ["cmyk.jpg"],
        "train: animated, the first frame is used: 1: ": ["moving.gif"],
        "train: 16 bits a channel, the upper 8 are used: 1: ": ["deep.png"],
        "train: 1x1 pixels: 1: ": ["dot.png"],
        "train: images that are there more than once: 2: ": ["3.png", "copy.png", "4.png", "twin.png"],
        "train: equal images in different classes: 1: ": ["4.png", "twin.png"],
        "train and validation: images in both: 1: ": ["5.png", "leak.png"],
        "class 'only' is in train only": [],
        "imbalance: 'a' has 32 training examples, 'only' 1 (told from 10 times on)": [],
    }
    for start, names in told.items():
        (line,) = [line for line in lines if line.startswith(start)]
        assert all(name in line for name in names), line
    assert len(lines) == len(told)
    assert "ünï 犬" in out
    assert "loop: a symlink loop, not followed" in err
    assert "void: a class folder without images" in err
    assert "Corrupt" not in err
    assert cv2.imread(str(tmp_path / "s.png")).shape[0] > 300


def test_as_json_and_strictly(bad, tmp_path, capsys) -> None:
    code, out, _ = info(capsys, bad, "--data.cache-dir", tmp_path, "--json", "--strict", "--data.image-size", "8")
    told = json.loads(out)
    assert code == 1
    assert told["splits"]["train"]["classes"] == {"a": 32, "only": 1, "ünï 犬": 3}
    assert sorted(told["splits"]["train"]["unreadable"].values()) == ["a text file", "empty file", "truncated JPEG"]
    assert len(told["suspicious"]) == 10


def test_a_good_set_is_not_suspicious(tmp_path, capsys, digits_dir) -> None:
    given = ("--data.cache-dir", tmp_path, "--strict")
    code, out, _ = info(capsys, "synthetic", "--data.train-split", "train[:60]", *given)
    assert code == 0
    assert "nothing suspicious" in out
    images = np.random.default_rng(0).integers(0, 256, (40, 4, 4, 3), np.uint8)
    np.savez(tmp_path / "d.npz", images=images, labels=np.arange(40) % 2)
    assert info(capsys, tmp_path / "d.npz", *given)[0] == 0
    code, out, _ = info(capsys, "mnist5k", "--data.data-dir", digits_dir, "--data.train-split", "train[:90]", *given)
    assert code == 0
    assert "read as data.source='tfds'" in out


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["info", "./nowhere"], "./nowhere: no such folder or file"),
        (["info", "mnist6k"], "did you mean 'mnist5k'"),
        (["info", "synthetic", "--sheet", "nowhere/x.png"], "--sheet nowhere/x.png: no such folder"),
        (["prepare", "mnist6k"], "did you mean 'mnist5k'"),
        (["prepare", "fashion_mnist", "--manual-dir", "nowhere"], "--manual-dir nowhere: no such folder"),
    ],
)
def test_mistakes_are_one_line(argv: list[str], told: str, capsys) -> None:
    assert main(["data", *argv]) == 2
    err = capsys.readouterr().err
    assert told in err
    assert err.count("\n") == 1


def test_the_embedded_digits_are_prepared_by_name(digits_dir, capsys) -> None:
    assert main(["data", "prepare", "mnist5k", "--data-dir", digits_dir]) == 0
    assert "train 4,000, validation 500, test 500" in capsys.readouterr().out


def test_a_file_that_is_not_the_registered_one_is_refused(tmp_path, capsys) -> None:
    for part in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (tmp_path / f"{part}-ubyte.gz").write_bytes(b"\x1f\x8b\x08\x00 not it")
    given = ["--manual-dir", str(tmp_path), "--data-dir", str(tmp_path / "tfds")]
    assert main(["data", "prepare", "fashion_mnist", *given]) == 2
    err = capsys.readouterr().err.splitlines()[-1]
    assert "is not the registered one" in err or "needs TensorFlow" in err
    assert not list((tmp_path / "tfds").glob(".prepare-*"))


@pytest.mark.skipif(importlib.util.find_spec("tensorflow") is not None, reason="TensorFlow is installed")
def test_the_lack_of_tensorflow_names_the_extra() -> None:
    from types import SimpleNamespace

    from jaxcnn.data.prepare import _reason

    builder = SimpleNamespace(name="fashion_mnist", url_infos={})
    told = _reason(builder, ImportError("No module named 'tensorflow'"), None)
    assert told == 'fashion_mnist needs TensorFlow to be prepared, not to be read: pip install "jaxcnn[tf]"'


def test_a_sheet_holds_the_images_where_it_should(tmp_path) -> None:
    red, wide = np.zeros((4, 4, 3), np.uint8), np.full((2, 8, 1), 90, np.uint8)
    red[..., 0] = 255
    draw_grid([[red, wide], [wide]], ["a$b$", "犬"], ["one", "two"], tmp_path / "s.png", "title", tile_px=32)
    sheet = cv2.imread(str(tmp_path / "s.png"))[..., ::-1]
    assert (sheet == [255, 0, 0]).all(-1).sum() == 32 * 32
    assert (sheet == 90).all(-1).sum() >= 2 * 8 * 32


def test_a_gz_without_its_name_becomes_the_registered_file_again(tmp_path) -> None:
    import gzip
    import hashlib
    from types import SimpleNamespace

    from jaxcnn.data.prepare import _originals

    body = gzip.compress(b"labels", mtime=77)[10:]
    original = b"\x1f\x8b\x08\x08" + (1504176627).to_bytes(4, "little") + b"\0\3labels-ubyte\0" + body
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "labels-ubyte.gz").write_bytes(
        b"\x1f\x8b\x08\x00" + (99).to_bytes(4, "little") + b"\0\3" + body
    )
    (tmp_path / "given" / "other.gz").write_bytes(b"other")
    registered = {
        "http://one": SimpleNamespace(filename="labels-ubyte.gz", checksum=hashlib.sha256(original).hexdigest()),
        "http://two": SimpleNamespace(filename="other.gz", checksum="not it"),
    }
    folder = _originals(SimpleNamespace(url_infos=registered), tmp_path / "given", tmp_path / "made")
    assert (folder / "labels-ubyte.gz").read_bytes() == original
    assert gzip.decompress(original) == b"labels"
    assert (folder / "other.gz").read_bytes() == b"other"
