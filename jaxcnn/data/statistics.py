"""Mean and standard deviation of each channel."""

import numpy as np

_CHUNK = 4096


def channel_statistics(images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns (mean, std) of each channel in units of 0..1, over all pixels of images uint8 [N, H, W, C].

    Exact: sums of pixels and of their squares are integers. A constant channel has std 1, so that it stays finite.
    """
    channels = images.shape[-1]
    total = np.zeros(channels, np.int64)
    squares = np.zeros(channels, np.int64)
    for first in range(0, len(images), _CHUNK):
        # 256 counts a channel hold all there is to know about the sums.
        chunk = images[first : first + _CHUNK].reshape(-1, channels)
        for channel in range(channels):
            counts = np.bincount(chunk[:, channel], minlength=256)
            total[channel] += int(counts @ np.arange(256))
            squares[channel] += int(counts @ np.arange(256) ** 2)
    count = images.size // channels
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0.0))
    std = np.where(std > 0, std, 255.0)
    return tuple((mean / 255).tolist()), tuple((std / 255).tolist())
