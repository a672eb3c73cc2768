"""Crops on the host: reduced decoding is that of the whole image to a few grey levels, and randomness is a function."""

import io
import math

import cv2
import numpy as np
import pytest
from PIL import Image

from jaxcnn.data import host_crop
from jaxcnn.data.decode import decode, resize_and_centre_crop
from jaxcnn.data.host_crop import CentreCrop, RandomResizedCrop
from jaxcnn.data.jpeg import Header, decode_reduced, read_header
from jaxcnn.errors import InputError


def photo(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    """Noise at all scales, less of it the finer it is, as in photographs: uint8 [H, W, C]."""
    draws = np.random.default_rng(seed)
    image = np.zeros((height, width, channels), np.float32)
    for level in range(1, 9):
        noise = draws.normal(size=(2**level, 2**level, channels)).astype(np.float32) * 0.6**level
        image += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC).reshape(image.shape)
    return np.clip(128 + 45 * (image - image.mean()) / image.std(), 0, 255).astype(np.uint8)


def jpeg(image: np.ndarray, orientation: int | None = None, **options) -> bytes:
    stream = io.BytesIO()
    picture = Image.fromarray(image.squeeze())
    exif = picture.getexif()
    if orientation:
        exif[0x112] = orientation
    picture.save(stream, "JPEG", quality=95, exif=exif, **options)
    return stream.getvalue()


def png(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", image[:, :, ::-1])[1].tobytes()


def difference(first: np.ndarray, second: np.ndarray) -> float:
    """Mean absolute difference in grey levels."""
    assert first.shape == second.shape
    return float(np.abs(first.astype(int) - second.astype(int)).mean())


# Headers


@pytest.mark.parametrize("orientation", [None, 1, 3, 6, 8])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"comment": b"\xff\xc0 no frame"}], ids=str)
def test_a_header_has_the_size_of_the_decoded_image(orientation: int | None, options: dict) -> None:
    encoded = jpeg(photo(37, 61), orientation, **options)
    header = read_header(encoded)
    assert header == Header(*decode(encoded, None, "").shape)
    assert header == Header(*((61, 37) if orientation in (6, 8) else (37, 61)), 3)


def test_what_is_no_jpeg_or_is_cut_has_no_header() -> None:
    whole = jpeg(photo(37, 61), 6)
    assert read_header(png(photo(8, 8))) is None
    frame = whole.index(b"\xff\xc0")
    assert all(read_header(whole[:length]) is None for length in range(frame + 9))
    assert read_header(b"") is None


@pytest.mark.parametrize("orientation", [None, 6, 3])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("factor", [2, 4, 8])
def test_reduced_decoding_is_the_mean_over_squares(factor: int, channels: int, orientation: int | None) -> None:
    encoded = jpeg(photo(160, 240, channels), orientation)
    whole, header = decode(encoded, None, ""), read_header(encoded)
    assert header is not None
    reduced = decode_reduced(encoded, header, factor)
    assert reduced is not None
    h, w = reduced.shape[:2]
    means = whole.reshape(h, factor, w, factor, channels).mean((1, 3))
    assert difference(reduced, means) < 1.5


def test_a_cmyk_jpeg_is_decoded_whole() -> None:
    stream = io.BytesIO()
    Image.fromarray(photo(64, 64)).convert("CMYK").save(stream, "JPEG")
    header = read_header(stream.getvalue())
    assert header is not None
    assert decode_reduced(stream.getvalue(), header, 2) is None
    assert CentreCrop((8, 8, 3))(stream.getvalue(), 0, "").shape == (8, 8, 3)


# Centre crops


@pytest.mark.parametrize("orientation", [None, 6])
@pytest.mark.parametrize("size", [(960, 1280), (300, 200), (50, 70)])
def test_a_centre_crop_is_that_of_the_whole_image(size: tuple[int, int], orientation: int | None) -> None:
    encoded = jpeg(photo(*size), orientation)
    whole = resize_and_centre_crop(decode(encoded, None, ""), 56, 56, 0.875)
    reduced = CentreCrop((56, 56, 3), 0.875)(encoded, 0, "")
    assert difference(whole, reduced) < 1.5
    if min(size) < 2 * 64:  # nothing to reduce: the same pixels as the other loaders'
        np.testing.assert_array_equal(whole, reduced)


def test_a_centre_crop_is_close_to_torchvisions_by_pil() -> None:
    image = photo(375, 500)
    picture = Image.fromarray(image).resize((341, 256), Image.Resampling.BILINEAR)
    left, top = (341 - 224) // 2, (256 - 224) // 2
    expected = np.asarray(picture.crop((left, top, left + 224, top + 224)))
    assert difference(CentreCrop((224, 224, 3), 0.875)(png(image), 0, ""), expected) < 2


# Random resized crops


def box_in(transform: RandomResizedCrop, height: int, width: int, position: int) -> host_crop.Box:
    return transform._box(height, width, host_crop._draws(transform.seed, position))


