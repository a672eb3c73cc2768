"""One run on several processes: the same as on one, whatever happens to them. They are real, and share a machine."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest

from jaxcnn.config import TrainConfig
from jaxcnn.run_folder import RunFolder
from tests import processes
from tests.conftest import with_fields
from tests.runs import fingerprint, same, write_config
from tests.test_mesh import on_devices

STEPS = ["-m", "tests.mesh_runs"]
CLI = "import sys; from jaxcnn.cli import main; sys.exit(main(sys.argv[1:]))"


def saved(path: Path) -> list[np.ndarray]:
    with np.load(path) as arrays:
        return [np.asarray(arrays[name], np.float64) for name in arrays.files]


def steps(path: Path, dtype: str, kind: str, mesh: str, count: int, devices: int) -> list[np.ndarray]:
    """Returns the leaves after the steps of `tests/mesh_runs.py` on so many processes with so many devices each."""
    arguments = [*STEPS, dtype, kind, mesh, "--save", str(path)]
    if count == 1:
        group = processes.start([arguments], devices=devices)
    else:
        group = processes.start_together(arguments, count, devices=devices)
    with group:
        for end in group.ended(timeout=300):
            assert end is not None
            assert end.code == 0, end.err
    return saved(path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "devices", "mesh"), [(2, 2, "4x1"), (2, 2, "2x2"), (2, 1, "1x2"), (4, 1, "4x1"), (4, 2, "2x4")]
)
@pytest.mark.parametrize("kind", ["plain", "everything"])
def test_after_20_steps_in_float64_several_processes_have_what_one_has(tmp_path, kind, count, devices, mesh) -> None:
    one = steps(tmp_path / "one.npz", "float64", kind, "1x1", 1, 1)
    several = steps(tmp_path / "several.npz", "float64", kind, mesh, count, devices)
    assert len(one) == len(several)
    assert max(float(np.max(np.abs(b - a) / (1 + np.abs(a)))) for a, b in zip(one, several, strict=True)) < 1e-10


def training(path: Path, *arguments: object) -> list[str]:
    return ["-m", "jaxcnn", "train", "--workdir", str(path), *map(str, arguments)]


def ends(group: processes.Group, but: tuple[int, ...] = (), timeout: float = 600.0) -> list[processes.Ended]:
    return [end for end in group.ended(but, timeout) if end is not None]


def together(path: Path, *arguments: object, count: int = 2, devices: int = 1) -> list[processes.Ended]:
    """Trains on several processes and returns what they have left."""
    with processes.start_together(training(path, *arguments), count, devices=devices) as group:
        return ends(group)


@pytest.fixture
def streamed(tiny_config: TrainConfig, tmp_path: Path) -> Path:
    """A config whose images are decoded by the loader, with parameters over all devices."""
    config = with_fields(
        tiny_config, data__loader="streamed", data__cache_dir=str(tmp_path / "cache"), mesh__fsdp=2, mesh__shard_min=64,
        model__width=8, optim__ema_decay=0.9, evaluation__train_examples=32, train__epochs=2.0,
    )  # fmt: skip
    return write_config(config, tmp_path / "streamed.py")


def test_two_processes_train_one_run_that_one_process_goes_on_from(streamed, tmp_path) -> None:
    first, second = together(tmp_path / "run", "--config", streamed, "--json")
    assert (first.code, second.code) == (0, 0), first.err + second.err
    result = json.loads(first.out)
    assert (result["devices"], result["processes"], result["test"]["examples"]) == (2, 2, 50)
    assert second.out == ""  # the first tells for all
    assert not second.lines
    assert "2 processes on 1 host, 2 devices" in first.err
    assert "mesh data 1 x fsdp 2" in first.err
    lines = RunFolder(tmp_path / "run").metrics()
    assert [line["step"] for line in lines] == [7, 13]
    assert [line["train"]["examples"] for line in lines] == [224, 192]
    for inspected in (["--checkpoint", "latest"], ["--step"]):  # on one device, with a mesh of two in its config
        assert "in all: " in on_devices(1, CLI, "inspect", tmp_path / "run", *inspected)
    (tmp_path / "run" / "result.json").unlink()
    again = on_devices(1, CLI, "train", "--workdir", tmp_path / "run", "--resume", "--mesh.fsdp", 1, "--json")
    assert json.loads(again)["best_step"] == result["best_step"]
    assert json.loads(again)["test"]["loss"] == pytest.approx(result["test"]["loss"], rel=1e-5)


@pytest.mark.slow
def test_two_processes_thaw_divided_leaves_and_start_another_run_from_theirs(streamed, tmp_path) -> None:
    thaws = ["--freeze", "backbone/**", "--unfreeze", "1.0", "backbone/stage3/**"]
    two = together(tmp_path / "two", "--config", streamed, *thaws)
    assert [end.code for end in two] == [0, 0], two[0].err + two[1].err
    on_devices(1, CLI, "train", "--workdir", tmp_path / "one", "--config", streamed, *thaws, "--mesh.fsdp", 1)
    losses = [[line["train"]["loss"] for line in RunFolder(tmp_path / name).metrics()] for name in ("one", "two")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert "in all: " in on_devices(1, CLI, "inspect", tmp_path / "two")
    start = ["--config", streamed, "--init-from", tmp_path / "two", "--train.epochs", 1]
    started = together(tmp_path / "started", *start)
    assert [end.code for end in started] == [0, 0], started[0].err + started[1].err


@pytest.mark.slow
def test_what_is_damaged_for_one_process_is_damaged_for_all(streamed, tmp_path) -> None:
    assert [end.code for end in together(tmp_path / "run", "--config", streamed)] == [0, 0]
    before = fingerprint(tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    parts = (tmp_path / "run" / "checkpoints" / "13" / "model" / "ocdbt.process_1" / "d").iterdir()
    max(parts, key=lambda path: path.stat().st_size).write_bytes(b"")  # of divided leaves, which the second alone reads
    first, second = together(tmp_path / "run", "--resume")
    assert (first.code, second.code) == (0, 0), first.err + second.err
    assert "checkpoint 13 is damaged" in first.err
    assert (tmp_path / "run" / "damaged-13").is_dir()
    same(before, fingerprint(tmp_path / "run"))


@pytest.mark.slow
def test_a_streamed_run_on_four_processes_is_that_on_one(streamed, tmp_path) -> None:
    four = together(tmp_path / "four", "--config", streamed, "--json", count=4)
    one = json.loads(
        on_devices(1, CLI, "train", "--workdir", tmp_path / "one", "--config", streamed, "--mesh.fsdp", 1, "--json")
    )
    result = json.loads(four[0].out)
    first = [RunFolder(tmp_path / name).metrics()[0] for name in ("one", "four")]
    assert first[0]["train"]["loss"] == pytest.approx(first[1]["train"]["loss"], rel=1e-3)  # 7 steps of float32
    assert result["examples"] == one["examples"]


@pytest.fixture
def long(tiny_config: TrainConfig, tmp_path: Path) -> Path:
    """A run that lasts long enough to be disturbed, and saves each epoch."""
    config = with_fields(
        tiny_config, train__epochs=32.0, evaluation__every_epochs=4, mesh__fsdp=2, mesh__shard_min=64, model__width=8
    )
    return write_config(config, tmp_path / "long.py")


def disturbed(path: Path, config: Path, count: int, disturb: signal.Signals, whom: int) -> list[processes.Ended]:
    """Starts a run, disturbs one of its processes after the second evaluation, and returns what the others leave."""
    with processes.start_together(training(path, "--config", config, "--resume", "auto"), count) as group:
        metrics = path / "metrics.jsonl"
        for _ in range(2400):
            if metrics.is_file() and len(metrics.read_text().splitlines()) >= 2:
                break
            processes.time.sleep(0.05)
        group.signal(whom, disturb)
        return ends(group, but=(whom,) if disturb == signal.SIGKILL else ())


@pytest.fixture
def whole(long: Path, tmp_path: Path) -> Path:
    """The undisturbed run of two processes."""
    assert [end.code for end in together(tmp_path / "whole", "--config", long)] == [0, 0]
    return tmp_path / "whole"


@pytest.mark.slow
@pytest.mark.parametrize("whom", [0, 1], ids=["the first dies", "the second dies"])
def test_a_process_dies_the_other_names_it_and_the_resumed_run_is_the_undisturbed_one(
    long, whole, tmp_path, whom
) -> None:
    (left,) = disturbed(tmp_path / "run", long, 2, signal.SIGKILL, whom)
    assert left.code == 75, left.err
    assert left.seconds < 60
    assert f"process {whom} on" in left.lines[-1]
    assert "--resume" in left.lines[-1]
    assert [end.code for end in together(tmp_path / "run", "--resume")] == [0, 0]
    same(fingerprint(whole), fingerprint(tmp_path / "run"))


@pytest.mark.slow
@pytest.mark.parametrize("whom", [0, 1], ids=["the first hears it", "the second hears it"])
def test_a_signal_to_one_process_saves_and_ends_all(long, whole, tmp_path, whom) -> None:
    both = disturbed(tmp_path / "run", long, 2, signal.SIGTERM, whom)
    assert [end.code for end in both] == [75, 75], both[0].err + both[1].err
    assert "interrupted and saved at step" in both[0].lines[-1]
    assert [end.code for end in together(tmp_path / "run", "--resume")] == [0, 0]
    same(fingerprint(whole), fingerprint(tmp_path / "run"))


@pytest.mark.slow
def test_of_four_processes_one_dies_and_two_go_on(long, tmp_path) -> None:
    others = disturbed(tmp_path / "run", long, 4, signal.SIGKILL, 2)
    assert [end.code for end in others] == [75, 75, 75]
    assert all("process 2 on" in end.lines[-1] for end in others)
    step = max(line["step"] for line in RunFolder(tmp_path / "run").metrics())
    two = together(tmp_path / "run", "--resume")
    assert [end.code for end in two] == [0, 0], two[0].err
    lines = RunFolder(tmp_path / "run").metrics()
    assert lines[-1]["step"] == 200
    assert step > 0
    assert [line["train"]["examples"] for line in lines] == [800] * 8  # 4 epochs of 200: each example once an epoch


@pytest.mark.slow
def test_a_process_with_another_config_ends_all_with_one_line(tiny_config, tmp_path) -> None:
    file, other = (
        write_config(with_fields(tiny_config, optim__peak_lr=rate), tmp_path / f"{rate}.py") for rate in (0.05, 0.5)
    )
    port = f"localhost:{processes.free_port()}"
    arguments = [
        [*training(tmp_path / "run", "--config", config), "--coordinator", port, "--num-processes", "2",
         "--process-id", str(index)]
        for index, config in enumerate((file, other))
    ]  # fmt: skip
    with processes.start(arguments) as group:
        first, second = ends(group)
    assert (first.code, second.code) == (2, 2)
    assert "process 1 has optim.peak_lr=0.5, the first 0.05" in first.err + second.err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_loss_that_is_not_finite_ends_all_and_is_replayed(tiny_config, tmp_path) -> None:
    config = with_fields(
        tiny_config, optim__peak_lr=1e30, schedule__warmup_epochs=0.0, mesh__fsdp=2, mesh__shard_min=64
    )
    first, second = together(tmp_path / "run", "--config", write_config(config, tmp_path / "c.py"))
    assert (first.code, second.code) == (1, 1), first.err + second.err
    assert "jaxcnn replay" in first.lines[-1]
    assert "nan" in on_devices(1, CLI, "replay", tmp_path / "run")
