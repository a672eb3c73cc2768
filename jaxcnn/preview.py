"""What training sees: the same images as they are and in several augmented draws, with labels."""

import itertools
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn.augment.pipeline import make_augment
from jaxcnn.config import Preprocessing, TrainConfig
from jaxcnn.data import loader
from jaxcnn.data.decode import UnreadableImage
from jaxcnn.data.source import Source
from jaxcnn.data.sources import open_splits
from jaxcnn.data.statistics import channel_statistics
from jaxcnn.errors import InputError
from jaxcnn.inputs import choose_loader, crops_on_host, training_images, training_transform
from jaxcnn.sheets import draw_grid

_TILE_PX = 112


@dataclass(frozen=True)
class Preview:
    """Images and labels of a preview.

    Attributes:
      originals: uint8 [N, h, w, C], resized and centre-cropped as for evaluation.
      draws: uint8 [M, N, h, w, C], augmented, clipped to 0..255.
      labels: names of the classes of the originals.
      captions: [M][N]: "" or, where another image is mixed in, both classes with their shares.
    """

    originals: np.ndarray
    draws: np.ndarray
    labels: list[str]
    captions: list[list[str]]


def preview(config: TrainConfig, num_images: int, num_draws: int) -> Preview:
    """Returns draws of a config's augmentation for images of its training split, chosen by its seed.

    Raises:
      InputError: the data or the augmentation of the config are not right.
    """
    source = open_splits(config.data).train
    shape = loader.input_shape(source, config.data.image_size, config.data.channels)
    inputs = Preprocessing(shape, (0.0,) * shape[2], (1.0,) * shape[2], crop_share=config.data.crop_share)
    stored, share = training_images(config, inputs)
    kind = choose_loader(config.data, loader.gib_of(source, stored))
    chosen = source.subset(_places(config, source, num_images))
    count = chosen.num_examples
    originals = np.asarray(loader.read_arrays(chosen, shape, config.data.crop_share).images)
    mean, std = channel_statistics(originals)
    on_host = crops_on_host(config, kind)
    augment = jax.jit(make_augment(config.augment, mean, std, shape, skip_crop=on_host))
    names = [source.class_names[label] for label in chosen.labels]
    draws, captions = [], []
    for draw in range(num_draws):
        if on_host:
            images = _cropped_on_host(config, inputs, chosen, draw)
        else:
            images = np.asarray(loader.read_arrays(chosen, stored, share).images)
        augmented, mix = augment(jax.random.fold_in(jax.random.key(config.seed), draw), jnp.asarray(images))
        pixels = np.asarray(augmented) * (255 * np.array(std)) + 255 * np.array(mean)
        draws.append(np.clip(np.round(pixels), 0, 255).astype(np.uint8))
        captions.append([""] * count if mix is None else _mixed(names, np.asarray(mix.partner), np.asarray(mix.share)))
    return Preview(originals, np.array(draws), names, captions)


def _places(config: TrainConfig, source: Source, count: int) -> np.ndarray:
    """So many places at random; of images that can be read, where the others are to be left out."""
    places = np.random.default_rng(config.seed).permutation(source.num_examples)
    if config.data.unreadable == "refuse":
        return places[:count]
    readable = (place for place in places.tolist() if _is_readable(source, place))
    found = np.array(list(itertools.islice(readable, count)), np.int64)
    if not found.size:
        raise InputError(f"{source.name}: none of its {source.num_examples:,} images can be read")
    return found


def _is_readable(source: Source, place: int) -> bool:
    try:
        source.read([place])
    except UnreadableImage:
        return False
    return True


def _cropped_on_host(config: TrainConfig, inputs: Preprocessing, source: Source, draw: int) -> np.ndarray:
    """The images of a draw as a loader on the host makes them."""
    transform = training_transform(config, inputs)
    records = source.records.read(range(source.num_examples))
    first = draw * source.num_examples
    return np.stack([transform(image, first + at, source.records.where(at)) for at, (image, _) in enumerate(records)])


def _mixed(names: list[str], partners: np.ndarray, shares: np.ndarray) -> list[str]:
    return [
        "" if share >= 1 else f"{100 * share:.0f} % {own}\n{100 * (1 - share):.0f} % {names[partner]}"
        for own, partner, share in zip(names, partners, shares.tolist(), strict=True)
    ]


def draw_preview(found: Preview, path: Path, title: str) -> None:
    """Draws a row for each image: itself, then its draws."""
    rows = [[original, *found.draws[:, at]] for at, original in enumerate(found.originals)]
    captions = [["", *(draw[at] for draw in found.captions)] for at in range(len(rows))]
    columns = ["original", *(f"draw {number}" for number in range(1, len(found.draws) + 1))]
    draw_grid(rows, found.labels, columns, path, title, _TILE_PX, captions)
