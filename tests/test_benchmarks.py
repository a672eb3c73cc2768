"""The benchmarks measure what they say: the same network in every candidate, ratios of the same round. No timings."""

import dataclasses
import json
import os
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import arguments, cards, comparison, fairness, figure, processes, report, timings
from benchmarks.__main__ import main
from benchmarks.candidates import CANDIDATES
from benchmarks.comparison import Comparison
from benchmarks.plain_flax import Network
from benchmarks.processes import Worker
from benchmarks.ratios import orders, pairwise
from benchmarks.workloads import ARCHITECTURES, TIMED, WORKLOADS, Task, task_of
from jaxcnn.errors import InputError, RunFailed
from jaxcnn.paths import flatten


def tiny(candidate: str, kind: str = "train", network: str = "resnet20", **settings: object) -> Task:
    workload = dataclasses.replace(WORKLOADS[network], image_px=32 if network == "vgg11_bn" else 8, batch=2)
    return task_of(workload, candidate, kind, **{"options": {"width": 8}, **settings})


@pytest.fixture
def weights(tmp_path: Path):
    """Returns a task -> the same task with a file of weights for it."""
    return lambda task: dataclasses.replace(task, weights=str(fairness.write_weights(task, tmp_path)))


# Statistics


def test_each_candidate_takes_one_turn_a_round_and_none_is_always_first() -> None:
    rounds = list(orders(["a", "b", "c"], 60))
    assert all(sorted(order) == ["a", "b", "c"] for order in rounds)
    firsts = [order[0] for order in rounds]
    assert all(firsts.count(name) > 10 for name in "abc")


def test_what_slows_a_whole_round_does_not_change_its_ratio() -> None:
    slowness = np.array([1.0, 7.0, 1.5, 30.0, 2.0])
    ratio = pairwise(0.5 * slowness, 0.4 * slowness)
    assert (ratio.median, ratio.low, ratio.high) == pytest.approx((1.25, 1.25, 1.25))


def test_a_ratio_is_the_median_of_pairs_not_the_ratio_of_medians() -> None:
    # Pairs: 1, 2, ..., 101: the median is 51; 16 % and 84 % of the way are 17 and 85.
    ratio = pairwise([float(n) for n in range(1, 102)], [1.0] * 101)
    assert (ratio.median, ratio.low, ratio.high) == pytest.approx((51, 17, 85))
    assert pairwise([1.0, 4.0, 9.0], [1.0, 1.0, 9.0]).median == 1.0


# The same network in each candidate


