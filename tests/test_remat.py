"""Maps computed anew on the way back: the same step, with less kept."""

import functools
import re
from collections import namedtuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcnn.build import build_job
from jaxcnn.config import ModelConfig, TrainConfig
from jaxcnn.errors import InputError
from jaxcnn.models.blocks import BLOCKS
from jaxcnn.models.classifier import Classifier
from jaxcnn.models.conv import Conv
from jaxcnn.models.layers import dropout
from jaxcnn.models.norms import BatchNorm, GroupNorm
from jaxcnn.models.registry import build_model, describe
from jaxcnn.models.resnet import ResNet
from jaxcnn.models.scan import BlockScan
from jaxcnn.models.taps import tapped, unscanned
from jaxcnn.models.vgg import VGG
from jaxcnn.paths import GlobRule, flatten
from jaxcnn.runtime import compiler_options
from jaxcnn.training.state import create_state
from jaxcnn.training.step import StepOptions, make_chunk, make_step, zero_sums
from tests.conftest import with_fields

IMAGES = np.random.default_rng(0).normal(size=(4, 8, 8, 3))
Batch = namedtuple("Batch", "images labels")
KEY = jax.random.key(7)
ALL = ("stem", "stage1")
DOUBLE = functools.partial(Conv, dtype=jnp.float64)


def resnet(kind: str = "basic", *, freeze: GlobRule = GlobRule(), **options) -> ResNet:
    options = {"conv": DOUBLE, "norm": BatchNorm(frozen=freeze), **options}
    return ResNet((2,), block=BLOCKS[kind], width=4, stem="small", **options)


def draw(network):
    """Variables in float64, running statistics and scales unlike their initial values."""
    rng = np.random.default_rng(0)
    variables = network.init(jax.random.key(0), IMAGES, train=False)
    return jax.tree.map(lambda leaf: np.asarray(leaf + 0.1 * rng.uniform(size=leaf.shape)), variables)


def outcome(network, variables):
    """{path: value} of the output, the new statistics and the gradients of a step."""

    def loss(params):
        y, new = network.apply(
            {**variables, "params": params}, IMAGES, train=True, mutable=["batch_stats"], rngs={"dropout": KEY}
        )
        return jnp.sum(jnp.sin(y)), {"output": y, **new}

    fast = {"xla_backend_optimization_level": 0}
    grads, rest = jax.jit(jax.grad(loss, has_aux=True), compiler_options=fast)(variables["params"])
    return {path: np.asarray(leaf) for path, leaf in flatten({"grads": grads, **rest}).items()}


def assert_same(network, parts=ALL):
    """The step with and without remat, to rounding in float64; returns the outcome and the variables."""
    again = network.clone(remat=parts)
    variables = draw(network)
    expected, found = outcome(network, variables), outcome(again, variables)
    assert found.keys() == expected.keys()
    for path, value in expected.items():
        np.testing.assert_allclose(found[path], value, rtol=0, atol=1e-12 * (1 + np.abs(value).max()), err_msg=path)
    ours, theirs = (
        flatten(jax.eval_shape(functools.partial(net.init, train=False), KEY, IMAGES)) for net in (again, network)
    )
    assert list(ours) == list(theirs)  # names and their order
    return found, variables


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("bottleneck", {"dropout": dropout(0.4, "unit"), "stochastic_depth": 0.5}),
        ("preact", {"norm": GroupNorm(2)}),
        ("basic", {"norm": BatchNorm(virtual_batch_size=2)}),
        ("plain", {"conv": functools.partial(DOUBLE, plain=True), "norm": BatchNorm(plain=True)}),
        ("basic", {"scan": BlockScan(), "dropout": dropout(0.4, "channel")}),
    ],
    ids=["draws", "group", "virtual", "plain", "scan"],
)
def test_outputs_statistics_gradients_and_names_are_those_of_a_step_that_keeps_its_maps(kind: str, options) -> None:
    with jax.enable_x64(True):
        assert_same(resnet(kind, **options))


def test_running_statistics_are_updated_once_and_frozen_ones_not_at_all() -> None:
    """A norm asks its path whether it is frozen, inside what is computed twice too."""
    rule = GlobRule(("stage1/block2/**",))  # the paths of a backbone by itself
    with jax.enable_x64(True):
        found, variables = assert_same(resnet(freeze=rule))
        for path, old in flatten(variables["batch_stats"]).items():
            assert np.array_equal(found[f"batch_stats/{path}"], old) == rule.matches(path), path
        kernel = {"params": variables["params"]["stem"]["conv"]}
        mean = np.asarray(DOUBLE(4, 3, parent=None).apply(kernel, jnp.asarray(IMAGES))).mean((0, 1, 2))
        expected = 0.9 * variables["batch_stats"]["stem"]["norm"]["mean"] + 0.1 * mean
        np.testing.assert_allclose(found["batch_stats/stem/norm/mean"], expected, rtol=1e-12)


def test_a_vgg_does_it_too() -> None:
    with jax.enable_x64(True):
        own = {"conv": DOUBLE, "norm": BatchNorm(), "dropout": dropout(0.3, "unit")}
        assert_same(VGG((1, 2), 4, **own), ("stage1", "stage2"))


