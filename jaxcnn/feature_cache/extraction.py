"""The passes through the frozen part: one a split, and one a view of the training split."""

import dataclasses
import logging
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxcnn import mesh as meshes
from jaxcnn import processes
from jaxcnn.augment.pipeline import make_augment
from jaxcnn.config import TrainConfig
from jaxcnn.data.feed import Batches
from jaxcnn.data.host_crop import CentreCrop, RandomResizedCrop
from jaxcnn.data.loader import Arrays
from jaxcnn.data.source import Source
from jaxcnn.errors import InputError
from jaxcnn.feature_cache.files import FeatureFile
from jaxcnn.feature_cache.keys import content_digest, frozen_digest, pass_key
from jaxcnn.inputs import Inputs, crops_on_host, host_batches, training_transform
from jaxcnn.models.classifier import output_at
from jaxcnn.network import Network
from jaxcnn.runtime import compiler_options, data_cache_folder

LOG = logging.getLogger("jaxcnn")
_TELL_EVERY_S = 30.0
_STALE_AFTER_S = 6 * 3600.0  # since the last write to a file that is not finished
_VIEWS = 0x71E35  # keeps the random numbers of views apart from those of steps


@dataclass(frozen=True)
class Pass:
    """One split, once through the frozen part.

    Attributes:
      name: for messages.
      split: the images, by their places.
      view: number of the view; none: as evaluation sees them.
      file: where the features are, or go.
    """

    name: str
    split: Batches
    view: int | None
    file: FeatureFile


