"""The table of leaves: initialisers against closed forms and draws, optimizer bytes, decay, freezing, folding."""

import math
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.config import ModelConfig, OptimConfig, Preprocessing, TrainConfig
from jaxcnn.errors import InputError
from jaxcnn.inspection.columns import COLUMNS
from jaxcnn.inspection.initialisers import drawn_by, initialisers_of
from jaxcnn.inspection.leaves import Leaf, leaves_of, leaves_of_tensors, with_step
from jaxcnn.inspection.subject import network_of, of_config
from jaxcnn.inspection.table import filtered, folded, ordered
from jaxcnn.inspection.values import pooled, values_of
from jaxcnn.models.layers import GAINS, dense_init, initializer
from jaxcnn.network import Network, build_network
from jaxcnn.paths import flatten
from jaxcnn.phases import make_phases
from jaxcnn.start import initial_variables

IMAGES = Preprocessing((8, 8, 3), (0.5,) * 3, (0.5,) * 3)
NAMES = tuple("abcde")
KERNEL = (3, 3, 64, 96)


def config_of(**fields: object) -> TrainConfig:
    model = fields.pop("model", ModelConfig(name="resnet8", width=4))
    return TrainConfig(model=model, **fields)  # type: ignore[arg-type]


def network(config: TrainConfig) -> Network:
    return build_network(config, IMAGES, NAMES)


def by_path(config: TrainConfig, phase: int = 0) -> dict[str, Leaf]:
    return {leaf.path: leaf for leaf in leaves_of(config, network(config), phase)[0]}


def cell(leaves: list[Leaf], column: str) -> object:
    (row,) = folded(leaves, 1)
    return next(one for one in COLUMNS if one.name == column).of(row)


@pytest.mark.parametrize(
    ("name", "std"),
    [
        ("kaiming_fan_out_normal", math.sqrt(2 / (9 * 96))),
        ("kaiming_fan_in_normal", math.sqrt(2 / (9 * 64))),
        ("kaiming_fan_out_uniform", math.sqrt(2 / (9 * 96))),
        ("kaiming_fan_in_uniform", math.sqrt(2 / (9 * 64))),
        ("xavier_normal", math.sqrt(2 / (9 * 160))),
        ("xavier_uniform", math.sqrt(2 / (9 * 160))),
        ("lecun_normal", math.sqrt(1 / (9 * 64))),
        ("orthogonal", math.sqrt(1 / (9 * 64))),
        ("normal", 0.01),
    ],
)
def test_each_initialiser_of_a_config_is_named_and_draws_the_deviation_of_its_closed_form(
    name: str, std: float
) -> None:
    init = initializer(name)
    drawn = drawn_by(init, KERNEL)
    assert drawn.name.split()[0] == name
    assert (drawn.mean, drawn.std) == (0.0, pytest.approx(std))
    # 55,296 numbers: a deviation of 0.3 % of it by chance.
    assert np.std(init(jax.random.key(0), KERNEL)) == pytest.approx(std, rel=0.02)


def test_the_gain_of_the_activation_is_in_the_deviation() -> None:
    drawn = drawn_by(initializer("kaiming_fan_in_normal", "tanh"), (5, 7))
    assert drawn.std == pytest.approx(GAINS["tanh"] / math.sqrt(5))


@pytest.mark.parametrize(
    "init",
    [
        nn.initializers.truncated_normal(0.3, lower=-1.0, upper=0.5),
        nn.initializers.uniform(0.2),
        nn.initializers.constant(0.7),
        nn.initializers.ones,
        nn.initializers.zeros,
        nn.initializers.orthogonal(1.5),
        dense_init,
    ],
)
def test_other_initialisers_have_the_moments_that_they_draw(init: object) -> None:
    drawn, values = drawn_by(init, (200, 300)), np.asarray(init(jax.random.key(1), (200, 300)))  # type: ignore[operator]
    assert values.mean() == pytest.approx(drawn.mean, abs=5e-3)
    assert values.std() == pytest.approx(drawn.std, rel=0.02, abs=1e-6)


def test_an_initialiser_that_is_nobodys_has_its_name_and_no_figures() -> None:
    def mine(key: jax.Array, shape: tuple[int, ...], dtype: object = None) -> jax.Array:
        return jnp.full(shape, 0.5)

    drawn = drawn_by(mine, (3,))
    assert (drawn.mean, drawn.std) == (None, None)
    assert "test_an_initialiser" in drawn.name or drawn.name == "mine"


