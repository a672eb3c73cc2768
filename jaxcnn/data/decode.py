"""Images of any size to uint8 of a fixed shape, and image files to arrays."""

from pathlib import Path

import cv2
import numpy as np

from jaxcnn.errors import InputError

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff"})


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

    Args:
      encoded: the bytes of a file.
      channels: 1 or 3; none: as stored, without an alpha channel.
      where: what to call the image in a message.

    Raises:
      InputError: it is no image, or one that cannot be read.
    """
    flag = {None: cv2.IMREAD_ANYCOLOR, 1: cv2.IMREAD_GRAYSCALE, 3: cv2.IMREAD_COLOR}[channels]
    try:
        image = cv2.imdecode(np.frombuffer(encoded, np.uint8), flag) if encoded else None
    except cv2.error:
        image = None
    if image is None:
        raise InputError(f"{where}: not a readable image")
    return image[:, :, None] if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def resize_and_centre_crop(image: np.ndarray, height: int, width: int, crop_share: float = 1.0) -> np.ndarray:
    """Returns uint8 [height, width, C]: the centre of the image resized to cover that size.

    The aspect ratio is kept. Shrinking averages over areas, enlarging is bilinear; an image of that size is returned
    as it is. With a `crop_share` below 1 the image is resized to cover (height, width) / crop_share, so that the crop
    leaves more of its border out.
    """
    h, w, channels = image.shape
    if (h, w) == (height, width) and crop_share == 1:
        return image
    scale = max(height / h, width / w) / crop_share
    size = (max(width, round(w * scale)), max(height, round(h * scale)))
    image = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    image = image.reshape(size[1], size[0], channels)  # cv2 drops a single channel
    top, left = (size[1] - height) // 2, (size[0] - width) // 2
    return image[top : top + height, left : left + width]


def convert_channels(image: np.ndarray, channels: int) -> np.ndarray:
    """Returns [H, W, channels]: grey repeated to RGB, or RGB weighted to grey (ITU-R BT.601)."""
    if image.shape[-1] == channels:
        return image
    if channels == 3 and image.shape[-1] == 1:
        return np.repeat(image, 3, axis=-1)
    if channels == 1 and image.shape[-1] == 3:
        return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[:, :, None]
    raise InputError(f"an image with {image.shape[-1]} channels cannot be made one with {channels}")
