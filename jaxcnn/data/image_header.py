"""What the first bytes of an image file say, and whether its end is there: told apart before anything decodes it.

OpenCV tells of a broken file by a line on standard error, if at all: before 4.11 half of a JPEG is returned as an image
whose rest is grey. So files are checked here, at the cost of a few microseconds, and the reasons are ours.
"""

import struct
import zlib
from dataclasses import dataclass
from typing import Literal

MAX_PIXELS = 2**27
"""Pixels of the largest image that is decoded: 400 MB as RGB. A few kilobytes can claim more."""

Kind = Literal["JPEG", "PNG", "WebP", "GIF", "BMP", "TIFF"]


class Unreadable(ValueError):
    """The reason why bytes are not a readable image."""


@dataclass(frozen=True)
class Header:
    """What is known of an image before it is decoded; height and width are before the EXIF turn, 0 if not known."""

    kind: Kind
    height: int = 0
    width: int = 0
    bits: int = 8
    alpha: bool = False
    animated: bool = False
    cmyk: bool = False

    @property
    def oddity(self) -> str:
        """What about it asks for a decision, and which was taken; "" for an image of the usual kind."""
        told = {
            "CMYK, converted to RGB": self.cmyk,
            f"{self.bits} bits a channel, the upper 8 are used": self.bits > 8,
            "transparency, put on white": self.alpha,
            "animated, the first frame is used": self.animated,
            f"{self.height}x{self.width} pixels": 0 < self.height * self.width < 16,
        }
        return "; ".join(text for text, applies in told.items() if applies)


def read_header(encoded: bytes) -> Header:
    """Returns what the header of an encoded image says.

    Raises:
      Unreadable: it is empty, no image, cut off, or larger than MAX_PIXELS.
    """
    if not encoded:
        raise Unreadable("empty file")
    reader = next((reader for magic, reader in _READERS if encoded.startswith(magic)), None)
    if reader is None:
        raise Unreadable("a text file" if _is_text(encoded[:256]) else "not a JPEG, PNG, WebP, BMP, GIF or TIFF")
    try:
        header = reader(encoded)
    except (struct.error, IndexError):
        raise Unreadable("truncated") from None
    check_size(header.height, header.width)
    return header


def check_size(height: int, width: int) -> None:
    """Raises Unreadable for an image of more than MAX_PIXELS."""
    if height * width > MAX_PIXELS:
        raise Unreadable(f"{height} x {width} pixels, at most {MAX_PIXELS:,} are read")


def _is_text(start: bytes) -> bool:
    return all(byte >= 32 or byte in b"\t\n\r\f" for byte in start)


def _jpeg(encoded: bytes) -> Header:
    """Walks the segments to the first scan; the end marker must come after it (EXIF thumbnails have one before)."""
    at, header = 2, None
    while True:
        marker, size = encoded[at + 1], int.from_bytes(encoded[at + 2 : at + 4], "big")
        if encoded[at] != 0xFF:
            raise Unreadable("damaged JPEG")
        if marker == 0xFF:  # fill bytes are allowed before a marker
            at += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            bits, height, width, components = struct.unpack_from(">BHHB", encoded, at + 4)
            header = Header("JPEG", height, width, bits=bits, cmyk=components == 4)
        if marker == 0xDA:
            break
        at += 2 + size
    if header is None:
        raise Unreadable("damaged JPEG")
    if encoded.find(b"\xff\xd9", at) < 0:
        raise Unreadable("truncated JPEG")
    return header


def _png(encoded: bytes) -> Header:
    """Walks the chunks to the last with their checksums, which is quicker than what libpng would say of them."""
    width, height, bits, colour = struct.unpack_from(">IIBB", encoded, 16)
    at, kind, alpha, animated = 8, b"", colour in (4, 6), False
    view = memoryview(encoded)
    while kind != b"IEND":
        size, kind = struct.unpack_from(">I4s", encoded, at)
        end = at + 8 + size
        if end + 4 > len(encoded):
            raise Unreadable("truncated PNG")
        if zlib.crc32(view[at + 4 : end]) != struct.unpack_from(">I", encoded, end)[0]:
            raise Unreadable("damaged PNG: checksum")
        alpha, animated = alpha or kind == b"tRNS", animated or kind == b"acTL"
        at = end + 4
    if not width or not height:
        raise Unreadable(f"{height} x {width} pixels")
    return Header("PNG", height, width, bits=bits if bits == 16 else 8, alpha=alpha, animated=animated)


def _webp(encoded: bytes) -> Header:
    if encoded[8:12] != b"WEBP":
        raise Unreadable("not a JPEG, PNG, WebP, BMP, GIF or TIFF")
    if len(encoded) < 8 + struct.unpack_from("<I", encoded, 4)[0]:
        raise Unreadable("truncated WebP")
    if encoded[12:16] == b"VP8X":
        flags = encoded[20]
        width, height = (int.from_bytes(encoded[at : at + 3], "little") + 1 for at in (24, 27))
        return Header("WebP", height, width, alpha=bool(flags & 0x10), animated=bool(flags & 0x02))
    if encoded[12:16] == b"VP8L":
        packed = struct.unpack_from("<I", encoded, 21)[0]
        return Header("WebP", (packed >> 14 & 0x3FFF) + 1, (packed & 0x3FFF) + 1, alpha=bool(packed >> 28 & 1))
    width, height = struct.unpack_from("<HH", encoded, 26)
    return Header("WebP", height & 0x3FFF, width & 0x3FFF)


def _gif(encoded: bytes) -> Header:
    """Walks the blocks, to count frames; the colours and the transparency of a frame are left to the decoder."""
    width, height, flags = struct.unpack_from("<HHB", encoded, 6)
    at, frames = 13 + _palette(flags), 0
    while at < len(encoded) and encoded[at] != 0x3B and frames < 2:
        if encoded[at] == 0x2C:
            frames += 1
            at += 11 + _palette(encoded[at + 9])
        else:
            at += 2
        while at < len(encoded) and encoded[at]:
            at += 1 + encoded[at]
        at += 1
    return Header("GIF", height, width, animated=frames > 1)


def _palette(flags: int) -> int:
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0


def _bmp(encoded: bytes) -> Header:
    width, height = struct.unpack_from("<ii", encoded, 18)
    return Header("BMP", abs(height), abs(width))


def _tiff(encoded: bytes) -> Header:
    return Header("TIFF")


_READERS = (
    (b"\xff\xd8", _jpeg),
    (b"\x89PNG\r\n\x1a\n", _png),
    (b"RIFF", _webp),
    (b"GIF8", _gif),
    (b"BM", _bmp),
    (b"II*\0", _tiff),
    (b"MM\0*", _tiff),
)