@pytest.mark.parametrize(
    "model",
    [
        ModelConfig(name="resnet8", width=4),
        ModelConfig(name="resnet8", width=4, norm="group", num_groups=2, zero_last_scale=True),
        ModelConfig(name="vgg11", width=4, neck="dense", norm="batch"),
        ModelConfig(name="resnet8", width=4, scan_blocks=True, stage_sizes=(2, 2, 1)),
        ModelConfig(name="seresnet50", width=4),
    ],
)
def test_every_leaf_of_every_kind_of_network_has_an_initialiser(model: ModelConfig) -> None:
    images = Preprocessing((32, 32, 3), (0.5,) * 3, (0.5,) * 3)
    built = build_network(TrainConfig(model=model), images, NAMES)
    found = initialisers_of(built.model, (32, 32, 3))
    assert set(found) == set(flatten(built.shapes))
    assert all(drawn.std is not None for drawn in found.values())


def test_the_leaves_of_a_drawn_network_are_as_their_initialisers_say() -> None:
    config = config_of(model=ModelConfig(name="resnet8", width=32, zero_last_scale=True))
    leaves = {leaf.path: leaf for leaf in of_config(config, values=True, image_size=8, num_classes=5).leaves}
    assert leaves["backbone/stage1/block1/norm2/scale"].drawn.name == "zeros"
    for leaf in leaves.values():
        assert leaf.values.nonfinite == 0
        few = 4 / math.sqrt(2 * leaf.size) if leaf.size > 1 else 1.0  # four deviations of a measured deviation
        assert leaf.values.std == pytest.approx(leaf.drawn.std, rel=few, abs=1e-9), leaf.path


def test_a_head_that_starts_at_zero_says_so() -> None:
    leaves = by_path(config_of(model=ModelConfig(name="resnet8", width=4, head_init="prior")))
    assert (leaves["head/kernel"].drawn.name, leaves["head/kernel"].drawn.std) == ("zeros", 0.0)
    assert (leaves["head/bias"].drawn.name, leaves["head/bias"].drawn.std) == ("log share of class", None)


@pytest.mark.parametrize(("optim", "factor"), [("sgd", 1), ("adamw", 2)])
def test_the_optimizer_holds_once_or_twice_the_bytes_of_what_trains_and_nothing_of_what_is_frozen(
    optim: str, factor: int
) -> None:
    config = config_of(optim=OptimConfig(name=optim, layer_decay=0.5), freeze=("backbone/stem/**",))  # type: ignore[arg-type]
    for leaf in by_path(config).values():
        if leaf.kind == "statistic":
            assert leaf.optimizer_bytes is None
        elif leaf.path.startswith("backbone/stem"):
            assert (leaf.state, leaf.optimizer_bytes, leaf.rate, leaf.decays) == ("frozen", 0, None, False)
        else:
            assert (leaf.state, leaf.optimizer_bytes) == ("trains", factor * leaf.bytes)
    built = network(config)
    state = make_phases(config, built, lambda step: 1.0)[0].state_shapes(built)
    whole = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(state.opt_state))
    leaves, other = leaves_of(config, built)
    assert sum(leaf.optimizer_bytes or 0 for leaf in leaves) + other == whole


def test_sgd_without_momentum_holds_nothing() -> None:
    assert {leaf.optimizer_bytes for leaf in by_path(config_of(optim=OptimConfig(momentum=0.0))).values()} == {0, None}


@pytest.mark.parametrize("optim", [
    OptimConfig(name="sgd"), OptimConfig(name="adamw", clip_norm=1.0), OptimConfig(name="sgd", weight_decay=0.0),
])  # fmt: skip
def test_decay_is_told_of_the_leaves_that_a_step_without_gradient_moves(optim: OptimConfig) -> None:
    config = config_of(optim=optim, freeze=("backbone/stage1/**",))
    built = network(config)
    (phase,) = make_phases(config, built, lambda step: 1.0)
    ones = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), phase.state_shapes(built).params)
    zeros = jax.tree.map(jnp.zeros_like, ones)
    updates = jax.jit(lambda: phase.optimizer.update(zeros, phase.optimizer.init(ones), ones)[0])()
    moved = {path for path, update in flatten(updates).items() if np.any(update)}
    assert {leaf.path for leaf in leaves_of(config, built)[0] if leaf.decays} == moved
    assert moved == (set() if not optim.weight_decay else {path for path in flatten(ones) if path.endswith("kernel")})