def test_parameters_are_those_of_the_paper() -> None:
    crop = RandomResizedCrop((8, 8, 3), seed=1)
    boxes = np.array([box_in(crop, 300, 400, position) for position in range(4000)])
    top, left, h, w = boxes.T
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + h <= 300).all()
    assert (left + w <= 400).all()
    share, ratio = h * w / (300 * 400), np.log(w / h)
    assert share.min() == pytest.approx(0.08, abs=0.01)
    assert np.abs(ratio).max() <= math.log(4 / 3) + 0.02
    small = share < 0.4  # those always fit, so their distributions are not cut
    assert np.histogram(share[small], 4, (0.08, 0.4))[0] / small.sum() == pytest.approx(0.25, abs=0.04)
    assert np.histogram(ratio[small], 4, (math.log(3 / 4), math.log(4 / 3)))[0] / small.sum() == pytest.approx(
        0.25, abs=0.04
    )
    places = (top / np.maximum(300 - h, 1))[small]
    assert np.histogram(places, 4, (0, 1))[0] / small.sum() == pytest.approx(0.25, abs=0.04)


def test_a_part_that_never_fits_is_the_middle() -> None:
    crop = RandomResizedCrop((8, 8, 3), seed=1, area=(1.0, 1.0))
    assert box_in(crop, 100, 1000, 0) == (0, 433, 100, 133)
    assert box_in(crop, 1000, 100, 0) == (433, 0, 133, 100)


def test_a_crop_is_a_function_of_seed_and_position() -> None:
    encoded = jpeg(photo(60, 80))
    crop = RandomResizedCrop((16, 16, 3), seed=1)
    first = crop(encoded, 5, "")
    crop(encoded, 6, "")
    np.testing.assert_array_equal(first, crop(encoded, 5, ""))
    assert box_in(crop, 60, 80, 5) != box_in(crop, 60, 80, 6)
    assert box_in(crop, 60, 80, 5) != box_in(RandomResizedCrop((16, 16, 3), seed=2), 60, 80, 5)
    assert box_in(crop, 60, 80, 2**40) != box_in(crop, 60, 80, 0)


@pytest.mark.parametrize("orientation", [None, 6])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_random_crop_is_that_of_the_whole_image(channels: int, orientation: int | None) -> None:
    encoded = jpeg(photo(720, 960, channels), orientation)
    whole = decode(encoded, None, "")
    crop = RandomResizedCrop((32, 32, channels), seed=0)
    for position in range(12):
        box = np.array(box_in(crop, *whole.shape[:2], position))
        factor = max(factor for factor in (1, 2, 4, 8) if min(box[2:]) // factor >= 32)
        top, left, h, w = box // factor * factor  # whole pixels of the reduced image
        part = whole[top : top + h, left : left + w]
        expected = cv2.resize(part, (32, 32), interpolation=cv2.INTER_AREA).reshape(32, 32, channels)
        assert difference(crop(encoded, position, ""), expected) < 4  # bilinear is sharper than the mean


def test_a_random_crop_is_close_to_torchvisions_by_pil() -> None:
    image = photo(375, 500)
    crop = RandomResizedCrop((224, 224, 3), seed=0)
    for position in range(6):
        top, left, h, w = box_in(crop, 375, 500, position)
        picture = Image.fromarray(image).crop((left, top, left + w, top + h))
        expected = np.asarray(picture.resize((224, 224), Image.Resampling.BILINEAR))
        assert difference(crop(png(image), position, ""), expected) < 3


def test_nothing_is_reduced_below_the_size_of_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    factors = []
    monkeypatch.setattr(host_crop, "decode_reduced", lambda *a: factors.append(a[2]) or decode_reduced(*a))
    encoded = jpeg(photo(256, 512))
    for size, expected in ((32, [8]), (33, [4]), (64, [4]), (128, [2]), (129, [])):
        factors.clear()
        RandomResizedCrop((size, size, 3), 0, (1.0, 1.0), (2.0, 2.0))(encoded, 0, "")
        assert factors == expected, size


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("make", [CentreCrop, lambda shape: RandomResizedCrop(shape, 0)], ids=["centre", "random"])
def test_arrays_pngs_and_both_kinds_of_colour_are_taken(make, channels: int) -> None:
    transform = make((16, 16, channels))
    for image in (photo(40, 30, 1), photo(40, 30, 3), png(photo(40, 30)), jpeg(photo(40, 30, 1)), photo(1, 1)):
        made = transform(image, 0, "")
        assert made.shape == (16, 16, channels)
        assert made.dtype == np.uint8


def test_an_array_is_cropped_as_its_png() -> None:
    image = photo(40, 30)
    crop = RandomResizedCrop((16, 16, 3), 0)
    np.testing.assert_array_equal(crop(image, 3, ""), crop(png(image), 3, ""))


@pytest.mark.parametrize("transform", [CentreCrop((8, 8, 3)), RandomResizedCrop((8, 8, 3), 0)], ids=str)
def test_an_unreadable_image_is_named(transform) -> None:
    for encoded in (b"", b"text", jpeg(photo(64, 64))[:80], b"\xff\xd8\xff\xc0\0\x11\x08\1\0\1\0\3"):
        with pytest.raises(InputError, match=r"^shop/3\.jpg: "):
            transform(encoded, 0, "shop/3.jpg")
