"""Images of any size to uint8 of a fixed shape, and image files to arrays."""

import io
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from jaxcnn.data.image_header import Header, Unreadable, check_size, read_header
from jaxcnn.errors import InputError

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".jpe", ".bmp", ".webp", ".gif", ".tif", ".tiff"})

cv2.utils.logging.setLogLevel(
    cv2.utils.logging.LOG_LEVEL_SILENT
)  # what OpenCV would print about a file is in our own message


class UnreadableImage(InputError):
    """An image that cannot be read: `where` names it, `reason` says why."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(f"{where}: not a readable image ({reason})")
        self.where, self.reason = where, reason

    def __reduce__(self) -> tuple[type, tuple[str, str]]:  # it comes out of worker processes
        return type(self), (self.where, self.reason)


def read_image(path: Path, channels: int | None = None) -> np.ndarray:
    """Returns an image file as uint8 [H, W, channels], see `decode`.

    Raises:
      InputError: the file is missing, unreadable or no image; the message names it.
    """
    try:
        encoded = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    return decode(encoded, channels, str(path))


def decode(encoded: bytes, channels: int | None, where: str) -> np.ndarray:
    """Returns an encoded image as uint8 [H, W, channels], RGB or grey, turned as its EXIF orientation says.

    Palettes and CMYK become RGB, what is transparent shows white, of 16 bits the upper 8 are used, of several frames
    or pages the first. Of a JPEG damaged between its markers libjpeg makes what it can, as in every program.

    Args:
      encoded: the bytes of a file.
      channels: 1 or 3; none: as stored, grey or RGB.
      where: what to call the image in a message.

    Raises:
      UnreadableImage: it is no image, or one that cannot be read, with the reason.
    """
    try:
        header = read_header(encoded)
        if header.kind in ("GIF", "TIFF") or header.alpha:
            return _decode_with_pil(encoded, channels)
        return _decode_with_cv2(encoded, channels, header)
    except Unreadable as error:
        raise UnreadableImage(where, str(error)) from None


def _decode_with_cv2(encoded: bytes, channels: int | None, header: Header) -> np.ndarray:
    """The fast way, for JPEG, BMP, and PNG and WebP without transparency: the same pixels as PIL's."""
    flag = {None: cv2.IMREAD_ANYCOLOR, 1: cv2.IMREAD_GRAYSCALE, 3: cv2.IMREAD_COLOR}[channels]
    try:
        image = cv2.imdecode(np.frombuffer(encoded, np.uint8), flag)
    except cv2.error:
        image = None
    if image is None:
        raise Unreadable(f"damaged {header.kind}")
    return image[:, :, None] if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _decode_with_pil(encoded: bytes, channels: int | None) -> np.ndarray:
    """The way of the rare kinds, where OpenCV drops transparency, joins EXIF turns to that, or multiplies with it."""
    from PIL import Image, ImageOps

    try:
        image: Any = Image.open(io.BytesIO(encoded))
        check_size(image.height, image.width)
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I;16"):  # PIL would clip at 255
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        elif image.mode in ("I", "F"):
            raise Unreadable("32 bits a channel")
        grey = image.mode in ("1", "L", "LA", "La")
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
        image = np.asarray(image.convert("L" if channels == 1 or (channels is None and grey) else "RGB"))
    except Unreadable:
        raise
    except Exception as error:  # the plugins of PIL raise whatever their parsing meets
        raise Unreadable(f"damaged: {_first_line(error)}") from None
    return image.reshape(*image.shape[:2], -1)


def resize_and_centre_crop(image: np.ndarray, height: int, width: int, crop_share: float = 1.0) -> np.ndarray:
    """Returns uint8 [height, width, C]: the centre of the image resized to cover that size.

    The aspect ratio is kept. Shrinking averages over areas, enlarging is bilinear; an image of that size is returned
    as it is. With a `crop_share` below 1 the image is resized to cover (height, width) / crop_share, so that the crop
    leaves more of its border out.
    """
    image = _without_far_ends(image, height, width)
    h, w, channels = image.shape
    if (h, w) == (height, width) and crop_share == 1:
        return image
    scale = max(height / h, width / w) / crop_share
    size = (max(width, round(w * scale)), max(height, round(h * scale)))
    image = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    image = image.reshape(size[1], size[0], channels)  # cv2 drops a single channel
    top, left = (size[1] - height) // 2, (size[0] - width) // 2
    return image[top : top + height, left : left + width]


def _without_far_ends(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """The middle of an image that is more than 8 times as long as the crop's shape; its ends are no part of any crop.

    Resized whole, a strip of 1x60,000 pixels would take gigabytes.
    """
    h, w = image.shape[:2]
    rows, columns = -(-8 * w * height // width), -(-8 * h * width // height)
    top, left = max(0, (h - rows) // 2), max(0, (w - columns) // 2)
    return image[top : h - top, left : w - left]


def convert_channels(image: np.ndarray, channels: int) -> np.ndarray:
    """Returns [H, W, channels]: grey repeated to RGB, or RGB weighted to grey (ITU-R BT.601)."""
    if image.shape[-1] == channels:
        return image
    if channels == 3 and image.shape[-1] == 1:
        return np.repeat(image, 3, axis=-1)
    if channels == 1 and image.shape[-1] == 3:
        return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[:, :, None]
    raise InputError(f"an image with {image.shape[-1]} channels cannot be made one with {channels}")


def _first_line(error: Exception) -> str:
    """What an error says, without the addresses of objects, which differ from run to run."""
    return re.sub(r" ?<[^>]* object at 0x[0-9a-f]+>", "", (str(error).splitlines() or [type(error).__name__])[0])