def test_rates_are_those_of_depth_times_those_of_name() -> None:
    optim = OptimConfig(layer_decay=0.5, lr_multipliers=(("backbone/stage3/**", 3.0),))
    leaves = by_path(config_of(optim=optim))
    assert leaves["head/kernel"].rate == 1.0
    assert leaves["backbone/stage3/block1/conv1/kernel"].rate == 1.5
    assert leaves["backbone/stem/conv/kernel"].rate == 0.5**4


def test_what_thaws_later_says_when_and_has_an_optimizer_then() -> None:
    config = config_of(
        freeze=("backbone/**",), unfreeze=((2.0, "backbone/stage3/**"),), optim=OptimConfig(name="adamw")
    )
    first, second = by_path(config, 0), by_path(config, 1)
    kernel, mean = "backbone/stage3/block1/conv1/kernel", "backbone/stage3/block1/norm1/mean"
    assert (first[kernel].state, first[kernel].optimizer_bytes) == ("frozen until epoch 2", 0)
    assert (first[mean].state, second[mean].state) == ("frozen until epoch 2", "moves")
    assert (second[kernel].state, second[kernel].optimizer_bytes) == ("trains", 2 * second[kernel].bytes)
    assert first["backbone/stem/conv/kernel"].state == second["backbone/stem/conv/kernel"].state == "frozen"


def test_the_leaves_are_in_the_order_in_which_they_are_computed() -> None:
    paths = [leaf.path for leaf in leaves_of(config_of(), network(config_of()))[0]]
    assert paths[:3] == ["backbone/stem/conv/kernel", "backbone/stem/norm/scale", "backbone/stem/norm/bias"]
    assert paths[-2:] == ["head/kernel", "head/bias"]


