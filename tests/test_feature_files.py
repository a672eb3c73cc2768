"""Files of features: found by all that their numbers follow from, whole or not there."""

import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.config import AugmentConfig, DataConfig, FeaturesConfig, FlipConfig, MixupConfig
from jaxcnn.data.source import Splits
from jaxcnn.errors import InputError
from jaxcnn.feature_cache.extraction import Extraction
from jaxcnn.feature_cache.files import FeatureFile
from jaxcnn.network import Network
from tests.feature_runs import MOVING, Taken, config_of, source, splits, take_apart

BFLOAT16 = np.dtype(jnp.bfloat16)
FEATURES = np.random.default_rng(0).normal(size=(7, 2, 3)).astype(np.float32)


def parts_of(features: np.ndarray, size: int = 3) -> Iterator[np.ndarray]:
    return (features[first : first + size] for first in range(0, len(features), size))


@pytest.mark.parametrize("dtype", [np.dtype(np.float32), BFLOAT16, np.dtype(np.float16)], ids=str)
def test_features_are_read_as_they_were_written(tmp_path, dtype) -> None:
    features = FEATURES.astype(dtype)
    features[0, 0] = (np.nan, np.inf, -0.0)
    file = FeatureFile(tmp_path / "deep" / "key.npy", features.shape, dtype)
    assert file.read() is None
    for found in (file.write(parts_of(features), {"split": "train"}), file.read()):
        assert found is not None
        assert found.dtype == dtype
        assert found[[1, 5]].dtype == dtype
        assert found.tobytes() == features.tobytes()
    assert json.loads((tmp_path / "deep" / "key.json").read_text())["split"] == "train"
    assert {path.name for path in (tmp_path / "deep").iterdir()} == {"key.npy", "key.json"}


def written(tmp_path: Path) -> FeatureFile:
    file = FeatureFile(tmp_path / "key.npy", FEATURES.shape, FEATURES.dtype)
    file.write(parts_of(FEATURES), {})
    return file


def flip_last_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: flip_last_byte(folder / "key.npy"),
        lambda folder: (folder / "key.npy").write_bytes((folder / "key.npy").read_bytes()[:-4]),
        lambda folder: (folder / "key.npy").write_bytes(b""),
        lambda folder: (folder / "key.npy").unlink(),
        lambda folder: (folder / "key.json").unlink(),
        lambda folder: (folder / "key.json").write_text("{"),
        lambda folder: (folder / "key.json").write_text("[]"),
        lambda folder: np.save(folder / "key.npy", FEATURES[1:]),
        lambda folder: np.save(folder / "key.npy", FEATURES.astype(np.float64)),
    ],
)
def test_a_damaged_file_is_as_none_and_can_be_written_anew(tmp_path, damage) -> None:
    file = written(tmp_path)
    damage(tmp_path)
    assert file.read() is None
    np.testing.assert_array_equal(file.write(parts_of(FEATURES), {}), FEATURES)


def test_a_pass_that_breaks_off_leaves_nothing(tmp_path) -> None:
    def broken() -> Iterator[np.ndarray]:
        yield FEATURES[:3]
        raise RuntimeError("the device is gone")

    file = FeatureFile(tmp_path / "key.npy", FEATURES.shape, FEATURES.dtype)
    with pytest.raises(RuntimeError, match="the device is gone"):
        file.write(broken(), {})
    assert list(tmp_path.iterdir()) == []
    assert file.read() is None


def test_a_file_that_was_being_written_when_the_process_died_is_not_used(tmp_path) -> None:
    file = written(tmp_path)
    (tmp_path / "key.npy").rename(tmp_path / ".key.1234.npy")
    assert file.read() is None


