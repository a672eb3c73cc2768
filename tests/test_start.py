"""What a run starts from: heads that start anew or are kept, and how they start."""

import dataclasses
import logging
from pathlib import Path

import numpy as np
import pytest

from jaxcnn.build import build_job
from jaxcnn.config import Preprocessing, TrainConfig
from jaxcnn.errors import InputError
from jaxcnn.network import Network, build_network
from jaxcnn.paths import flatten
from jaxcnn.run_folder import RunFolder
from jaxcnn.start import initial_variables
from jaxcnn.weights.imported_run import write_run
from tests.conftest import with_fields

INPUTS = Preprocessing((28, 28, 1), (0.5,), (0.5,))
DIGITS = tuple("0123456789")
LETTERS = tuple("abcdefghij")


@pytest.fixture
def source(tiny_config: TrainConfig, tmp_path: Path) -> RunFolder:
    """A run of ten letters, with weights of its own."""
    config = with_fields(tiny_config, seed=5)
    network = build_network(config, INPUTS, LETTERS)
    return write_run(tmp_path / "source", config, LETTERS, INPUTS, initial_variables(config, network), {})


def start(config: TrainConfig, source: RunFolder, names: tuple[str, ...], **fields: object) -> dict:
    config = with_fields(config, init_from=str(source.path), **fields)
    return flatten(initial_variables(config, build_network(config, INPUTS, names)))


def theirs(source: RunFolder) -> dict:
    import jaxcnn

    return flatten(jaxcnn.load_run(source.path).variables)


@pytest.mark.parametrize(
    ("names", "replace_head", "kept"),
    [
        (LETTERS, "auto", True),
        (LETTERS, "always", False),
        (DIGITS, "auto", False),
        (DIGITS, "never", True),
        (("a", "b"), "auto", False),
        (tuple(f"class {label}" for label in range(10)), "auto", True),
    ],
)
def test_a_head_gives_way_where_its_classes_are_others(tiny_config, source, names, replace_head, kept) -> None:
    given, found = theirs(source), start(tiny_config, source, names, replace_head=replace_head)
    assert np.array_equal(found["params/head/kernel"], given["params/head/kernel"]) == kept
    assert found["params/head/kernel"].shape == (16, len(names))
    assert all(np.array_equal(found[path], given[path]) for path in given if "/head/" not in path)


def test_what_became_of_the_head_is_told(tiny_config, source, caplog, monkeypatch) -> None:
    monkeypatch.setattr(logging.getLogger("jaxcnn"), "propagate", True)
    with caplog.at_level("INFO", logger="jaxcnn"):
        start(tiny_config, source, DIGITS)
        start(tiny_config, source, DIGITS, replace_head="never")
    told = caplog.text
    assert "the head starts anew, for 10 classes: its class 0 was 'a' and is '0' now (replace_head=never keeps" in told
    assert "the head is kept, but its class 0 was 'a' and is '0' now" in told


def test_a_head_that_cannot_be_kept_is_an_error(tiny_config, source) -> None:
    with pytest.raises(InputError, match="has no head for 2 classes to keep"):
        start(tiny_config, source, ("a", "b"), replace_head="never")


@pytest.mark.parametrize("kind", ["zero", "prior"])
def test_a_new_head_starts_at_equal_or_at_prior_probabilities(tiny_config, source, kind) -> None:
    config = with_fields(tiny_config, model__head_init=kind, init_from=str(source.path))
    network, counts = build_network(config, INPUTS, ("a", "b", "c")), [60, 30, 10]
    variables = initial_variables(config, network, counts)
    images = np.random.default_rng(0).normal(size=(4, 28, 28, 1)).astype(np.float32)
    logits = np.asarray(network.model.apply(variables, images))
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(shares, np.tile([0.6, 0.3, 0.1] if kind == "prior" else [1 / 3] * 3, (4, 1)), rtol=1e-5)


def test_a_kept_head_cannot_start_at_zero(tiny_config, source) -> None:
    with pytest.raises(InputError, match=r"model.head_init='zero': the head of .* is kept; replace_head=always"):
        start(tiny_config, source, LETTERS, model__head_init="zero")


def test_without_a_source_there_is_no_head_to_replace(tiny_config) -> None:
    with pytest.raises(InputError, match="replace_head='always': without init_from"):
        build_job(with_fields(tiny_config, replace_head="always"))


def test_a_frozen_head_that_starts_anew_is_an_error(tiny_config, source) -> None:
    config = with_fields(tiny_config, init_from=str(source.path), freeze=("backbone/**", "head/kernel"))
    with pytest.raises(InputError, match=r"head/kernel starts anew, .* would stay so; take it out with '!head/\*\*'"):
        build_job(config)
    build_job(dataclasses.replace(config, unfreeze=((1.0, "head/**"),)))


def test_a_random_head_that_never_trains_is_an_error(tiny_config) -> None:
    with pytest.raises(InputError, match="head/kernel starts anew"):
        build_job(with_fields(tiny_config, freeze=("head/**",)))


def test_a_random_frozen_backbone_is_told(tiny_config, caplog, monkeypatch) -> None:
    monkeypatch.setattr(logging.getLogger("jaxcnn"), "propagate", True)
    build_job(with_fields(tiny_config, freeze=("backbone/**",)))
    assert "freeze without init_from" in caplog.text


def test_the_network_has_the_type_of_its_variables(tiny_config) -> None:
    network: Network = build_network(tiny_config, INPUTS, DIGITS)
    drawn = flatten(initial_variables(tiny_config, network))
    assert {path: leaf.shape for path, leaf in drawn.items()} == {
        path: leaf.shape for path, leaf in flatten(network.shapes).items()
    }