@pytest.mark.parametrize("network", list(WORKLOADS))
def test_plain_flax_has_the_leaves_of_our_network(network: str) -> None:
    from benchmarks.ours import shapes_of
    from benchmarks.plain_flax_program import network_of

    task = task_of(WORKLOADS[network], "ours", "train")
    image = jax.ShapeDtypeStruct((1, *task.image_shape), jnp.float32)
    theirs = jax.eval_shape(network_of(task, "float32").init, jax.random.key(0), image)
    shapes = [{path: leaf.shape for path, leaf in flatten(tree).items()} for tree in (shapes_of(task), theirs)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("candidate", ["flax", "pytorch"])
@pytest.mark.parametrize("network", ["resnet20", "resnet18", "resnet50", "vgg11_bn"])
def test_a_peer_has_our_logits_for_our_weights(weights, candidate: str, network: str) -> None:
    if CANDIDATES[candidate].uses_torch:
        pytest.importorskip("torch")
    from importlib import import_module

    task = weights(tiny("ours", "forward", network))
    images = np.random.default_rng(2).normal(size=(2, *task.image_shape)).astype(np.float32)
    answers = {}
    for name in ("ours", candidate):
        program = import_module(CANDIDATES[name].module).build(dataclasses.replace(task, candidate=name))
        answers[name] = {"parameters": program.parameters, "logits": program.logits(images)}
    fairness.check(answers, network)


@pytest.mark.parametrize("network", [name for name in WORKLOADS if name != "resnet110"])
def test_torch_networks_have_the_parameters_of_ours(network: str) -> None:
    torch = pytest.importorskip("torch")
    from benchmarks.ours import shapes_of
    from benchmarks.torch_networks import build_network

    task = task_of(WORKLOADS[network], "ours", "train")
    with torch.device("meta"):
        theirs = build_network(task.architecture, task.num_classes)
    count = sum(leaf.size for leaf in jax.tree.leaves(shapes_of(task)["params"]))
    assert sum(parameter.numel() for parameter in theirs.parameters()) == count


def test_another_network_or_other_logits_stop_the_benchmark() -> None:
    ours = {"parameters": 1000, "logits": [[1.0, -2.0]]}
    assert fairness.check({"ours": ours, "theirs": {**ours, "logits": [[1.0, -2.00001]]}}, "net")["theirs"] < 1e-5
    with pytest.raises(RunFailed, match="theirs has 1,001 parameters and ours 1,000"):
        fairness.check({"ours": ours, "theirs": {**ours, "parameters": 1001}}, "net")
    with pytest.raises(RunFailed, match=r"theirs and ours differ by 5.0e-02"):
        fairness.check({"ours": ours, "theirs": {**ours, "logits": [[1.1, -2.0]]}}, "net")
    with pytest.raises(RunFailed, match="nan"):
        fairness.check({"ours": ours, "theirs": {**ours, "logits": [[float("nan"), -2.0]]}}, "net")


def test_weights_have_running_statistics_that_no_network_starts_with(tmp_path: Path) -> None:
    with np.load(fairness.write_weights(tiny("ours"), tmp_path)) as file:
        assert all(np.std(leaf) > 0 for leaf in file.values())
        assert all(np.all(leaf > 0) for path, leaf in file.items() if path.endswith("/var"))


# Training steps


def test_one_dispatch_of_several_steps_runs_the_program_of_one_step(weights) -> None:
    from benchmarks import ours

    one, several = (ours.train_program(tiny(name, steps=3)) for name in ("ours", "ours-chunk"))
    assert one.arguments[3].images.shape == (3, 2, 8, 8, 3)
    assert one.jitted.lower(*one.arguments).as_text() == several.jitted.lower(*several.arguments).as_text()
    ours.build(weights(tiny("ours-chunk", steps=3))).run(3)


@pytest.mark.parametrize("candidate", ["ours-input", "flax", "pytorch"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_candidates_take_training_steps(weights, candidate: str, dtype: str) -> None:
    if CANDIDATES[candidate].uses_torch:
        pytest.importorskip("torch")
    from importlib import import_module

    import_module(CANDIDATES[candidate].module).build(weights(tiny(candidate, dtype=dtype))).run(2)


# Worker processes


def test_a_comparison_is_measured_written_and_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = tuple(tiny(name, "forward") for name in ("ours", "flax"))
    rows = comparison.measure(Comparison("tiny", tasks, "flax"), rounds=2, warmup=1)
    assert [row["candidate"] for row in rows] == ["ours", "flax"]
    assert rows[0]["parameters"] == rows[1]["parameters"]
    assert rows[1]["ratio"] == {"median": 1.0, "low": 1.0, "high": 1.0}
    assert rows[0]["ratio"]["median"] > 0
    assert len(rows[0]["seconds"]) == 2

    report.write(tmp_path, "inference", ["--rounds", "2"], rows, timings.table(rows))
    found = json.loads((tmp_path / "inference.json").read_text())
    assert found["command"] == "python -m benchmarks inference --rounds 2"
    assert {"cpu", "cores", "memory_gib", "versions", "commit", "date", "gpu"} <= found["machine"].keys()
    lines = (tmp_path / "inference.md").read_text().splitlines()
    assert lines[2].startswith("| tiny | 8x8 | 2 | float32 | jaxcnn |")
    assert len({line.count("|") for line in lines[:4]}) == 1
    for row in found["rows"]:
        row["baseline"] = "pytorch"
    figure.draw({"inference": found}, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes()[1:4] == b"PNG"


def test_compilation_is_measured_in_its_own_process(tmp_path: Path) -> None:
    with Worker(tiny("flax"), {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache")}) as worker:
        answer = worker.compile()
    assert answer["temp_bytes"] > 0
    assert any((tmp_path / "cache").iterdir())


def fake_worker(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Lets every worker run these lines of Python."""
    start = processes.subprocess.Popen
    monkeypatch.setattr(
        processes.subprocess, "Popen", lambda command, **options: start([sys.executable, "-c", code], **options)
    )


def test_a_worker_that_dies_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch, capfd, tmp_path: Path) -> None:
    fake_worker(monkeypatch, "import sys; sys.exit('no more chalk')")
    assert main(["inference", "--networks", "resnet20", "--candidates", "ours", "--out", str(tmp_path)]) == 1
    told = capfd.readouterr().err
    assert told == "error: jaxcnn, resnet20: its process ended with exit code 1 (no more chalk)\n"
    assert not (tmp_path / "inference.json").exists()


def test_a_worker_that_is_killed_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_worker(monkeypatch, "import os; os.kill(os.getpid(), 9)")
    with Worker(tiny("flax")) as worker, pytest.raises(RunFailed, match="want of memory"):
        worker.turn()


def test_a_candidate_that_may_fail_is_skipped_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = '{"error": "no compiler", "input": false}'
    fake_worker(monkeypatch, f"import sys\nfor line in sys.stdin: print('''{answer}''', flush=True)")
    with Worker(tiny("torch.compile")) as worker, pytest.raises(processes.WorkerError, match="no compiler"):
        worker.turn()
    with Worker(tiny("pytorch")) as worker, pytest.raises(RunFailed, match="no compiler"):
        worker.turn()
    row = {"network": "n", "title": "t", "task": dataclasses.asdict(tiny("torch.compile")), "skipped": "no compiler"}
    assert "skipped: no compiler" in timings.table([row])


def test_without_torch_one_line_says_how_to_install_it(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    told = pytest.raises(InputError, match=r'torch is not installed: pip install -e ".\[benchmarks\]"')
    with Worker(tiny("pytorch"), {"PYTHONPATH": path}) as worker, told:
        worker.build(tmp_path / "images.npy")


# The command line


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["stepz"], "no command 'stepz'; did you mean 'steps'"),
        (["steps", "--networks", "resnet19"], "--networks 'resnet19': did you mean"),
        (["steps", "--candidates", "pytorchh"], "--candidates 'pytorchh': did you mean 'pytorch'"),
        (["steps", "--rounds", "0"], "argument --rounds: 0 is less than 1"),
        (["steps", "--option", "width"], "--option 'width': KEY=VALUE is meant"),
        (["steps", "--option", "widht=8"], "--option widht: no such field of ModelConfig; did you mean 'width'"),
        (["steps", "--what"], "unrecognized arguments: --what"),
        (["figure", "--results", "/nowhere"], "/nowhere has neither steps.json nor inference.json"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(argv: list[str], told: str, capsys, tmp_path: Path) -> None:
    out = [] if argv[0] in ("stepz", "figure") else ["--out", str(tmp_path)]
    assert main([*argv, *out]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert told in error


def test_a_gpu_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(arguments, "gpu_name", lambda: None)
    assert main(["steps", "--device", "gpu"]) == 2
    assert capsys.readouterr().err == "error: --device gpu: nvidia-smi shows no GPU on this machine\n"


def test_a_gpu_that_the_library_does_not_see_is_told(tmp_path: Path) -> None:
    with Worker(tiny("flax", device="gpu")) as worker, pytest.raises(InputError, match="JAX sees no GPU"):
        worker.build(tmp_path / "images.npy")


def test_each_timed_network_is_known_to_the_peers() -> None:
    for names in TIMED.values():
        assert {WORKLOADS[name].model for name in names} <= ARCHITECTURES.keys()
    assert isinstance(Network(ARCHITECTURES["resnet18"], 10, jnp.float32), Network)


# Cards


def test_utilisation_of_a_resnet50_at_its_published_speed() -> None:
    # 4.09 G multiply-adds; 2,470 images/s is NVIDIA's figure for an A100: 61 TFLOP/s of 312.
    assert cards.utilisation(4_089_184_256, 2470, 1.0, cards.peak_flops("NVIDIA A100-SXM4-80GB")) == pytest.approx(
        0.194, abs=1e-3
    )


def test_cards_are_told_apart_by_name() -> None:
    names = (
        "NVIDIA H100 80GB HBM3",
        "NVIDIA H100 PCIe",
        "NVIDIA L4",
        "NVIDIA L40S",
        "NVIDIA GeForce RTX 3090 Ti",
        None,
    )
    peaks = [cards.peak_flops(name) for name in names]
    assert peaks == [989e12, 756e12, 121e12, 362e12, None, None]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("tpu --batch-per-chip 0", "0 is less than 1"),
        ("tpu --network resnet5", "--network 'resnet5': did you mean"),
        ("tpu --out /proc/x", "--out /proc/x: "),
        ("steps --candidates dispatch --networks resnet50", "--candidates dispatch: compared on"),
        ("steps --networks ,", "no name is given"),
        ("steps --option name=1 --networks resnet20 --candidates ours", "--option name: no such field"),
        ("steps --option width=abc --networks resnet20 --candidates ours", "--option: width"),
        ("figure --picture /proc/x/a.png", "--picture /proc/x: "),
    ],
)
def test_more_mistakes_are_told_in_one_line_before_anything_is_measured(arguments: str, message: str, capsys) -> None:
    assert main(arguments.split()) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    assert errors[0].startswith("error: ")
    assert message in errors[0]
