"""Frozen means frozen: everything on for 50 steps, and not a bit of what is frozen has changed."""

import jax
import numpy as np
import pytest

from jaxcnn.build import build_job
from jaxcnn.config import TrainConfig
from jaxcnn.job import Job
from jaxcnn.paths import flatten
from jaxcnn.training.state import TrainState
from tests.conftest import with_fields

STEPS = 50


@pytest.fixture
def everything(tiny_config: TrainConfig) -> TrainConfig:
    """Decay, momentum, clipping, moving averages, accumulation, dropout and bfloat16: 50 steps in 8 epochs."""
    return with_fields(
        tiny_config, optim__weight_decay=0.1, optim__momentum=0.9, optim__clip_norm=0.5, optim__ema_decay=0.9,
        optim__accumulation=2, optim__layer_decay=0.8, model__dtype="bfloat16", model__dropout=0.2, train__epochs=8.0,
    )  # fmt: skip


def leaves_of(state: TrainState) -> dict[str, np.ndarray]:
    return {path: np.array(leaf) for path, leaf in flatten(jax.device_get(state.current)).items()}


def trained(job: Job) -> list[tuple[TrainState, dict, dict]]:
    """(state at the end, leaves at its start, leaves at its end) of each phase."""
    state, sums, phases, step = job.initial_state(), job.zero_sums(), [], 0
    ends = [*(job.step_of(phase.epoch) for phase in job.phases[1:]), STEPS]
    for index, end in enumerate(ends):
        if index:
            state = job.phases[index].go_on(state)
        before, compiled = leaves_of(state), job.compile_chunk(state, sums, index)
        while step < end:
            count = min(4, end - step)
            inputs = job.feed.inputs(step, count)
            state, sums, _ = compiled(state, sums, job.feed.source, inputs, np.int32(count))
            step += count
        phases.append((jax.device_get(state), before, leaves_of(state)))
        sums = job.zero_sums()
    return phases


def frozen_by(job: Job, phase: int) -> set[str]:
    """Paths of parameters and statistics that must not move, told from the rule alone."""
    rule, shapes = job.phases[phase].rule, job.network.shapes
    params = {f"params/{path}" for path in flatten(shapes["params"]) if rule.matches(path)}
    norms = {path.rpartition("/")[0] for path in flatten(shapes["batch_stats"])}
    still = {norm for norm in norms if rule.matches(f"{norm}/scale") and rule.matches(f"{norm}/bias")}
    return params | {f"batch_stats/{norm}/{name}" for norm in still for name in ("mean", "var")}


@pytest.mark.parametrize(
    ("freeze", "unfreeze", "optimizer"),
    [
        (("backbone/**",), (), "sgd"),
        (("backbone/**", "!backbone/stage3/**"), (), "adamw"),
        (("backbone/**",), ((2.0, "backbone/stage3/**"), (4.0, "**/*norm*/*"), (6.0, "**")), "sgd"),
        (("backbone/**",), ((3.0, "**"),), "adamw"),
    ],
    ids=["linear probe", "last stage", "gradual", "head, then all"],
)
def test_what_is_frozen_is_bit_identical_and_what_trains_has_moved(everything, freeze, unfreeze, optimizer) -> None:
    rate = 0.05 if optimizer == "sgd" else 0.003
    config = with_fields(everything, optim__name=optimizer, optim__peak_lr=rate, freeze=freeze, unfreeze=unfreeze)
    job = build_job(config)
    assert job.total_steps == STEPS
    for index, (state, before, after) in enumerate(trained(job)):
        moved = {path for path in before if before[path].tobytes() != after[path].tobytes()}
        frozen = frozen_by(job, index)
        assert moved == before.keys() - frozen
        averaged = {path: np.asarray(leaf) for path, leaf in flatten(state.variables).items()}
        assert all(averaged[path].tobytes() == before[path].tobytes() for path in frozen), "an average has drifted"
        held = " ".join(jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(state.opt_state))
        for path in frozen:
            name = "".join(f"['{part}']" for part in path.removeprefix("params/").split("/"))
            assert name not in held, f"the optimizer has a state for {path}"
