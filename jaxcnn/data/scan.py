from dataclasses import dataclass


@dataclass
class Scan:
    mean: tuple
    std: tuple
    unreadable: dict


def scan(source, image_shape, crop_share, *, cache_dir):
    from jaxcnn.data.loader import read_arrays
    from jaxcnn.data.statistics import channel_statistics

    return Scan(*channel_statistics(read_arrays(source, image_shape, crop_share).images), {})
