"""Gradual unfreezing: rules of phases, learning rates of leaves, what is carried over, whole runs."""

import logging
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcnn.build import build_job
from jaxcnn.config import OptimConfig, TrainConfig
from jaxcnn.errors import InputError, Interrupted
from jaxcnn.interruption import StopRequest
from jaxcnn.loop import train
from jaxcnn.network import load_variables
from jaxcnn.paths import GlobRule, flatten
from jaxcnn.run_folder import RunFolder
from jaxcnn.training.learning_rates import factors_of
from jaxcnn.training.optim import carry_over, make_optimizer
from jaxcnn.training.partition import check_phases, first_phases, phase_rules
from jaxcnn.training.state import to_trees
from tests.conftest import with_fields
from tests.runs import StopAt

PARAMS = {
    "backbone": {"stem": {"kernel": jnp.ones(3)}, "stage1": {"kernel": jnp.ones(3), "bias": jnp.ones(2)}},
    "head": {"kernel": jnp.ones(3), "bias": jnp.zeros(2)},
}
PARTS = ("backbone/stem", "backbone/stage1", "head")


def test_each_phase_freezes_less() -> None:
    rules = phase_rules(("backbone/**",), ((2.0, "backbone/stage1/kernel"), (5.0, "**"), (2.0, "**/bias")))
    assert [epoch for epoch, _ in rules] == [0.0, 2.0, 5.0]
    first = first_phases(PARAMS, [rule for _, rule in rules])
    assert first == {
        "head/kernel": 0,
        "head/bias": 0,
        "backbone/stage1/kernel": 1,
        "backbone/stage1/bias": 1,
        "backbone/stem/kernel": 2,
    }


@pytest.mark.parametrize(
    ("unfreeze", "message"),
    [
        (((0.0, "**"),), "an epoch above 0"),
        (((1.0, "!backbone/**"),), "a glob of what trains then"),
        (((1.0, "bakbone/**"),), r"unfreeze: 'bakbone/\*\*' matches no parameter; nearest paths: backbone"),
        (((1.0, "head/**"),), "all that it matches trains already"),
        (((1.0, "backbone/**"), (1.0, "head/**")), r"unfreeze=1 'head/\*\*': all that it matches trains already"),
        (((10.0, "**"),), "the run has only 10 epochs"),
    ],
)
def test_phases_that_make_no_sense_are_refused(unfreeze, message) -> None:
    with pytest.raises(InputError, match=message):
        check_phases(PARAMS, phase_rules(("backbone/**",), unfreeze), 10.0)


def test_a_freeze_that_freezes_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="nothing is frozen by it"):
        check_phases(PARAMS, phase_rules(("!backbone/**",), ()), 10.0)


def test_learning_rates_fall_with_the_distance_from_the_head() -> None:
    factors = factors_of(PARAMS, PARTS, 0.5, (("backbone/**", 0.1), ("**/bias", 2.0)))
    assert factors == pytest.approx(
        {
            "backbone/stem/kernel": 0.25 * 0.1,
            "backbone/stage1/kernel": 0.5 * 0.1,
            "backbone/stage1/bias": 0.5 * 2.0,
            "head/kernel": 1.0,
            "head/bias": 2.0,
        }
    )
    with pytest.raises(InputError, match=r"lr_multipliers: 'haed/\*\*' matches no parameter; nearest paths: head"):
        factors_of(PARAMS, PARTS, 1.0, (("haed/**", 2.0),))


def test_a_learning_rate_of_what_never_trains_is_refused(tiny_config: TrainConfig) -> None:
    config = with_fields(tiny_config, freeze=("backbone/**",), optim__lr_multipliers=(("backbone/**", 0.1),))
    with pytest.raises(InputError, match=r"optim.lr_multipliers: 'backbone/\*\*' matches only what is frozen"):
        build_job(config)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_factor_scales_the_whole_update_of_its_leaf(name: str) -> None:
    config, factors = OptimConfig(name, weight_decay=0.1), factors_of(PARAMS, PARTS, 0.5, ())
    grads = jax.tree.map(lambda leaf: leaf + 1.0, PARAMS)

    def update(factors: dict | None) -> dict:
        optimizer = make_optimizer(config, lambda step: 0.1, factors)
        return flatten(optimizer.update(grads, optimizer.init(PARAMS), PARAMS)[0])

    plain, scaled = update(None), update(factors)
    for path, value in plain.items():
        np.testing.assert_allclose(scaled[path], factors[path] * value, rtol=1e-6, err_msg=path)


def test_adam_counts_the_steps_of_what_was_thawed_from_there() -> None:
    """After a thaw the old leaves go on as if nothing had happened, the new ones as in a fresh optimizer."""
    config = OptimConfig("adamw", weight_decay=0.0)
    early, late = {"head": PARAMS["head"]}, PARAMS
    first = first_phases(PARAMS, [GlobRule(("backbone/**",)), GlobRule()])
    before = make_optimizer(config, lambda step: 0.1, None, dict.fromkeys(flatten(early), 0))
    after = make_optimizer(config, lambda step: 0.1, None, first)
    rng = np.random.default_rng(0)
    gradients = [
        jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), PARAMS) for _ in "123"
    ]
    state = before.init(early)
    for grads in gradients[:2]:
        _, state = before.update({"head": grads["head"]}, state, early)
    updates, _ = after.update(gradients[2], carry_over(state, after.init(late)), late)

    adam = optax.adam(0.1)
    whole = adam.init(early)
    for grads in gradients:
        expected, whole = adam.update({"head": grads["head"]}, whole)
    fresh, _ = adam.update({"backbone": gradients[2]["backbone"]}, adam.init({"backbone": PARAMS["backbone"]}))
    for path, value in {**flatten(expected), **flatten(fresh)}.items():
        np.testing.assert_allclose(flatten(updates)[path], value, rtol=1e-5, err_msg=path)


