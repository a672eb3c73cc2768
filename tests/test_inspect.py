"""`jaxcnn inspect`, from end to end: tables, files, differences, and each mistake as one line."""

import csv
import dataclasses
import io
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxcnn.build import build_job
from jaxcnn.checkpoint import Checkpoints
from jaxcnn.cli import main
from jaxcnn.config import DataConfig, EvaluationConfig, LoopConfig, ModelConfig, OptimConfig, TrainConfig
from jaxcnn.inspection.columns import COLUMNS as LEAF_COLUMNS
from jaxcnn.inspection.difference import COLUMNS, changes, difference, summary
from jaxcnn.inspection.subject import of_place
from jaxcnn.job import Job
from jaxcnn.paths import flatten
from jaxcnn.run_folder import RunFolder
from jaxcnn.training.state import TrainState, to_trees
from tests.golden.rebuild import state_dict
from tests.pages import Outline
from tests.runs import write_config
from tests.test_cli import mistake

DIGITS = DataConfig(train_split="train[:64]", validation_split="validation[:32]", test_split="test[:32]")
BASE = TrainConfig(
    name="small",
    data=DIGITS,
    model=ModelConfig(name="resnet8", width=4),
    optim=OptimConfig(peak_lr=0.05, ema_decay=None),
    train=LoopConfig(epochs=2.0, batch_size=32, max_steps_per_dispatch=4),
    evaluation=EvaluationConfig(batch_size=32, train_examples=0),
)


def keep(job: Job, path: Path, states: list[TrainState], phase: int = 0) -> Path:
    """A run folder with states of a run as its checkpoints, the first of which is the best."""
    folder = RunFolder.create(path, job.config, job.network.class_names, job.network.preprocessing)
    checkpoints = Checkpoints(folder.checkpoints)
    for place, state in enumerate(states):
        top1 = 0.5 - 0.1 * place
        checkpoints.save(int(state.step), to_trees(state, job.zero_sums()), {"phase": phase}, {"top1": top1})
    checkpoints.close()
    return path


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, digits_dir: str) -> dict[str, Any]:
    """A run at its start, and one that goes on from it with a frozen backbone: at its start, and two steps later.

    "ratio" is the length of the step after these two, done in fact, as a part of the head kernel's norm.
    """
    root = tmp_path_factory.mktemp("runs")
    config = dataclasses.replace(BASE, data=dataclasses.replace(DIGITS, data_dir=digits_dir))
    job = build_job(config)
    start = keep(job, root / "start", [job.initial_state()])
    tuned = dataclasses.replace(config, name="tuned", init_from=str(start), freeze=("backbone/**",))
    job = build_job(tuned)
    state = job.initial_state()
    chunk = job.compile_chunk(state, job.zero_sums(), 0, job.feed.inputs(0, 2))

    def after(state: TrainState, steps: int) -> TrainState:
        copy = jax.tree.map(lambda leaf: leaf.copy(), state)  # what is given is donated
        inputs = job.feed.inputs(int(state.step), steps)
        return chunk(copy, job.zero_sums(), job.feed.source, inputs, np.int32(steps))[0]

    trained = after(state, 2)
    before, then = (np.asarray(one.params["head"]["kernel"], np.float64) for one in (trained, after(trained, 1)))
    tuned = keep(job, root / "tuned", [trained, state.replace(step=state.step + 3)])
    return {"start": start, "tuned": tuned, "ratio": np.linalg.norm(then - before) / np.linalg.norm(before)}


@pytest.fixture(scope="module")
def torch_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("files") / "resnet8.safetensors"
    save_file(state_dict("resnet8", "akamaster"), file)
    return file


