"""`python -m benchmarks frozen`: every candidate trains the head alone, and the ratios are what the table says."""

import dataclasses
import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import fairness, frozen, frozen_ours
from benchmarks.__main__ import main
from benchmarks.frozen_ours import chunk_of
from benchmarks.ours import shapes_of
from benchmarks.workloads import WORKLOADS, Task, task_of
from jaxcnn.paths import flatten, unflatten


def tiny(candidate: str, **settings: object) -> Task:
    workload = dataclasses.replace(WORKLOADS["resnet20"], image_px=8, batch=2)
    return task_of(workload, candidate, "train", **{"options": {"width": 8}, **settings})


@pytest.fixture
def weights(tmp_path: Path):
    """Returns a task -> the same task with a file of weights for it."""
    return lambda task: dataclasses.replace(task, weights=str(fairness.write_weights(task, tmp_path)))


def variables_of(task: Task) -> dict:
    with np.load(task.weights) as file:
        return unflatten({path: jnp.asarray(leaf) for path, leaf in file.items()})


def moved(before: dict, after: dict) -> set[str]:
    """The paths of leaves that are not bit for bit what they were."""
    flat = flatten(after)
    return {path for path, leaf in flatten(before).items() if not np.array_equal(np.asarray(leaf), flat[path])}


# What trains


@pytest.mark.parametrize("candidate", ["ours-probe", "ours-clip"])
def test_our_probe_trains_the_head_alone_on_the_images_of_forward_only(weights, candidate: str) -> None:
    task = weights(tiny(candidate))
    program, forward = frozen_ours.train_program(task), frozen_ours.train_program(tiny("ours-forward"))
    inputs, images = program.arguments[3].images, forward.arguments[1]
    assert (inputs.shape[1:], inputs.dtype) == (images.shape, images.dtype)
    chunk, variables = chunk_of(task), variables_of(task)
    state, inputs = chunk.state_of(jax.tree.map(jnp.array, variables)), chunk.data()[1]
    after, _, _ = program.jitted(state, chunk.zero_sums(state), None, inputs, np.int32(2))
    assert moved(variables, after.current) == {"params/head/kernel", "params/head/bias"}


def test_plain_flax_frozen_trains_the_head_alone(weights) -> None:
    from benchmarks.plain_flax_program import train_program

    task = weights(tiny("flax-frozen"))
    state, images, labels = train_program(task).arguments
    variables = variables_of(task)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), state)
    after, _ = train_program(task).jitted({**zeros, **variables}, jnp.ones(images.shape), jnp.zeros(labels.shape, int))
    assert moved(variables_of(task), after) == {"params/head/kernel", "params/head/bias"}


def test_pytorch_frozen_trains_the_head_alone() -> None:
    pytest.importorskip("torch")
    from benchmarks.torch_networks import build_network
    from benchmarks.torch_program import make_trainer

    task = tiny("pytorch-frozen")
    network = build_network(task.architecture, task.num_classes)
    before = {name: value.clone().numpy() for name, value in network.state_dict().items()}
    make_trainer(task, network)(2)
    after = {name: value.numpy() for name, value in network.state_dict().items()}
    assert {name for name in before if not np.array_equal(before[name], after[name])} == {"fc.weight", "fc.bias"}


def test_a_head_step_on_features_is_the_probe_step_of_their_images(weights) -> None:
    from jaxcnn.augment.normalise import normalise
    from jaxcnn.models.classifier import output_at

    task = weights(tiny("ours-probe"))
    probe, head = chunk_of(task), chunk_of(dataclasses.replace(task, candidate="ours-head"))
    variables, batch = variables_of(task), probe.data()[1]
    features = output_at(probe.model(), variables, normalise(batch.images[0], (0.5,) * 3, (0.25,) * 3), "pooled")
    states = [chunk.state_of(variables) for chunk in (probe, head)]
    ends = [
        chunk.step(state, inputs, batch.labels[0])[0].params
        for chunk, state, inputs in zip((probe, head), states, (batch.images[0], features), strict=True)
    ]
    assert ends[1].keys() == {"head"}
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, atol=1e-6), *ends)


