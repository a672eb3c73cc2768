"""What a data set says of itself without being read: the shape of its images and the number of its classes."""

from jaxcnn.config import DataConfig
from jaxcnn.data import loader
from jaxcnn.data.sources import open_splits
from jaxcnn.data.tfds_source import feature_keys, find_builder


def image_shape_and_classes(config: DataConfig) -> tuple[tuple[int, int, int], tuple[str, ...]]:
    """Returns ([H, W, C] of the network's input, the class names) for the data of a config.

    Of a TFDS data set from its description, which comes with TFDS: the data need not be there. Of others the files
    are listed, and an image is read where sizes differ.

    Raises:
      InputError: no such data, or images of different sizes with no `data.image_size`.
    """
    if config.source == "tfds":
        builder = find_builder(config)
        image, label = feature_keys(builder)
        shape = builder.info.features[image].shape
        names = tuple(builder.info.features[label].names)
        chosen = config.classes or names
        if None not in shape[:2] or config.image_size is not None:
            side = config.image_size
            height, width = (side, side) if side is not None else shape[:2]
            return (height, width, config.channels or shape[2] or 3), chosen
    splits = open_splits(config)
    return loader.input_shape(splits.train, config.image_size, config.channels), splits.train.class_names