def told(capsys: pytest.CaptureFixture, *arguments: object) -> dict:
    capsys.readouterr()
    assert main(["inspect", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_run_is_told_leaf_by_leaf(runs: dict, capsys: pytest.CaptureFixture) -> None:
    found = told(capsys, runs["tuned"])
    rows = {row["path"]: row for row in found["rows"]}
    (kernel,) = [np.asarray(leaf) for path, leaf in flatten(of_place(str(runs["tuned"])).variables).items()
                 if path == "params/head/kernel"]  # fmt: skip
    head = rows["head/kernel"]
    assert (head["shape"], head["size"], head["bytes"], head["dtype"]) == ("16x10", 160, 640, "float32")
    assert (head["state"], head["decay"], head["optimizer"]) == ("trains", "yes", 640)
    assert (head["std"], head["max"]) == pytest.approx((kernel.astype(float).std(), kernel.max()))
    assert (rows["backbone/stem/conv/kernel"]["state"], rows["backbone/stem/norm/mean"]["state"]) == ("frozen",) * 2
    totals = found["totals"]
    assert (totals["parameters"], totals["trainable"]) == (sum(r["size"] for r in found["rows"] if r["share"]), 170)
    assert totals["optimizer_bytes"] >= 680
    assert sum(row["share"] or 0 for row in found["rows"]) == pytest.approx(1)


def test_the_look_at_a_step_tells_what_the_next_step_does(runs: dict, capsys: pytest.CaptureFixture) -> None:
    found = told(capsys, runs["tuned"], "--step")
    rows = {row["path"]: row for row in found["rows"]}
    assert rows["backbone/stem/conv/kernel"]["grad_norm"] is None  # nothing that is frozen has a gradient
    assert rows["head/bias"]["update_ratio"] is None
    assert rows["head/kernel"]["grad_norm"] > 0
    assert "step 3" in found["notes"][-1]
    assert rows["head/kernel"]["update_ratio"] == pytest.approx(runs["ratio"], rel=1e-3)


def test_without_it_the_last_look_of_the_run_itself_is_shown(
    runs: dict, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    run = shutil.copytree(runs["tuned"], tmp_path / "run")
    for step in (0, 1, 3):  # the last is after the checkpoint that is shown
        bias = {"grad_norm": None, "weight_norm": 1.0}
        kernel = {"grad_norm": 10.0 + step, "weight_norm": 2.0, "update_ratio": 0.25}
        RunFolder(run).append_health({"step": step, "leaves": {"head/kernel": kernel, "head/bias": bias}})
        RunFolder(run).append_health({"step": step, "event": "loss_spike"})
    found = told(capsys, run)
    rows = {row["path"]: row for row in found["rows"]}
    assert (rows["head/kernel"]["grad_norm"], rows["head/kernel"]["update_ratio"]) == (11.0, 0.25)
    assert (rows["head/bias"]["grad_norm"], rows["backbone/stem/conv/kernel"]["grad_norm"]) == (None, None)
    assert "of step 2, the last that was looked at" in found["notes"][-1]


def test_a_checkpoint_of_a_later_phase_shows_what_trains_and_is_held_then(
    runs: dict, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    config = RunFolder(runs["start"]).config
    thaw = dataclasses.replace(config, freeze=("backbone/**",), unfreeze=((1.0, "backbone/stage3/**"),))
    thaw = dataclasses.replace(thaw, init_from=str(runs["start"]))
    job = build_job(thaw)
    run = keep(job, tmp_path / "run", [job.phases[1].begin(job.initial_state().current)], phase=1)
    rows = {row["path"]: row for row in told(capsys, run, "--depth", "2")["rows"] if row["kind"] == "parameter"}
    assert {path: (row["state"], row["optimizer"] > 0) for path, row in rows.items() if "backbone" in path} == {
        "backbone/stem": ("frozen", False),
        "backbone/stage1": ("frozen", False),
        "backbone/stage2": ("frozen", False),
        "backbone/stage3": ("trains", True),
    }


def test_fine_tuning_with_a_frozen_backbone_changes_the_head_alone(runs: dict, capsys: pytest.CaptureFixture) -> None:
    found = told(capsys, runs["start"], "--diff", runs["tuned"])
    states = {row["path"]: row["state"] for row in found["rows"]}
    assert {path for path, state in states.items() if state != "identical"} == {"head/kernel", "head/bias"}
    assert found["summary"].startswith(f"{len(states) - 2} of {len(states)} leaves identical, bit for bit; 2 changed")
    assert "untouched: backbone/stage1, backbone/stage2, backbone/stage3, backbone/stem" in found["summary"]
    before, after = (flatten(of_place(str(runs[name])).variables) for name in ("start", "tuned"))
    ours, theirs = (np.asarray(side["params/head/kernel"], np.float64) for side in (before, after))
    row = next(row for row in found["rows"] if row["path"] == "head/kernel")
    assert row["change"] == pytest.approx(np.linalg.norm(ours - theirs) / np.linalg.norm(ours))
    assert row["largest"] == pytest.approx(np.abs(ours - theirs).max())
    assert states.keys() == {path.partition("/")[2] for path in before}
    assert [row["path"] for row in found["rows"][:2]] == ["head/bias", "head/kernel"]  # the bias was 0: no ratio
    assert (found["rows"][0]["change"], found["rows"][2]["change"]) == (None, 0.0)
    assert f"head/kernel the most, by {row['change']:.4g} of its norm" in found["summary"]


def test_a_run_is_compared_at_the_checkpoints_that_are_named(runs: dict, capsys: pytest.CaptureFixture) -> None:
    found = told(capsys, runs["start"], "--diff", f"{runs['tuned']}@latest")
    assert {row["state"] for row in found["rows"]} == {"identical"}
    found = told(capsys, f"{runs['tuned']}@2", "--diff", f"{runs['tuned']}@3", "--depth", "1")
    assert {(row["path"], row["kind"]): row["state"] for row in found["rows"]} == {
        ("head", "parameter"): "changed",
        ("backbone", "parameter"): "identical",
        ("backbone", "statistic"): "identical",
    }


def test_a_file_of_pytorch_beside_a_run_is_under_the_names_of_the_run(
    torch_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    run = tmp_path / "run"
    assert main(["weights", "import", str(torch_file), "--arch", "resnet8", "--out", str(run)]) == 0
    found = told(capsys, torch_file, "--diff", run)
    assert {row["state"] for row in found["rows"]} == {"identical"}
    assert "names of akamaster" in found["notes"][-1]
    tensors = load_file(torch_file)
    tensors["linear.weight"], tensors["linear.bias"] = np.ones((3, 64), np.float32), np.zeros(3, np.float32)
    tensors["layer1.0.conv1.weight"] = tensors["layer1.0.conv1.weight"] * np.float32(1.5)
    save_file(tensors, tmp_path / "other.safetensors")
    found = told(capsys, run, "--diff", tmp_path / "other.safetensors")
    rows = {row["path"]: row for row in found["rows"] if row["state"] != "identical"}
    assert {path: row["state"] for path, row in rows.items()} == {
        "head/kernel": "other shape",
        "head/bias": "other shape",
        "backbone/stage1/block1/conv1/kernel": "changed",
    }
    assert rows["head/kernel"]["shape"] == "64x10 and 64x3"
    assert rows["backbone/stage1/block1/conv1/kernel"]["change"] == pytest.approx(0.5)


def test_a_difference_tells_what_is_on_one_side_alone_and_counts_signs_of_zero() -> None:
    a = {"params/x": np.zeros(2, np.float32), "params/only": np.ones(3, np.float32), "params/z": np.ones((2, 2))}
    b = {"params/x": -np.zeros(2, np.float32), "batch_stats/mean": np.ones(3), "params/z": np.ones(4)}
    found = {leaf.path: leaf for leaf in changes(a, b)}
    assert {path: leaf.state for path, leaf in found.items()} == {
        "x": "changed", "only": "only in A", "z": "other shape", "mean": "only in B"}  # fmt: skip
    assert (found["mean"].kind, found["mean"].size) == ("statistic", 3)
    assert summary(list(found.values())).startswith("0 of 4 leaves identical")


def test_a_file_has_its_own_names_and_the_figures_of_its_numbers(
    torch_file: Path, capsys: pytest.CaptureFixture
) -> None:
    tensors = load_file(torch_file)
    found = told(capsys, torch_file, "--filter", "layer1.**", "--columns", "path,shape,std,init,nonfinite")
    assert [row["path"] for row in found["rows"]] == [name for name in sorted(tensors) if name.startswith("layer1.")]
    for row in found["rows"]:
        array = tensors[row["path"]].astype(np.float64)
        assert row["std"] == pytest.approx(array.std())
        assert (row["shape"], row["init"], row["nonfinite"]) == ("x".join(map(str, array.shape)) or "scalar", None, 0)


def test_bytes_of_a_file_are_those_in_the_file(tmp_path: Path) -> None:
    save_file({"module.half": np.ones(4, np.float16), "module.count": np.int64([3])}, tmp_path / "half.safetensors")
    leaves = of_place(str(tmp_path / "half.safetensors")).leaves
    assert {leaf.path: (leaf.dtype, leaf.bytes) for leaf in leaves} == {"half": ("float16", 8), "count": ("int64", 8)}


def test_csv_and_page_hold_what_the_table_does(runs: dict, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    pytest.importorskip("treescope")
    page, file = tmp_path / "page.html", tmp_path / "table.csv"
    found = told(capsys, runs["start"], "--html", page, "--csv", file)
    rows = list(csv.DictReader(io.StringIO(file.read_text())))
    assert [row["path"] for row in rows] == [row["path"] for row in found["rows"]]
    assert float(rows[0]["std"]) == found["rows"][0]["std"]
    text = page.read_text()
    assert all(row["path"] in text for row in found["rows"])
    for outside in ("src=", "href=", "https://", "@import"):
        assert outside not in text.replace('src="data:', "")
    table = text[: text.index('id="tree"')] + text[text.rindex("</main>") :]
    assert "37 leaves" in Outline(table.replace('<div class="scroll" ', "")).text


def test_a_narrow_terminal_leaves_columns_out_and_says_which(
    runs: dict, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["inspect", str(runs["start"]), "--depth", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line) for line in lines if line.startswith("backbone")) <= 80
    assert any("for want of width; --columns all" in line for line in lines)


def test_a_config_with_overrides_is_told_by_its_shapes(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    file = write_config(BASE, tmp_path / "config.py")
    arguments = ["--config", file, "--model.name", "resnet20", "--num-classes", "100", "--image-size", "32"]
    found = told(capsys, *arguments, "--sort", "-bytes", "--columns", "path,bytes,std")
    assert "resnet20, images 32x32x1, 100 classes, shapes only" in found["what"]
    sizes = [row["bytes"] for row in found["rows"]]
    assert sizes == sorted(sizes, reverse=True)
    assert {row["std"] for row in found["rows"]} == {None}


def test_layers_of_a_run_and_of_its_config_are_the_same_for_any_image(
    runs: dict, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    write_config(BASE, tmp_path / "config.py")
    of_run = told(capsys, runs["start"], "--layers", "--image-size", "40")
    assert told(capsys, "--config", tmp_path / "config.py", "--layers", "--image-size", "40") == of_run
    assert of_run["image"] == [40, 40, 1]
    stages = [row["field_size"] for row in of_run["modules"] if row["kind"] == "ResNetStage"]
    assert stages == [7, 13, 25]  # 3 + 2 · 2; then 2 · (1 + 2) and 2 · (2 + 4) more
    assert main(["inspect", str(runs["start"]), "--layers", "--depth", "1", "--csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["path"] for row in rows] == ["backbone", "head"]


def test_pictures_of_a_run_are_written_and_named(runs: dict, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    files = told(capsys, f"{runs['start']}@latest", "--pictures", tmp_path / "pictures")["pictures"]
    assert {Path(file).suffix for file in files} == {".png"}
    assert sorted(map(str, (tmp_path / "pictures").iterdir())) == sorted(files)
    assert len(files) >= 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "inspect what? a run folder, a file of weights, or --config FILE"),
        (["{run}", "--config", "x.py"], "inspect takes {run} or --config x.py, not both"),
        (["{tmp}/nothing"], "no run folder {tmp}/nothing"),
        (["{tmp}/nothing.safetensors"], "no file of weights {tmp}/nothing.safetensors"),
        (["{tmp}/text.csv"], "{tmp}/text.csv: a file of weights ends in .safetensors"),
        (["{tmp}/empty.safetensors"], "truncated or not a safetensors file"),
        (["{run}@7"], "no checkpoint at step 7"),
        (["{run}", "--sort", "-byte"], "--sort byte: no such column; did you mean 'bytes'"),
        (["{run}", "--columns", "path,stdd"], "--columns stdd: no such column; did you mean 'std'"),
        (["{run}", "--filter", "backbone/stem1/**"], "--filter: 'backbone/stem1/**' matches no parameter; nearest"),
        (["{run}", "--depth", "0"], "--depth 0: at least 1"),
        (["{run}", "--json", "--csv"], "--json and --csv both to standard output"),
        (["--depth", "0", "{run}"], "--depth 0: at least 1"),
        (["{run}", "--values"], "--values is for --config alone"),
        (["{run}", "--model.name", "vgg11"], "--model.name: not an option of inspect"),
        (["{file}", "--step"], "is a file of weights, which has no data and no optimizer"),
        (["{run}", "--diff", "{tmp}/nothing"], "no run folder {tmp}/nothing"),
        (["{run}", "--diff", "{run}", "--sort", "std"], "--sort std: no such column"),
        (["{run}", "--diff", "{run}", "--step"], "does not go with --step"),
        (["{run}", "--diff", "{file}"], "holds another network than the run it is compared with"),
        (["{run}", "--csv", "{tmp}/no/where.csv"], "--csv {tmp}/no/where.csv: No such file"),
        (["{file}", "--layers"], "a file of weights has no layers to list"),
        (["{run}", "--layers", "--step"], "--layers and --step do not go together"),
        (["{run}", "--layers", "--depth", "-1"], "--depth -1: at least 1"),
        (["{run}", "--layers", "--image-size", "2"], "are too small for a network that divides them by 4"),
        (["{run}", "--pictures", "{tmp}/p", "--csv"], "--pictures and --csv do not go together"),
        (["--config", "x.py", "--pictures", "{tmp}/p"], "--pictures are of a run"),
        (["{tmp}/nothing", "--pictures", "{tmp}/p"], "no run folder {tmp}/nothing"),
        (["{run}", "--pictures", "{tmp}/text.csv"], "--pictures {tmp}/text.csv: "),
        (["--config", "{tmp}/none.py"], "no config file {tmp}/none.py"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], message: str, runs: dict, torch_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "text.csv").write_text("a,b\n")
    (tmp_path / "empty.safetensors").write_text("")
    names = {"run": str(runs["start"]), "tmp": str(tmp_path), "file": str(torch_file)}
    filled = [argument.format(**names) for argument in arguments]
    assert message.format(**names) in mistake(capsys, "inspect", *filled)


def test_a_missing_viewer_is_told_with_what_to_install(
    runs: dict, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "treescope", None)
    assert 'pip install "jaxcnn[inspect]"' in mistake(capsys, "inspect", runs["start"], "--html", tmp_path / "a.html")


def test_the_help_names_every_column(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["inspect", "--help"])
    out = capsys.readouterr().out
    for name in [column.name for column in (*LEAF_COLUMNS, *COLUMNS)]:
        assert f" {name}" in out


def test_files_that_share_no_name_say_so(torch_file: Path, tmp_path: Path) -> None:
    save_file({"stem.kernel": np.ones(2)}, tmp_path / "other.safetensors")
    found = difference(str(torch_file), str(tmp_path / "other.safetensors"))
    assert {leaf.state for leaf in found.leaves} == {"only in A", "only in B"}
    assert "no name is in both" in found.notes[0]


def test_a_file_that_is_compared_with_itself_is_identical(torch_file: Path) -> None:
    found = difference(str(torch_file), str(torch_file))
    assert {leaf.state for leaf in found.leaves} == {"identical"}
