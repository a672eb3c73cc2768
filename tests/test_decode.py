"""Image files: the same pixels as PIL's for every kind, and the reason for each that cannot be read."""

import io
import pickle
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from jaxcnn.data.decode import UnreadableImage, convert_channels, decode, read_image, resize_and_centre_crop
from jaxcnn.data.image_header import read_header
from jaxcnn.errors import InputError
from tests.image_files import deep_pixels, kinds, saved

KINDS = kinds()
WHOLE = ["jpeg", "jpeg progressive", "jpeg cmyk", "png", "png palette", "gif", "webp", "webp lossy", "bmp", "tiff"]


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_are_those_of_pil_on_white_within_1_of_255(kind: str) -> None:
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(KINDS[kind]))).convert("RGBA")
    expected = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    for channels, mode in ((3, "RGB"), (1, "L")):
        found = decode(KINDS[kind], channels, kind)
        assert found.dtype == np.uint8
        assert found.shape[2] == channels
        difference = found.squeeze().astype(int) - np.asarray(expected.convert(mode)).astype(int)
        assert np.abs(difference).max() <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_grey_stays_grey_and_the_rest_is_rgb_where_no_channels_are_asked_for(kind: str) -> None:
    found = decode(KINDS[kind], None, kind)
    assert found.shape[2] == (1 if any(word in kind for word in ("grey", "1 bit", "key")) else 3)
    assert found.shape[:2] == ((60, 40) if "exif" in kind else (40, 60))


@pytest.mark.parametrize("form", [".png", ".tiff"])
def test_of_16_bits_the_upper_8_are_used(form: str) -> None:
    encoded = cv2.imencode(form, deep_pixels())[1].tobytes()
    np.testing.assert_array_equal(decode(encoded, 1, "deep")[..., 0], deep_pixels() >> 8)
    np.testing.assert_array_equal(decode(encoded, None, "deep")[..., 0], deep_pixels() >> 8)


@pytest.mark.parametrize("share", [0.1, 0.6, 0.98])
@pytest.mark.parametrize("kind", WHOLE)
def test_a_truncated_file_is_told_and_nothing_else_is_printed(kind: str, share: float, capfd) -> None:
    with pytest.raises(InputError, match=r"^cut: not a readable image \((truncated|damaged)"):
        decode(KINDS[kind][: int(len(KINDS[kind]) * share)], 3, "cut")
    assert capfd.readouterr() == ("", "")


def test_a_jpeg_whose_thumbnail_alone_is_whole_is_truncated() -> None:
    thumbnail = b"Exif\0\0" + KINDS["jpeg"]
    segment = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    whole = KINDS["jpeg"][:2] + segment + KINDS["jpeg"][2:]
    assert decode(whole, 3, "whole").shape == (40, 60, 3)
    with pytest.raises(InputError, match="truncated JPEG"):
        decode(whole[:-20], 3, "cut")


def test_a_damaged_png_is_told_by_its_checksum(capfd) -> None:
    damaged = bytearray(KINDS["png"])
    damaged[len(damaged) // 2] ^= 0xFF
    with pytest.raises(InputError, match=r"damaged PNG: checksum"):
        decode(bytes(damaged), 3, "x.png")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file"),
        (b"not an image", "a text file"),
        (b"\x00\x01\x02\x80", "not a JPEG, PNG, WebP, BMP, GIF or TIFF"),
        (b"\x89PNG\r\n\x1a\n truncated", "truncated"),
        (b"\xff\xd8\xff", "truncated"),
        (b"\xff\xd8no marker", "damaged JPEG"),
        (b"RIFF\x04\0\0\0WAVE", "not a JPEG"),
    ],
)
def test_an_unreadable_image_is_named_with_the_reason(tmp_path, content: bytes, reason: str) -> None:
    (tmp_path / "bad.jpg").write_bytes(content)
    with pytest.raises(InputError, match=rf"bad.jpg: not a readable image \({reason}"):
        read_image(tmp_path / "bad.jpg", 3)


def png_of_size(height: int, width: int) -> bytes:
    """A small PNG that claims a size."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(b"\0" * 999)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def test_an_image_that_claims_a_huge_size_is_not_decoded() -> None:
    with pytest.raises(InputError, match=r"60000 x 60000 pixels, at most 134,217,728 are read"):
        decode(png_of_size(60000, 60000), 3, "bomb.png")
    with pytest.raises(InputError, match=r"0 x 10 pixels"):
        decode(png_of_size(0, 10), 3, "flat.png")


def test_one_pixel_is_an_image() -> None:
    encoded = saved(Image.new("RGB", (1, 1), (10, 20, 30)), "PNG")
    assert decode(encoded, 3, "dot")[0, 0].tolist() == [10, 20, 30]
    assert resize_and_centre_crop(decode(encoded, 3, "dot"), 8, 8).shape == (8, 8, 3)
    assert read_header(encoded).oddity == "1x1 pixels"


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("jpeg", ""), ("webp lossy", ""), ("jpeg cmyk", "CMYK"), ("png alpha", "transparency"),
        ("gif animated", "animated"), ("webp animated", "animated"), ("png animated", "animated"), ("gif", ""),
    ],
)  # fmt: skip
def test_what_is_not_used_as_stored_is_known_from_the_header(kind: str, told: str) -> None:
    oddity = read_header(KINDS[kind]).oddity
    assert told in oddity
    assert bool(told) == bool(oddity)


def test_the_first_frame_of_an_animation_is_used() -> None:
    np.testing.assert_array_equal(decode(KINDS["webp animated"], 3, "a"), decode(KINDS["webp"], 3, "b"))


def test_the_centre_is_cut_out_of_the_covering_size() -> None:
    image = np.zeros((10, 30, 1), np.uint8)
    image[:, 10:20] = 200
    np.testing.assert_array_equal(resize_and_centre_crop(image, 10, 10), np.full((10, 10, 1), 200))
    assert resize_and_centre_crop(image, 5, 5).shape == (5, 5, 1)
    assert resize_and_centre_crop(image, 40, 13).shape == (40, 13, 1)


def test_channels_are_converted() -> None:
    grey = np.full((2, 2, 1), 9, np.uint8)
    np.testing.assert_array_equal(convert_channels(grey, 3), np.full((2, 2, 3), 9))
    red = np.zeros((1, 1, 3), np.uint8)
    red[..., 0] = 255
    assert convert_channels(red, 1).item() == 76  # 0.299 of 255


def test_the_error_of_an_unreadable_image_comes_out_of_a_process_whole() -> None:
    error = pickle.loads(pickle.dumps(UnreadableImage("a.png", "empty file")))
    assert (error.where, error.reason, str(error)) == (
        "a.png",
        "empty file",
        "a.png: not a readable image (empty file)",
    )
