"""Blocks in a loop: the same network as block by block, under the same names, in a program that does not grow."""

import functools
import logging
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.build import build_job
from jaxcnn.cli import main
from jaxcnn.config import ModelConfig
from jaxcnn.errors import InputError
from jaxcnn.models.blocks import BLOCKS
from jaxcnn.models.conv import Conv
from jaxcnn.models.layers import dropout
from jaxcnn.models.norms import BatchNorm, GroupNorm
from jaxcnn.models.registry import build_model
from jaxcnn.models.resnet import ResNet
from jaxcnn.models.scan import BlockScan, equal_blocks
from jaxcnn.models.stacking import stack, unstack
from jaxcnn.paths import GlobRule, flatten
from tests.conftest import with_fields

IMAGES = np.random.default_rng(0).normal(size=(4, 8, 8, 3))
KEY = jax.random.key(7)


def pair(kind: str = "basic", sizes=(3, 3), *, freeze=GlobRule(), **options):
    """Returns a network that goes block by block, and the same one with loops; float64 inside jax.enable_x64."""
    options = {"conv": functools.partial(Conv, dtype=jnp.float64), "norm": BatchNorm(frozen=freeze), **options}
    plain = ResNet(sizes, block=BLOCKS[kind], width=8, stem="small", **options)
    return plain, plain.clone(scan=BlockScan(freeze))


def draw(network, seed=0):
    """Variables in float64, running statistics and scales unlike their initial values."""
    rng = np.random.default_rng(seed)
    variables = network.init(jax.random.key(seed), IMAGES, train=False)
    return jax.tree.map(lambda leaf: np.asarray(leaf + 0.1 * rng.uniform(size=leaf.shape)), variables)


def outcome(network, variables, train=True):
    """{path: value} of the map, the new statistics and the gradients of a step."""

    def loss(params):
        y, new = network.apply(
            {**variables, "params": params}, IMAGES, train=train, mutable=["batch_stats"], rngs={"dropout": KEY}
        )
        return jnp.sum(jnp.sin(y)), {"map": y, **new}

    grads, rest = jax.jit(jax.grad(loss, has_aux=True))(variables["params"])
    return flatten({"grads": grads, **rest})


def assert_same(plain, looped, variables, **call):
    expected, found = outcome(plain, variables, **call), outcome(looped, variables, **call)
    assert found.keys() == expected.keys()
    for path, value in expected.items():
        scale = float(jnp.max(jnp.abs(value))) + 1e-30
        np.testing.assert_allclose(found[path] / scale, value / scale, rtol=0, atol=1e-10, err_msg=path)
    return found


def convolutions(network, variables) -> int:
    """Convolutions in the lowered program of a gradient."""
    loss = lambda params: jnp.sum(  # noqa: E731
        network.apply({**variables, "params": params}, IMAGES, train=True, mutable=["batch_stats"])[0]
    )
    return len(re.findall(r"stablehlo\.convolution", jax.jit(jax.grad(loss)).lower(variables["params"]).as_text()))


@pytest.mark.parametrize("kind", ["basic", "preact", "bottleneck"])
def test_a_loop_gives_the_map_statistics_and_gradients_of_single_blocks(kind: str) -> None:
    with jax.enable_x64(True):
        plain, looped = pair(kind, squeeze_excite=kind == "bottleneck")
        variables = draw(plain)
        found = assert_same(plain, looped, variables)
        old = flatten(variables)
        for path, new in found.items():
            if path.startswith("batch_stats"):
                assert not np.allclose(new, old[path]), path
        y = plain.apply(variables, IMAGES, train=False)
        np.testing.assert_allclose(looped.apply(variables, IMAGES, train=False), y, rtol=1e-10, atol=1e-12)


def test_parameters_are_drawn_as_without_the_loop() -> None:
    plain, looped = (flatten(network.init(jax.random.key(3), IMAGES, train=False)) for network in pair(conv=Conv))
    assert plain.keys() == looped.keys()
    assert "params/stage2/block3/conv1/kernel" in looped
    assert all(np.array_equal(looped[path], plain[path]) for path in plain)


@pytest.mark.parametrize("kind", ["unit", "channel"])
def test_dropout_drops_the_same_values(kind) -> None:
    with jax.enable_x64(True):
        plain, looped = pair(dropout=dropout(0.4, kind))
        variables = draw(plain)
        found = assert_same(plain, looped, variables)
        without = outcome(pair()[0], variables)
        assert not np.allclose(found["map"], without["map"])


