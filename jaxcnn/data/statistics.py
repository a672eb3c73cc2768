"""Mean and standard deviation of each channel."""

import numpy as np

_CHUNK = 4096


class ChannelSums:
    """Sums over pixels a channel, from which mean and deviation follow. Exact: they are integers."""

    def __init__(self, channels: int) -> None:
        self.count = 0
        self.total = np.zeros(channels, np.int64)
        self.squares = np.zeros(channels, np.int64)

    def add(self, images: np.ndarray) -> None:
        """Adds the pixels of images uint8 [..., C]."""
        pixels = images.reshape(-1, images.shape[-1])
        self.count += len(pixels)
        for channel in range(pixels.shape[1]):
            # 256 counts a channel hold all there is to know about the sums.
            counts = np.bincount(pixels[:, channel], minlength=256)
            self.total[channel] += int(counts @ np.arange(256))
            self.squares[channel] += int(counts @ np.arange(256) ** 2)

    def merge(self, other: "ChannelSums") -> None:
        """Adds what another has summed."""
        self.count += other.count
        self.total += other.total
        self.squares += other.squares

    def mean_and_std(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Returns (mean, std) in units of 0..1. A constant channel has std 1, so that it stays finite."""
        mean = self.total / max(self.count, 1)
        std = np.sqrt(np.maximum(self.squares / max(self.count, 1) - mean**2, 0.0))
        std = np.where(std > 0, std, 255.0)
        return tuple((mean / 255).tolist()), tuple((std / 255).tolist())


def channel_statistics(images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns (mean, std) of each channel in units of 0..1, over all pixels of images uint8 [N, H, W, C]."""
    sums = ChannelSums(images.shape[-1])
    for first in range(0, len(images), _CHUNK):
        sums.add(images[first : first + _CHUNK])
    return sums.mean_and_std()