@dataclass(frozen=True)
class Extraction:
    """All passes of a run, at one point of one network with given variables.

    Attributes:
      config: the run.
      inputs: its data.
      network: its network.
      variables: {"params", "batch_stats"}; what comes after the point is not looked at.
      point: where the features are taken; see `points.point_of`.
      mesh: the devices, over which each batch is divided.
    """

    config: TrainConfig
    inputs: Inputs
    network: Network
    variables: dict[str, Any]
    point: str
    mesh: Mesh

    def run(self) -> dict[str, list[np.ndarray]]:
        """Returns the features of each split, memory-mapped: those of "train" in each view, in one of the others.

        What is on disk already is not computed again; what is there at an earlier point is gone on from.

        Raises:
          InputError: the folder cannot be written, or the disk is too small; or a split has no fingerprint.
        """
        passes = self.passes()
        found = [one.file.read() for one in passes]
        missing = [one for one, features in zip(passes, found, strict=True) if features is None]
        if missing and processes.count() > 1:
            names = ", ".join(one.name for one in missing)
            raise InputError(
                f"features.cache: with several processes kept features are read, not computed ({names} to compute): "
                "start the run once on one process, which may be interrupted after that"
            )
        gib = sum(one.file.gib for one in passes)
        told = f"{', '.join(one.name for one in missing)} to compute" if missing else "all found ready"
        LOG.info(f"features: {gib:.2g} GiB at {self.point!r} in {self._folder}: {told}")
        try:
            self._check_room(sum(one.file.gib for one in missing))
            compute = self._compute(missing)
            kept = [
                one.file.write(compute(one), self._notes(one)) if features is None else features
                for one, features in zip(passes, found, strict=True)
            ]
        except OSError as error:
            place = data_cache_folder(self.config.data.cache_dir)
            raise InputError(f"data.cache_dir={place}: {error.strerror or error}; choose another folder") from None
        train = kept[: self.config.features.views]
        return {
            "train": train,
            **{name: [one] for name, one in zip(self.inputs.others, kept[len(train) :], strict=True)},
        }

    def passes(self) -> list[Pass]:
        """Returns those of the training split, by view, then those of the other splits; nothing is computed."""
        digest = frozen_digest(self.network, self.variables, self.point)
        train, views = self.inputs.train, self.config.features.views
        splits: list[tuple[str, Arrays | Source, int | None]] = [("train", train, None)]
        if views > 1:
            splits = [(f"train (view {view + 1} of {views})", train, view) for view in range(views)]
        splits += [(name, split, None) for name, split in self.inputs.others.items()]
        contents = {id(split): content_digest(split) for split in (train, *self.inputs.others.values())}
        shape, dtype = self._feature()
        passes = []
        for name, split, view in splits:
            content, kind = contents[id(split)], self.inputs.kind
            key = pass_key(self.config, self.network, self.point, digest, content, view, kind)
            count = len(split) if isinstance(split, Arrays) else split.num_examples
            file = FeatureFile(self._folder / f"{key}.npy", (count, *shape), dtype)
            passes.append(Pass(name, self._images(split, view), view, file))
        return passes

    @property
    def _folder(self) -> Path:
        return data_cache_folder(self.config.data.cache_dir) / "features"

    def _feature(self) -> tuple[tuple[int, ...], np.dtype]:
        """Shape and type of the features of one image."""
        image = jax.ShapeDtypeStruct((1, *self.network.preprocessing.image_shape), np.float32)
        model, point = self.network.model, self.point
        found = jax.eval_shape(lambda variables, x: output_at(model, variables, x, point), self.network.shapes, image)
        return found.shape[1:], np.dtype(found.dtype)

    def _images(self, split: Arrays | Source, view: int | None) -> Batches:
        """The images of a split; for a view with the crop that the loader draws, if it does."""
        if isinstance(split, Arrays):
            return split
        if view is None:
            return host_batches(split, CentreCrop(*self.network.measured_on))
        transform = training_transform(self.config, self.network.preprocessing)
        if isinstance(transform, RandomResizedCrop):  # a config's seed is below 2^31: no view draws as training does
            transform = dataclasses.replace(transform, seed=self.config.features.seed + ((view + 1) << 32))
        return host_batches(split, transform)

    def _check_room(self, gib: float) -> None:
        """Raises OSError where the disk has no room for what is to be written."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for part in self._folder.glob(".*.npy"):  # of a process that was killed
            if time.time() - part.stat().st_mtime > _STALE_AFTER_S:
                part.unlink(missing_ok=True)
        free = shutil.disk_usage(self._folder).free / 2**30
        if gib > 0.95 * free:
            raise OSError(f"the features need {gib:.1f} GiB and {free:.1f} are free")

    def _notes(self, one: Pass) -> dict[str, Any]:
        return {"model": self.config.model.name, "point": self.point, "split": one.name, "shape": one.file.shape}

    def _compute(self, missing: list[Pass]) -> Callable[[Pass], Iterator[np.ndarray]]:
        """Returns what yields the features of a pass by parts; compiles nothing by itself."""
        if not missing:
            return lambda one: iter(())
        model, point, earlier = self.network.model, self.point, self._earlier({one.name for one in missing})
        variables = meshes.replicate(self.mesh, self.variables)
        # A program of its own, so that it is compiled once, whatever is done to the images.
        forward = jax.jit(
            lambda variables, x, start: output_at(model.clone(start=start), variables, x, point),
            static_argnums=2,
            compiler_options=compiler_options(deterministic=self.config.train.deterministic),
        )
        plain, augmented = jax.jit(self.network.normalise), jax.jit(self._augmented)

        def program(one: Pass, images: jax.Array, batch: int) -> jax.Array:
            if one.name in earlier:
                return forward(variables, images, earlier[one.name][0])
            if one.view is None:
                return forward(variables, plain(images), None)
            return forward(variables, augmented(images, np.int32(one.view), np.int32(batch)), None)

        def parts(one: Pass) -> Iterator[np.ndarray]:
            if one.name in earlier:
                point, features = earlier[one.name]
                LOG.info(f"features: {one.name} goes on from those kept at {point!r}")
                one = dataclasses.replace(one, split=Arrays(features, np.zeros(len(features), np.int32)))
            return self._parts(one, program)

        return parts

    def _earlier(self, names: set[str]) -> dict[str, tuple[str, np.ndarray]]:
        """The latest point before this one at which a pass is kept, and its features, by the name of the pass."""
        found: dict[str, tuple[str, np.ndarray]] = {}
        points = self.network.model.points
        for point in reversed(points[: points.index(self.point)]):
            for one in dataclasses.replace(self, point=point).passes():
                wanted = one.name in names and one.name not in found
                if wanted and (features := one.file.read()) is not None:
                    found[one.name] = point, features
        return found

    def _augmented(self, images: jax.Array, view: jax.Array, batch: jax.Array) -> jax.Array:
        """A batch of a view, uint8 [B, H, W, C], as input of the network, float32 [B, h, w, C].

        The draws follow from features.seed, the number of the view, and an image's batch and place in it.
        """
        config, statistics = self.config, self.network.preprocessing
        on_host = crops_on_host(config, self.inputs.kind)
        augment = make_augment(
            config.augment, statistics.mean, statistics.std, statistics.image_shape, skip_crop=on_host
        )
        key = jax.random.fold_in(jax.random.key(config.features.seed), _VIEWS)
        return augment(jax.random.fold_in(jax.random.fold_in(key, view), batch), images)[0]

    def _parts(self, one: Pass, program: Callable) -> Iterator[np.ndarray]:
        """Yields the features of the examples in order; the device works on a batch while the one before is written."""
        began = told = time.monotonic()
        total, done = len(one.split), 0
        running: tuple[jax.Array, int] | None = None
        for index, (batch, mask) in enumerate(one.split.batches(self.config.evaluation.batch_size)):
            images = meshes.divide(self.mesh, batch.images, self.config.evaluation.batch_size)
            output = program(one, images, index)
            if running is not None:
                yield np.asarray(running[0])[: running[1]]
                done += running[1]
                if (now := time.monotonic()) - told > _TELL_EVERY_S:
                    told = now
                    LOG.info(f"features: {one.name}: {done:,} of {total:,} images, {done / (now - began):.0f} a second")
            running = output, int(mask.sum())
        assert running is not None, f"{one.name} has no examples"
        yield np.asarray(running[0])[: running[1]]
        LOG.info(f"features: {one.name}: {total:,} images in {time.monotonic() - began:.1f} s")
