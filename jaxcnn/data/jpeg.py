"""JPEG files at a part of their size: read from fewer coefficients, so faster than decoded and shrunk."""

import struct
from dataclasses import dataclass

import cv2
import numpy as np

_REDUCED = {
    (2, 3): cv2.IMREAD_REDUCED_COLOR_2,
    (4, 3): cv2.IMREAD_REDUCED_COLOR_4,
    (8, 3): cv2.IMREAD_REDUCED_COLOR_8,
    (2, 1): cv2.IMREAD_REDUCED_GRAYSCALE_2,
    (4, 1): cv2.IMREAD_REDUCED_GRAYSCALE_4,
    (8, 1): cv2.IMREAD_REDUCED_GRAYSCALE_8,
}
FACTORS = (8, 4, 2)
"""By how much a JPEG can be reduced while it is decoded."""

_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # start of frame; the three are tables and a reserve
_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})  # markers without a length
_ORIENTATION = 0x0112


@dataclass(frozen=True)
class Header:
    """Size of a JPEG as it is meant to be seen, so after the turn that its EXIF orientation asks for."""

    height: int
    width: int
    components: int


def read_header(encoded: bytes) -> Header | None:
    """Returns the header; none if this is no JPEG, or one whose header cannot be followed."""
    if encoded[:2] != b"\xff\xd8":
        return None
    turned, at = False, 2
    try:
        while encoded[at] == 0xFF:
            marker = encoded[at + 1]
            if marker == 0xFF or marker in _ALONE:  # a fill byte, or nothing follows
                at += 1 if marker == 0xFF else 2
                continue
            (length,) = struct.unpack_from(">H", encoded, at + 2)
            if marker in _FRAMES:
                height, width, components = struct.unpack_from(">HHB", encoded, at + 5)
                return Header(*((width, height) if turned else (height, width)), components)
            if marker == 0xE1 and encoded[at + 4 : at + 10] == b"Exif\0\0":
                turned = _orientation(encoded[at + 10 : at + 2 + length]) >= 5
            at += 2 + length
    except (IndexError, struct.error):
        pass
    return None


def _orientation(tiff: bytes) -> int:
    """The orientation in a block of EXIF data: 1 is upright, 5 to 8 exchange the sides."""
    order = "<" if tiff[:2] == b"II" else ">"
    (first,) = struct.unpack_from(f"{order}I", tiff, 4)
    (entries,) = struct.unpack_from(f"{order}H", tiff, first)
    for entry in range(first + 2, first + 2 + 12 * entries, 12):
        tag, _, _, value = struct.unpack_from(f"{order}HHIH", tiff, entry)
        if tag == _ORIENTATION:
            return value
    return 1


def decode_reduced(encoded: bytes, header: Header, factor: int) -> np.ndarray | None:
    """Returns uint8 [ceil(H / factor), ceil(W / factor), C], RGB or grey, turned as its EXIF orientation says.

    None where the decoder does not do that for this file: decode it whole then.
    """
    flag = _REDUCED.get((factor, header.components))
    try:
        image = None if flag is None else cv2.imdecode(np.frombuffer(encoded, np.uint8), flag)
    except cv2.error:
        return None
    if image is None or image.shape[:2] != (-(-header.height // factor), -(-header.width // factor)):
        return None
    return image[:, :, None] if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
