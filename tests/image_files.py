"""Image files of every kind, made by PIL and cv2: what a folder of real data may hold."""

import io

import cv2
import numpy as np
from PIL import Image

SHAPE = (40, 60)


def pixels() -> np.ndarray:
    """A smooth colour image uint8 [40, 60, 3] that uses the whole range."""
    noise = np.random.default_rng(0).integers(0, 256, (*SHAPE, 3), np.uint8)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 4), None, 0, 255, cv2.NORM_MINMAX)


def deep_pixels() -> np.ndarray:
    """A ramp uint16 [40, 60] over the range of 16 bits."""
    return (np.arange(2400).reshape(SHAPE) * 27).astype(np.uint16)


def saved(image: Image.Image, form: str, **options: object) -> bytes:
    """The bytes of a file in the given format."""
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def kinds() -> dict[str, bytes]:
    """Encoded images by kind; those with "exif" are stored turned."""
    image = Image.fromarray(pixels())
    turned = Image.Exif()
    turned[0x112] = 6
    grey, palette = image.convert("L"), image.quantize(16)
    mask = Image.fromarray(np.random.default_rng(1).integers(0, 256, SHAPE, np.uint8))
    alpha, grey_alpha = image.copy(), grey.convert("LA")
    alpha.putalpha(mask)
    grey_alpha.putalpha(mask)
    more = {"save_all": True, "append_images": [Image.fromarray(255 - pixels())]}
    return {
        "jpeg": saved(image, "JPEG"),
        "jpeg progressive": saved(image, "JPEG", progressive=True),
        "jpeg grey": saved(grey, "JPEG"),
        "jpeg exif": saved(image, "JPEG", exif=turned),
        "jpeg grey exif": saved(grey, "JPEG", exif=turned),
        "jpeg cmyk": saved(image.convert("CMYK"), "JPEG", quality=95),
        "png": saved(image, "PNG"),
        "png grey": saved(grey, "PNG"),
        "png 1 bit": saved(image.convert("1"), "PNG"),
        "png palette": saved(palette, "PNG"),
        "png palette transparent": saved(alpha.quantize(16), "PNG"),
        "png alpha": saved(alpha, "PNG"),
        "png alpha exif": saved(alpha, "PNG", exif=turned),
        "png grey alpha": saved(grey_alpha, "PNG"),
        "png exif": saved(image, "PNG", exif=turned),
        "png colour key": saved(grey, "PNG", transparency=100),
        "png animated": saved(image, "PNG", **more),
        "gif": saved(palette, "GIF"),
        "gif animated": saved(image, "GIF", **more),
        "webp": saved(image, "WEBP", lossless=True),
        "webp lossy": saved(image, "WEBP"),
        "webp exif": saved(image, "WEBP", lossless=True, exif=turned),
        "webp alpha": saved(alpha, "WEBP", lossless=True, exact=True),
        "webp animated": saved(image, "WEBP", lossless=True, **more),
        "bmp": saved(image, "BMP"),
        "bmp palette": saved(palette, "BMP"),
        "bmp grey": saved(grey, "BMP"),
        "tiff": saved(image, "TIFF"),
        "tiff alpha": saved(alpha, "TIFF"),
        "tiff cmyk": saved(image.convert("CMYK"), "TIFF"),
    }
