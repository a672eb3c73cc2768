"""A tf.data pipeline: only the crop of each JPEG is decoded, as in TensorFlow's own ImageNet examples."""

from collections.abc import Iterator
from typing import Any

from benchmarks.input_tasks import CROP_SHARE, NUM_CLASSES, InputTask
from jaxcnn.errors import InputError

try:
    import tensorflow as tf
except ModuleNotFoundError:
    raise InputError('tensorflow is not installed: pip install -e ".[tf]"') from None

READY = 4  # batches, as many as the others keep


def batches(task: InputTask) -> Iterator[tuple[Any, Any]]:
    """Returns the batches of the task, without end."""
    paths = task.files()
    labels = [place % NUM_CLASSES for place in range(len(paths))]
    window = _random_window if task.model == "train" else _centre_window

    def decoded(path: Any, label: Any) -> tuple[Any, Any]:
        encoded = tf.io.read_file(path)
        image = tf.image.decode_and_crop_jpeg(encoded, window(tf.image.extract_jpeg_shape(encoded)), channels=3)
        image = tf.image.resize(image, (task.size, task.size))  # bilinear
        return tf.cast(image, tf.uint8), label

    options = tf.data.Options()
    options.threading.private_threadpool_size = task.cores
    dataset = tf.data.Dataset.from_tensor_slices((paths, labels)).shuffle(len(paths)).repeat()
    dataset = dataset.map(decoded, num_parallel_calls=tf.data.AUTOTUNE).batch(task.batch, drop_remainder=True)
    # Tuned, this buffer grows to a whole turn of batches, which are then made while the others are measured.
    return dataset.prefetch(READY).with_options(options).as_numpy_iterator()


def _random_window(shape: Any) -> Any:
    """Top, left, height and width of a random resized crop."""
    begin, size, _ = tf.image.sample_distorted_bounding_box(
        shape,
        tf.zeros((1, 0, 4)),
        min_object_covered=0.0,
        aspect_ratio_range=(3 / 4, 4 / 3),
        area_range=(0.08, 1.0),
        max_attempts=10,
        use_image_if_no_bounding_boxes=True,
    )
    return tf.stack([begin[0], begin[1], size[0], size[1]])


def _centre_window(shape: Any) -> Any:
    """The square in the middle that is 0.875 of the shorter side: what is left of resizing to 256 and cropping 224."""
    side = tf.cast(CROP_SHARE * tf.cast(tf.minimum(shape[0], shape[1]), tf.float32), tf.int32)
    return tf.stack([(shape[0] - side) // 2, (shape[1] - side) // 2, side, side])
