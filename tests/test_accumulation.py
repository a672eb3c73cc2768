"""A batch in parts: the step of the whole batch, but for batch norm, whose statistics are those of a part."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.augment.mixing import Mix
from jaxcnn.config import OptimConfig
from jaxcnn.models import BasicBlock, Classifier, ResNet
from jaxcnn.models.conv import Conv
from jaxcnn.models.norms import BatchNorm, GroupNorm, InstanceNorm, LayerNorm, NoNorm
from jaxcnn.paths import GlobRule, flatten
from jaxcnn.training.losses import Targets
from jaxcnn.training.optim import make_optimizer
from jaxcnn.training.state import create_state
from jaxcnn.training.step import StepOptions, make_draw, make_gradients, make_step

BATCH, CLASSES, STEPS = 16, 5, 3
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (STEPS, BATCH, 6, 6, 3), np.uint8)
LABELS = RNG.integers(0, CLASSES, (STEPS, BATCH)).astype(np.int32)
WEIGHTS = (0.2, 0.5, 1.0, 1.5, 3.0)
FAST = {"xla_backend_optimization_level": 0}


def plain(key: jax.Array, images: jax.Array) -> tuple[jax.Array, None]:
    return images.astype(jnp.float64) / 255 - 0.5, None


def mixed(key: jax.Array, images: jax.Array) -> tuple[jax.Array, Mix]:
    """Mixup in float64: each image with the one before it, which is in another part."""
    share = jax.random.uniform(key, (len(images),), jnp.float64)
    images, weight = plain(key, images)[0], share[:, None, None, None]
    partner = jnp.roll(jnp.arange(len(images)), 1)
    return weight * images + (1 - weight) * images[partner], Mix(partner, share)


def network(norm, dropout: float = 0.0) -> Classifier:
    conv = functools.partial(Conv, dtype=jnp.float64)
    return Classifier(ResNet((1,), BasicBlock, width=4, stem="small", norm=norm, conv=conv), CLASSES, dropout=dropout)


def begun(model, optimizer, rule=GlobRule()):
    """A state in float64, drawn by numpy."""
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 6, 6, 3)))
    rng = np.random.default_rng(1)
    wide = jax.tree.map(lambda leaf: jnp.asarray(rng.uniform(0.1, 0.5, leaf.shape)), shapes)
    return create_state(wide, rule, optimizer, use_ema=True)


def trained(norm, parts: int, *, augment=plain, rule=GlobRule(), images=IMAGES, labels=LABELS, optim=None, **options):
    """{path: value} of parameters, statistics, averages and sums after three steps, in float64."""
    model, optimizer = network(norm), make_optimizer(optim or OptimConfig(clip_norm=0.5), lambda step: 0.1)
    chosen = StepOptions(0, accumulation=parts, ema_decay=0.9, **options)
    step = jax.jit(make_step(model, optimizer, augment, chosen), compiler_options=FAST)
    state = begun(model, optimizer, rule)
    found = {}
    for number, (batch, targets) in enumerate(zip(images, labels, strict=True)):
        state, found[f"sums {number}"] = step(state, batch, targets)
    found |= {"params": state.params, "statistics": state.batch_stats, "ema": state.ema}
    return {path: np.asarray(leaf) for path, leaf in flatten(found).items()}


def assert_equal(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for path, value in expected.items():
        np.testing.assert_allclose(found[path], value, rtol=1e-10, atol=1e-10, err_msg=path)


@pytest.mark.parametrize(
    ("norm", "options", "counts"),
    [
        (GroupNorm(2), {"class_weights": WEIGHTS, "label_smoothing": 0.1, "augment": mixed}, (2, 4, 8)),
        (LayerNorm(), {"rule": GlobRule(("backbone/stem/**",)), "class_weights": WEIGHTS}, (4,)),
        pytest.param(
            InstanceNorm(),
            {"optim": OptimConfig("lars", trust_coefficient=0.1)},
            (4,),
            marks=pytest.mark.slow,
        ),
        (NoNorm(), {"label_smoothing": 0.1}, (2,)),
        (BatchNorm(frozen=GlobRule(("**/*norm*/*",))), {"rule": GlobRule(("**/*norm*/*",))}, (8,)),
    ],
    ids=["group", "layer", "instance", "none", "frozen batch norms"],
)
def test_parts_do_the_steps_of_the_whole_batch(norm, options, counts) -> None:
    """Sums, among them the norm of the gradient, and all of the state: to 1e-10."""
    with jax.enable_x64(True):
        whole = trained(norm, 1, **options)
        for parts in counts:
            assert_equal(trained(norm, parts, **options), whole)


def test_batch_norm_sees_parts_as_virtual_batches_of_every_nth_image() -> None:
    """Part p holds the images p, p + parts, ...; running statistics take up part after part."""
    parts = 4
    order = np.concatenate([np.arange(BATCH)[part::parts] for part in range(parts)])
    with jax.enable_x64(True):
        found = trained(BatchNorm(), parts)
        virtual = BatchNorm(virtual_batch_size=BATCH // parts)
        assert_equal(found, trained(virtual, 1, images=IMAGES[:, order], labels=LABELS[:, order]))


def test_each_part_drops_units_of_its_own() -> None:
    """Equal images in both parts: with one draw for all parts the gradient would be that of either part."""
    images, labels = (np.repeat(each[0, : BATCH // 2], 2, axis=0) for each in (IMAGES, LABELS))
    with jax.enable_x64(True):
        model, optimizer = network(GroupNorm(2), dropout=0.5), make_optimizer(OptimConfig(), lambda step: 0.1)
        state = begun(model, optimizer)
        options = StepOptions(0, accumulation=2)
        drawn = make_draw(plain, options)(state.step, jnp.asarray(images), jnp.asarray(labels))
        found = jax.jit(make_gradients(model, options), compiler_options=FAST)(state, drawn)[0]["head"]["kernel"]
        one = jax.jit(make_gradients(model, StepOptions(0)), compiler_options=FAST)
        half = drawn._replace(images=drawn.images[::2], targets=Targets(drawn.targets.labels[::2]))
        keys = [jax.random.fold_in(drawn.dropout_key, part) for part in (0, 1)]
        first, second = (one(state, half._replace(dropout_key=key))[0]["head"]["kernel"] for key in keys)
        np.testing.assert_allclose(found, (first + second) / 2, atol=1e-12)
        assert not np.allclose(first, second, atol=1e-4)
