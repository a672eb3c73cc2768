"""Random changes to training images, on the device: pure functions of a key and a batch."""

from jaxcnn.augment.pipeline import make_augment

__all__ = ["make_augment"]
