"""Data: sources of images and labels, decoding, order and batches. The only package that imports TFDS."""