@pytest.mark.parametrize("candidate", ["ours-forward", "ours-probe", "ours-head"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_our_candidates_take_turns(weights, candidate: str, dtype: str) -> None:
    task = weights(tiny(candidate, dtype=dtype, steps=3))
    program = frozen_ours.build(task)
    program.run(3)
    assert program.parameters == sum(leaf.size for leaf in jax.tree.leaves(shapes_of(task)["params"]))


def test_no_convolution_of_a_probe_is_given_to_a_library_that_runs_it_on_one_core() -> None:
    # With the options of training, the mean over the map took the last stage's six, and the memory of their weights.
    task = task_of(WORKLOADS["resnet20"], "ours-probe", "train", batch=8, options={"width": 32})
    program = frozen_ours.train_program(task)
    text = program.jitted.lower(*program.arguments).compile().as_text()
    starts = [text.index(f"\n{name} ") for name in re.findall(r"kind=kCustom, calls=(%[\w.\-]+)", text)]
    assert starts
    assert not [start for start in starts if " convolution(" in text[start : text.index("\n}", start)]]


# What is said of it


def test_a_full_step_has_three_times_the_flops_of_forward_only_less_the_gradient_of_the_images() -> None:
    task = task_of(WORKLOADS["resnet50"], "ours-probe", "train", batch=1)
    # Of 4.09 G multiply-adds 0.118 G are the first convolution's, whose input has no gradient: 3 - 0.118 / 4.09. XLA
    # leaves out those with padding, and what a step does to each parameter counts at a batch of 1: 1.5 % for both.
    assert frozen.flops_ratio(task) == pytest.approx(3 - 0.118 / 4.09, rel=0.015)


def test_claims_are_judged_by_the_pairs_of_each_round() -> None:
    seconds = {
        "ours-forward": [1.0, 10.0, 2.0],
        "ours-probe": [1.04, 10.4, 2.2],  # 1.04, 1.04, 1.1
        "ours": [2.6 * 1.04, 2.6 * 10.4, 2.6 * 2.2],
        "ours-head": [0.02 * 1.04, 0.02 * 10.4, 0.02 * 2.2],
        "flax": [4.16, 41.6, 8.8],
    }
    rows = [{"network": "net", "candidate": name, "seconds": times} for name, times in seconds.items()]
    rows.append({"network": "net", "candidate": "pytorch-frozen", "skipped": "not here"})
    memory = {"ours-forward": 100.0, "ours-probe": 112.0}
    judged = frozen.judge("ours-probe", rows, 3.0, memory)
    assert [row["found"] for row in judged] == pytest.approx([1.04, 4.0, 2.6 / 3, 50, 1.12])
    assert [row["holds"] for row in judged] == [True, True, False, False, False]
    assert [row["asked"] for row in judged] == ["<= 1.05", ">= 3.5", ">= 0.9", ">= 100", "<= 1.1"]
    assert judged[0]["low"] == pytest.approx(1.04)
    assert judged[2]["what"] == "our full step / linear probe, over 3.00 of the FLOPs"


@pytest.mark.slow
def test_the_command_writes_both_tables(tmp_path: Path, capsys) -> None:
    words = "frozen --networks resnet20 --candidates ours-forward,ours-probe,ours-head --rounds 2 --warmup 1 --batch 2"
    assert main([*words.split(), "--option", "width=8", "--out", str(tmp_path)]) == 0
    rows = json.loads((tmp_path / "frozen.json").read_text())["rows"]
    assert [row["candidate"] for row in rows if "candidate" in row] == ["ours-forward", "ours-probe", "ours-head"]
    assert [row["asked"] for row in rows if "asked" in row] == ["<= 1.05", ">= 100", "<= 1.1"]
    assert rows[2]["task"]["steps"] == frozen.HEAD_STEPS
    assert "| linear probe / forward only | <= 1.05 |" in (tmp_path / "frozen.md").read_text()


def test_an_unknown_candidate_is_told_in_one_line(tmp_path: Path, capsys) -> None:
    assert main(["frozen", "--candidates", "ours-heat", "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("error: --candidates 'ours-heat': did you mean 'ours-head'")