@pytest.mark.parametrize("epochs", [(1.0, 1.01), (2.999,)])
def test_a_phase_without_a_step_is_refused(tiny_config: TrainConfig, epochs) -> None:
    globs = ("backbone/stage3/**", "backbone/stage2/**")
    config = with_fields(tiny_config, freeze=("backbone/**",), unfreeze=tuple(zip(epochs, globs, strict=False)))
    with pytest.raises(InputError, match="has no step before the next or the end of the run"):
        build_job(config)


@pytest.fixture
def gradual(tiny_config: TrainConfig) -> TrainConfig:
    """Head alone, then the last stage too, then all: 3 phases of some 6 steps, everything on."""
    config = with_fields(
        tiny_config, optim__name="adamw", optim__peak_lr=0.01, optim__clip_norm=1.0, optim__ema_decay=0.9,
        optim__weight_decay=0.1, optim__accumulation=2, optim__layer_decay=0.9, model__dropout=0.2,
    )  # fmt: skip
    return with_fields(config, freeze=("backbone/**",), unfreeze=((1.0, "backbone/stage3/**"), (2.0, "**")))


def trained(config: TrainConfig, path: Path, stop: StopRequest | None = None) -> tuple[RunFolder, dict]:
    held = RunFolder(path) if path.exists() else None
    job = build_job(config, held)
    folder = held or RunFolder.create(path, config, job.network.class_names, job.network.preprocessing)
    return folder, train(job, folder, stop or StopRequest())


def test_a_run_thaws_by_epoch_and_says_so(gradual: TrainConfig, tmp_path: Path, caplog, monkeypatch) -> None:
    monkeypatch.setattr(logging.getLogger("jaxcnn"), "propagate", True)
    before = flatten(build_job(gradual).initial_state().current)
    with caplog.at_level("INFO", logger="jaxcnn"):
        folder, result = trained(gradual, tmp_path / "run")
    steps = [line["step"] for line in folder.metrics()]
    assert steps == [7, 13, 19]
    for number, step in ((1, 0), (2, 7), (3, 13)):
        assert f"phase {number} of 3 from step {step}: " in caplog.text
    assert len({record.getMessage() for record in caplog.records if "compiled in" in record.getMessage()}) == 3
    after = flatten(load_variables(folder, "latest")[0])
    assert all(not np.array_equal(before[path], after[path]) for path in after)
    assert result["final"]["step"] == 19


@pytest.mark.slow
def test_checkpoints_of_every_phase_can_be_measured_and_gone_on_with(gradual: TrainConfig, tmp_path: Path) -> None:
    """Interrupted at each boundary and in the middle of each phase: bit for bit the run that never was."""
    whole, _ = trained(gradual, tmp_path / "whole")

    cut, sessions = tmp_path / "cut", 0
    while True:
        try:
            folder, _ = trained(gradual, cut, StopAt(3))
            break
        except Interrupted:
            sessions += 1
            load_variables(RunFolder(cut), "latest")
            assert sessions < 40
    assert sessions >= 3
    for one, other in zip(whole.metrics(), folder.metrics(), strict=True):
        assert one["train"] == other["train"]
        assert one["validation"] == other["validation"]
    ours, theirs = (flatten(load_variables(each, "latest")[0]) for each in (whole, folder))
    assert all(np.array_equal(ours[path], theirs[path]) for path in ours)


def test_what_is_frozen_is_neither_copied_nor_changed_by_a_chunk(gradual: TrainConfig) -> None:
    job = build_job(gradual)
    state, sums = job.initial_state(), job.zero_sums()
    compiled = job.compile_chunk(state, sums)
    place = {path: leaf.unsafe_buffer_pointer() for path, leaf in flatten(state.frozen).items()}
    frozen = {path: np.array(leaf) for path, leaf in flatten(state.frozen).items()}
    state, _, _ = compiled(state, sums, job.feed.source, job.feed.inputs(0, 4), np.int32(4))
    for path, leaf in flatten(state.frozen).items():
        assert leaf.unsafe_buffer_pointer() == place[path], path
        assert np.array_equal(leaf, frozen[path]), path
    assert not any("backbone" in path for path in flatten(to_trees(state, {})["average"]))


@pytest.mark.parametrize(
    ("freeze", "kinds"),
    [(("**", "!**/*norm*/*", "!head/**"), {"scale", "bias"}), (("**", "!**/bias", "!head/**"), {"bias"})],
    ids=["norms and head", "biases and head"],
)
def test_norms_or_biases_alone_can_train(freeze, kinds) -> None:
    from jaxcnn.config import ModelConfig, Preprocessing
    from jaxcnn.network import build_network
    from jaxcnn.training.partition import partition

    config = TrainConfig(model=ModelConfig(name="resnet18"))
    params = build_network(config, Preprocessing((32, 32, 3), (0.5,) * 3, (0.5,) * 3), ("a", "b")).shapes["params"]
    trainable = flatten(partition(params, GlobRule(freeze))[0])
    every = [path for path in flatten(params) if path.rpartition("/")[2] in kinds or path.startswith("head/")]
    assert sorted(trainable) == sorted(every)