def counted(extraction: Extraction, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the passes that the extraction makes, filled as it runs."""
    passes: list[str] = []
    parts = Extraction._parts

    def record(self, one, program):
        passes.append(one.name)
        return parts(self, one, program)

    monkeypatch.setattr(Extraction, "_parts", record)
    return passes


def test_what_is_on_disk_is_not_computed_again(tmp_path, monkeypatch) -> None:
    extraction = take_apart(config_of(tmp_path)).extraction()
    passes = counted(extraction, monkeypatch)
    first = extraction.run()
    assert passes == ["train", "validation"]
    second = take_apart(config_of(tmp_path)).extraction().run()
    assert passes == ["train", "validation"]
    assert first.keys() == second.keys() == {"train", "validation"}
    np.testing.assert_array_equal(first["train"][0], second["train"][0])


def test_a_damaged_file_alone_is_computed_anew(tmp_path, monkeypatch) -> None:
    extraction = take_apart(config_of(tmp_path)).extraction()
    before = np.array(extraction.run()["validation"][0])
    flip_last_byte(extraction.passes()[1].file.path)
    passes = counted(extraction, monkeypatch)
    np.testing.assert_array_equal(extraction.run()["validation"][0], before)
    assert passes == ["validation"]


def test_more_views_use_the_files_of_fewer(tmp_path, monkeypatch) -> None:
    def views(count: int) -> Extraction:
        return take_apart(config_of(tmp_path, augment=MOVING, features=FeaturesConfig("auto", count))).extraction()

    few = views(2).run()["train"]
    more = views(3)
    passes = counted(more, monkeypatch)
    found = more.run()["train"]
    assert passes == ["train (view 3 of 3)"]
    for old, new in zip(few, found, strict=False):
        np.testing.assert_array_equal(old, new)


def keys_of(taken: Taken, point: str = "pooled") -> list[str]:
    return [one.file.path.stem for one in taken.extraction(point).passes()]


def with_leaf(taken: Taken, *path: str) -> Taken:
    """The run with one leaf a little different."""
    variables = jax.tree.map(np.array, taken.variables)
    node = variables
    for name in path[:-1]:
        node = node[name]
    node[path[-1]].flat[0] += 1e-3
    return dataclasses.replace(taken, variables=variables)


def with_mean(taken: Taken) -> Taken:
    network = taken.network
    preprocessing = dataclasses.replace(network.preprocessing, mean=(0.5, 0.5, 0.5))
    return dataclasses.replace(taken, network=Network(network.model, preprocessing, network.class_names))


def test_the_key_changes_with_all_that_the_features_follow_from(tmp_path) -> None:
    taken = take_apart(config_of(tmp_path))
    model = taken.config.model
    others = {
        "kernel": with_leaf(taken, "params", "backbone", "stage3", "block1", "conv2", "kernel"),
        "statistic": with_leaf(taken, "batch_stats", "backbone", "stem", "norm", "mean"),
        "preprocessing": with_mean(taken),
        "data": take_apart(taken.config, splits(seed=5)),
        "type": take_apart(config_of(tmp_path, model=dataclasses.replace(model, dtype="bfloat16"))),
        "activation": take_apart(config_of(tmp_path, model=dataclasses.replace(model, activation="gelu"))),
    }
    keys = {name: keys_of(other)[0] for name, other in others.items()}
    keys["here"], keys["point"] = keys_of(taken)[0], keys_of(taken, "stage3")[0]
    assert len(set(keys.values())) == len(keys)


def test_the_key_of_an_earlier_point_does_not_change_with_later_weights(tmp_path) -> None:
    taken = take_apart(config_of(tmp_path))
    later = with_leaf(taken, "params", "backbone", "stage3", "block1", "conv2", "kernel")
    assert keys_of(later, "stage2") == keys_of(taken, "stage2")


def test_the_key_does_not_change_with_what_has_no_effect(tmp_path) -> None:
    taken = take_apart(config_of(tmp_path))
    same = [
        with_leaf(taken, "params", "head", "kernel"),
        dataclasses.replace(taken, config=dataclasses.replace(taken.config, seed=1)),
        take_apart(config_of(tmp_path, model=dataclasses.replace(taken.config.model, dropout=0.5)), splits()),
    ]
    same[2] = dataclasses.replace(same[2], variables=taken.variables)
    assert all(keys_of(other) == keys_of(taken) for other in same)


def test_the_key_of_a_view_changes_with_its_draws(tmp_path) -> None:
    def keys(augment: AugmentConfig = MOVING, **fields: object) -> list[str]:
        config = config_of(tmp_path, augment=augment, features=FeaturesConfig("auto", 2))
        taken = take_apart(config)
        return keys_of(dataclasses.replace(taken, config=dataclasses.replace(config, **fields)))

    first, second, validation = keys()
    flips = dataclasses.replace(MOVING, flip=FlipConfig(prob=0.5))
    others = [
        keys(flips),
        keys(dataclasses.replace(flips, flip=FlipConfig(prob=0.25))),
        keys(features=FeaturesConfig("auto", 2, seed=1)),
    ]
    assert keys(seed=1) == [first, second, validation]  # runs of several seeds share their views
    assert len({first, second, *(key for other in others for key in other[:2])}) == 8
    assert {other[2] for other in others} == {validation}
    unused = dataclasses.replace(MOVING, mixup=MixupConfig(alpha=0.9))
    assert keys(unused) == [first, second, validation]


def test_a_source_without_a_fingerprint_is_refused(tmp_path) -> None:
    unknown = dataclasses.replace(source(30), fingerprint="")
    config = config_of(tmp_path, data=DataConfig(cache_dir=str(tmp_path), loader="streamed"))
    taken = take_apart(config, Splits(unknown, source(13, seed=1), None))
    with pytest.raises(InputError, match="made up has no fingerprint, by which its features would be known"):
        taken.extraction().run()


def test_a_full_disk_and_a_folder_that_is_a_file_are_one_line(tmp_path, monkeypatch) -> None:
    (tmp_path / "file").touch()
    taken = take_apart(config_of(tmp_path / "file"))
    with pytest.raises(InputError, match=r"data.cache_dir=\S+file: Not a directory; choose another folder"):
        taken.extraction().run()
    taken = take_apart(config_of(tmp_path))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100))
    with pytest.raises(InputError, match=r"the features need .* GiB and .* are free; choose another folder"):
        taken.extraction().run()
    assert list((tmp_path / "features").iterdir()) == []


def test_a_pass_goes_on_from_what_is_kept_at_an_earlier_point(tmp_path, monkeypatch) -> None:
    config = config_of(tmp_path, augment=MOVING, features=FeaturesConfig("auto", 2))
    taken = take_apart(config)
    expected = taken.extraction("pooled").run()
    shutil.rmtree(tmp_path / "features")
    taken.extraction("stage2").run()

    def no_images(self: Network, images: jax.Array) -> jax.Array:
        raise AssertionError("an image was normalised")

    monkeypatch.setattr(Network, "normalise", no_images)
    monkeypatch.setattr(Extraction, "_augmented", no_images)
    found = taken.extraction("pooled").run()
    for name, views in expected.items():
        for view, want in zip(found[name], views, strict=True):
            np.testing.assert_allclose(view, want, rtol=1e-5, atol=1e-6, err_msg=name)