@pytest.mark.parametrize("scan", [None, BlockScan()])
def test_what_a_norm_takes_up_unevaluated_stays_inside_a_block(scan) -> None:
    """In bfloat16 the last convolution of a bottleneck is handed to its norm as a promise."""
    conv = functools.partial(Conv, dtype=jnp.bfloat16)
    network = resnet("bottleneck", conv=conv, scan=scan, remat=ALL).clone(stage_sizes=(3,))
    shapes = jax.eval_shape(functools.partial(network.init, train=False), KEY, IMAGES.astype(np.float32))

    def loss(params, rest):
        y, _ = network.apply({**rest, "params": params}, IMAGES.astype(np.float32), train=True, mutable=["batch_stats"])
        return jnp.sum(y.astype(jnp.float32))

    program = jax.jit(jax.grad(loss)).trace(shapes["params"], {"batch_stats": shapes["batch_stats"]})
    text = program.lower(lowering_platforms=("tpu",)).as_text()
    assert "optimization_barrier" in text
    assert jax.tree.map(lambda leaf: leaf.shape, program.out_info) == jax.tree.map(lambda x: x.shape, shapes["params"])


def compiled_chunk(model) -> jax.stages.Compiled:
    """The compiled loop of steps of a network on 32x32 images, as a run has it."""
    optimizer, images = optax.sgd(0.1), jax.ShapeDtypeStruct((64, 32, 32, 3), jnp.uint8)
    labels = jax.ShapeDtypeStruct((64,), jnp.int32)
    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    state = jax.eval_shape(lambda given: create_state(given, GlobRule(), optimizer, use_ema=False), variables)
    step = make_step(model, optimizer, lambda key, x: (x.astype(jnp.float32) / 255, None), StepOptions(0))
    chunk = make_chunk(step, lambda source, item: source)
    sums, places = zero_sums(step, state, images, labels), jax.ShapeDtypeStruct((2, 1), jnp.int32)
    program = jax.jit(chunk, compiler_options=compiler_options(training=True))
    return program.lower(state, sums, Batch(images, labels), places, np.int32(1)).compile()


@pytest.mark.parametrize(("name", "sizes", "share"), [("resnet8", (3,), 0.7), ("vgg11", (1, 1, 1), 0.9)])
def test_the_compiled_loop_of_steps_needs_less_memory_and_computes_maps_twice(name, sizes, share) -> None:
    """XLA undoes it where it takes what is computed anew for what is there already: then nothing is saved."""
    temp, convolutions = {}, {}
    for parts in ((), ("all",)):
        model = build_model(ModelConfig(name, width=4, stage_sizes=sizes, remat=parts), (32, 32, 3), 10)
        compiled = compiled_chunk(model)
        memory = compiled.memory_analysis()
        assert memory is not None
        temp[parts] = memory.temp_size_in_bytes
        convolutions[parts] = len(re.findall(r" convolution\(", compiled.as_text() or ""))
    assert temp[("all",)] < share * temp[()]
    assert convolutions[("all",)] > convolutions[()]


def test_names_are_globs_over_the_parts_and_others_are_refused() -> None:
    def parts(*remat: str, name: str = "resnet8") -> tuple[str, ...]:
        return build_model(ModelConfig(name, width=4, remat=remat), (32, 32, 3), 10).backbone.remat

    assert parts("all") == ("stem", "stage1", "stage2", "stage3")
    assert parts("stage*", "!stage3") == ("stage1", "stage2")
    assert parts("stem", "stage1") == ("stem", "stage1")
    assert parts("all", name="vgg11") == ("stage1", "stage2", "stage3", "stage4", "stage5")
    assert parts() == ()
    message = "model.remat='stage4': resnet8 has stem, stage1, stage2, stage3; or all"
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        parts("stage1", "stage4")
    with pytest.raises(InputError, match=r"model\.remat='stem': vgg11 has stage1, "):
        parts("stem", name="vgg11")
    model = build_model(ModelConfig("resnet8", remat=("stem", "stage1")), (32, 32, 3), 10)
    assert "maps of stem stage1 computed anew on the way back" in describe(model)


def test_what_looks_into_a_network_sees_it_without() -> None:
    model = Classifier(resnet(conv=Conv, remat=ALL), 5)
    variables = model.init(jax.random.key(0), jnp.asarray(IMAGES, jnp.float32))
    seen = tapped(unscanned(model), variables, jnp.asarray(IMAGES, jnp.float32), train=True)
    assert "backbone/stage1/block2/conv2" in seen.inputs
    plain = model.clone(backbone=resnet(conv=Conv))
    expected, _ = plain.apply(variables, jnp.asarray(IMAGES, jnp.float32), train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(seen.logits, expected, rtol=1e-5)
    assert unscanned(plain) is plain


def test_a_run_has_it_in_its_step_and_not_in_its_look(tiny_config: TrainConfig) -> None:
    job = build_job(with_fields(tiny_config, model__remat=("all",), optim__accumulation=2))
    state = job.state_shapes(0)
    images = jax.ShapeDtypeStruct((32, *job.network.preprocessing.image_shape), jnp.uint8)
    labels = jax.ShapeDtypeStruct((32,), jnp.int32)
    programs = [str(jax.make_jaxpr(call)(state, images, labels)) for call in (job.phases[0].step, job.phases[0].look)]
    assert "prevent_cse" in programs[0]
    assert "prevent_cse" not in str(
        jax.make_jaxpr(functools.partial(job.network.model.apply, train=False))(
            state.current, jax.ShapeDtypeStruct((2, 28, 28, 1), jnp.float32)
        )
    )
    assert "backbone/stage3/block1/conv2" in jax.eval_shape(job.phases[0].look, state, images, labels)["layers"]