def test_the_shapes_of_a_large_network_are_told_without_a_parameter_of_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Every draw of random numbers must be of a traced key, no such program be compiled, and no array be left."""
    drawn, before = jax.random.normal, sum(array.nbytes for array in jax.live_arrays())

    def only_traced(key: jax.Array, *arguments: object, **keywords: object) -> jax.Array:
        assert isinstance(key, jax.core.Tracer), "parameters were drawn"
        return drawn(key, *arguments, **keywords)  # type: ignore[arg-type]

    monkeypatch.setattr(jax.random, "normal", only_traced)
    monkeypatch.setattr("jax._src.random.normal", only_traced)
    config = config_of(model=ModelConfig(name="resnet50", stem="imagenet"), optim=OptimConfig(name="adamw"))
    with jax.log_compiles():
        subject = of_config(config, image_size=224, num_classes=1000)
    compiled = set(re.findall(r"XLA compilation of jit\((\w+)\)", caplog.text))
    assert compiled <= {"_threefry_seed", "stage"}  # of the key, which is an array
    parameters = sum(leaf.size for leaf in subject.leaves if leaf.kind == "parameter")
    assert parameters == 25_557_032 - 64 * 49 * 2  # as published, of grey images
    assert sum(array.nbytes for array in jax.live_arrays()) - before < 1e5


def test_the_pooled_figures_are_those_of_all_numbers_together() -> None:
    random = np.random.default_rng(0)
    arrays = [random.normal(5, 2, (30, 4)), np.zeros(7), np.float32([np.nan, np.inf, 3.0]), np.arange(11)]
    together = pooled(map(values_of, arrays))
    flat = np.concatenate([np.ravel(array) for array in arrays]).astype(np.float64)
    finite = flat[np.isfinite(flat)]
    assert (together.count, together.nonfinite, together.zeros) == (141, 2, 8)
    expected = (finite.mean(), finite.std(), finite.min(), finite.max())
    assert (together.mean, together.std, together.low, together.high) == pytest.approx(expected)


def test_an_array_without_a_finite_number_is_no_reason_to_fail() -> None:
    nothing = values_of(np.float32([np.nan, np.inf]))
    assert (nothing.nonfinite, math.isnan(nothing.mean)) == (2, True)
    assert pooled([nothing, values_of(np.ones(3))]).mean == 1.0
    assert values_of(np.zeros((0, 3))).count == 0


def test_folded_figures_are_those_of_the_leaves_together() -> None:
    config = config_of(freeze=("backbone/stem/**",))
    subject = of_config(config, values=True, image_size=8, num_classes=5)
    backbone = [leaf for leaf in subject.leaves if leaf.path.startswith("backbone") and leaf.kind == "parameter"]
    arrays = [np.ravel(leaf) for leaf in flatten(subject.variables["params"]["backbone"]).values()]
    flat = np.concatenate(arrays).astype(np.float64)
    assert cell(backbone, "std") == pytest.approx(flat.std())
    assert cell(backbone, "zeros") == pytest.approx(np.mean(flat == 0))
    assert (cell(backbone, "size"), cell(backbone, "bytes")) == (flat.size, 4 * flat.size)
    assert cell(backbone, "state") == f"{len(backbone) - 3} of {len(backbone)} train"
    assert cell(backbone, "share") == pytest.approx(flat.size / subject.network.num_parameters)
    expected = np.concatenate(  # of the same mixture, each drawn at its own deviation
        [
            np.repeat([leaf.drawn.mean - leaf.drawn.std, leaf.drawn.mean + leaf.drawn.std], leaf.size)
            for leaf in backbone
        ]
    )
    assert cell(backbone, "init_std") == pytest.approx(expected.std())


def test_the_gradient_and_update_of_a_branch_are_norms_of_all_of_it() -> None:
    leaves = [Leaf(path, "parameter", (2,), "float32") for path in ("a/kernel", "a/bias", "a/scale")]
    figures = {
        "a/kernel": {"grad_norm": 3.0, "weight_norm": 2.0, "update_ratio": 0.5},
        "a/bias": {"grad_norm": 4.0, "weight_norm": 1.0},
    }
    stepped = with_step(leaves, figures)
    assert cell(stepped, "grad_norm") == 5.0
    assert cell(stepped, "update_ratio") == 0.5  # of kernels alone
    assert cell(stepped[2:], "grad_norm") is None


def test_statistics_are_folded_apart_from_parameters() -> None:
    leaves = leaves_of(config_of(), network(config_of()))[0]
    rows = {(row.path, row.kind): len(row.leaves) for row in folded(leaves, 2)}
    assert (rows["backbone/stem", "parameter"], rows["backbone/stem", "statistic"]) == (3, 2)


def test_names_with_dots_are_folded_and_filtered_by_their_dots() -> None:
    leaves = leaves_of_tensors({name: np.ones(2) for name in ("layer1.0.conv1.weight", "layer1.1.bn.bias", "fc.bias")})
    assert [(row.path, len(row.leaves)) for row in folded(leaves, 1)] == [("layer1", 2), ("fc", 1)]
    assert [leaf.path for leaf in filtered(leaves, ["**.bias"])] == ["layer1.1.bn.bias", "fc.bias"]
    assert [leaf.path for leaf in filtered(leaves, ["!layer1.**"])] == ["fc.bias"]


def test_rows_are_sorted_by_any_column_and_those_without_a_value_are_last() -> None:
    leaves = leaves_of(config_of(), network(config_of()))[0]
    for column in COLUMNS:
        assert len(ordered(folded(leaves, None), COLUMNS, column.name)) == len(leaves)
    sizes = [row.leaves[0].size for row in ordered(folded(leaves, None), COLUMNS, "-size")]
    assert sizes == sorted(sizes, reverse=True)
    shares = [row.leaves[0].share for row in ordered(folded(leaves, None), COLUMNS, "share")]
    known = [share for share in shares if share is not None]
    assert known == sorted(known)
    assert shares[len(known) :] == [None] * 14


def test_a_config_whose_data_are_not_known_says_what_to_give() -> None:
    config = TrainConfig(name="mine", model=ModelConfig(name="resnet8", width=4))
    folder = config.data.__class__(source="folder", data_dir="/nowhere")
    config = TrainConfig(data=folder, model=config.model)
    with pytest.raises(InputError, match=r"--image-size PX --num-classes N"):
        network_of(config)
    assert network_of(config, 16, 7).preprocessing.image_shape == (16, 16, 3)


def test_the_description_of_a_tfds_data_set_is_enough_where_it_is_not_prepared(tmp_path: object) -> None:
    data = TrainConfig().data.__class__(name="cifar10", data_dir=str(tmp_path))
    built = network_of(TrainConfig(data=data, model=ModelConfig(name="resnet8", width=4)))
    assert (built.preprocessing.image_shape, len(built.class_names)) == ((32, 32, 3), 10)


def test_drawing_does_not_depend_on_the_look(tiny_config: TrainConfig) -> None:
    subject = of_config(tiny_config, values=True)
    drawn = flatten(initial_variables(tiny_config, subject.network))
    for full, leaf in flatten(subject.variables).items():
        np.testing.assert_array_equal(leaf, drawn[full])