@pytest.mark.parametrize("norm", [GroupNorm(4), BatchNorm(virtual_batch_size=2)])
def test_other_norms_loop_too(norm) -> None:
    with jax.enable_x64(True):
        plain, looped = pair(norm=norm)
        assert_same(plain, looped, draw(plain))


def test_named_maps_are_the_same() -> None:
    with jax.enable_x64(True):
        plain, looped = pair()
        variables = draw(plain)
        names = ("stage1", "stem")
        expected, found = (net.apply(variables, IMAGES, train=False, features=names) for net in (plain, looped))
        for name in names:
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-10, atol=1e-12)


def test_the_program_does_not_grow_with_the_depth() -> None:
    with jax.enable_x64(True):
        counts = {}
        for depth in (3, 6):
            plain, looped = pair(sizes=(depth, depth))
            variables = draw(plain)
            counts[depth] = convolutions(plain, variables), convolutions(looped, variables)
    assert counts[3][1] == counts[6][1] < counts[3][0] < counts[6][0]


def test_a_wholly_frozen_stage_is_looped_and_keeps_its_statistics() -> None:
    rule = GlobRule(("stage1/**",))  # the paths of a backbone by itself
    with jax.enable_x64(True):
        plain, looped = pair(freeze=rule)
        variables = draw(plain)
        found = assert_same(plain, looped, variables)
        assert convolutions(looped, variables) < convolutions(plain, variables)
        for path, old in flatten(variables).items():
            if path.startswith("batch_stats/stage1"):
                np.testing.assert_array_equal(found[path], old)


@pytest.mark.parametrize("glob", ["stage2/block3/**", "stage2/block2/norm1/scale", "stage2/block3/conv2/kernel"])
def test_a_freeze_that_splits_a_stage_turns_its_loop_off(glob: str) -> None:
    with jax.enable_x64(True):
        plain, looped = pair(freeze=GlobRule((glob,)))
        one = looped.clone(scan=BlockScan(GlobRule(("stage2/block3/**",))), norm=BatchNorm())
        variables = draw(plain)
        assert convolutions(looped, variables) == convolutions(one, variables) < convolutions(plain, variables)
        assert_same(plain, looped, variables)


def test_the_first_block_is_in_the_loop_where_it_is_like_the_others() -> None:
    for kind, first in (("basic", "block1"), ("bottleneck", "block2")):
        tree = jax.eval_shape(functools.partial(pair(kind)[0].init, train=False), KEY, IMAGES)["params"]
        assert equal_blocks(tree["stage1"])[0] == first
        assert equal_blocks(tree["stage2"]) == ["block2", "block3"]
    assert equal_blocks({"block1": tree["stage1"]["block1"]}) == []


def test_more_than_nine_blocks_keep_their_order() -> None:
    with jax.enable_x64(True):
        plain, looped = pair(sizes=(11,))
        assert_same(plain, looped, draw(plain))


def test_unstack_undoes_stack() -> None:
    trees = [{"a": np.full((2, 3), i, np.float32), "b": {"c": np.float32(i)}} for i in range(3)]
    for found, expected in zip(jax.jit(lambda *trees: unstack(stack(trees)))(*trees), trees, strict=True):
        jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (ModelConfig(name="vgg11", scan_blocks=True), "model.scan_blocks=True: vgg11 has no scan_blocks to choose"),
        (ModelConfig(scan_blocks=True, stochastic_depth=0.1), "model.scan_blocks=True: stochastic_depth gives each"),
    ],
)
def test_what_cannot_be_scanned_is_refused(config: ModelConfig, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)) as error:
        build_model(config, (32, 32, 3), 10)
    assert "\n" not in str(error.value)


def test_the_command_line_refuses_it_for_a_vgg_in_one_line(digits_dir: str, capsys) -> None:
    options = f"--data.data-dir {digits_dir} --data.image-size 32 --model.name vgg11 --model.scan-blocks"
    assert main(["train", *options.split()]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert errors == ["error: model.scan_blocks=True: vgg11 has no scan_blocks to choose"]


def test_a_run_says_which_stages_are_not_scanned(tiny_config, caplog, monkeypatch) -> None:
    monkeypatch.setattr(logging.getLogger("jaxcnn"), "propagate", True)
    config = with_fields(tiny_config, model__name="resnet20", model__scan_blocks=True)
    with caplog.at_level(logging.INFO, "jaxcnn"):
        build_job(with_fields(config, freeze=("backbone/stage2/block3/**", "backbone/stage1/**")))
    assert "equal blocks scanned" in caplog.text
    assert {line for line in caplog.messages if "not scanned" in line} == {
        "model: the freeze takes leaves of some equal blocks of stage2 only, so it is not scanned"
    }
