"""The command line: every mistake is one line, exit code 2, before anything compiles, with nothing written."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from jaxcnn.cli import main
from jaxcnn.config import Preprocessing, TrainConfig
from jaxcnn.run_folder import RunFolder
from tests.runs import ROOT, command


@pytest.fixture(autouse=True)
def no_compilation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails a test in which a training program is compiled."""
    from jaxcnn.job import Job

    def refuse(*_: object) -> None:
        raise AssertionError("compiled before the mistake was told")

    monkeypatch.setattr(Job, "compile_chunk", refuse)


def mistake(capsys, *arguments: object) -> str:
    """Runs `jaxcnn ...`, which must end with code 2 and one line, and returns the line."""
    assert main([str(argument) for argument in arguments]) == 2
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert "Traceback" not in captured.err
    assert captured.out == ""
    return lines[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config", "configs/quickstrt.py"], "no config file configs/quickstrt.py; did you mean"),
        (["--data.name", "mnist5"], "data.name='mnist5': no such TFDS data set; did you mean 'mnist5k'"),
        (
            ["--data.name", "cifar10", "--data.data-dir", "{tmp}"],
            "'cifar10' is not prepared in {tmp}; prepare",
        ),
        (["--data.train-split", "trian"], "data.train_split='trian': mnist5k has no such split"),
        (["--data.test-split", "tset[:10%]"], "data.test_split='tset[:10%]': mnist5k has no such split"),
        (["--model.name", "resnet21"], "model.name='resnet21': no such network; did you mean 'resnet"),
        (["--model.num-classes", "7"], "model.num_classes=7: mnist5k has 10 classes"),
        (["--model.name", "vgg16"], "images of 28x28 are too small for a network that divides them by 32"),
        (["--model.norm", "group", "--model.num-groups", "5"], "num_groups=5 must divide features=16"),
        (["--train.batch-size", "0"], "train.batch_size=0: input should be greater than or equal to 1"),
        (["--train.batch-size", "4001"], "train.batch_size=4001 is larger than mnist5k train (4000 examples)"),
        (["--optim.accumulation", "3"], "optim.accumulation=3 must divide train.batch_size=128"),
        (["--optim.peak-lr", "-1"], "optim.peak_lr=-1.0: input should be greater than 0"),
        (["--train.epochs", "nan"], "train.epochs=nan"),
        (
            ["--freeze", "backbone/stage9/**"],
            "'backbone/stage9/**' matches no parameter; nearest paths: backbone",
        ),
        (["--freeze", "**"], "every parameter is frozen"),
        (["--mesh.data", "99"], "mesh.data=99: only"),
        (["--init-from", "{tmp}/nowhere"], "no run folder {tmp}/nowhere"),
        (["--resume"], "--resume needs --workdir RUN"),
        (["--profile", "9:10", "--train.epochs", "0.1"], "--profile 9:10: the run has 4 steps"),
        (["--profile", "7"], "--profile 7: give the steps to trace as FIRST:LAST"),
        (["--data.loader", "resident", "--data.resident-limit-gib", "0.0001"], "data.loader=resident: 0.003"),
        (["--data.train-split", "train[200:100]"], "data.train_split='train[200:100]': the split of mnist5k is empty"),
        (
            ["--train.class-weights", "balanced", "--data.sampling", "balanced"],
            "would correct the same imbalance twice",
        ),
        (["--evaluation.crops", "5"], "set data.crop_share below 1"),
    ],
)
def test_train_tells_mistakes_before_anything_is_written(
    digits_dir, tmp_path, capsys, monkeypatch, arguments, message
) -> None:
    monkeypatch.setenv("TFDS_DATA_DIR", digits_dir)
    monkeypatch.chdir(ROOT)
    arguments = [argument.format(tmp=tmp_path) for argument in arguments]
    workdir = [] if "--resume" in arguments else ["--workdir", tmp_path / "run"]
    assert message.format(tmp=tmp_path) in mistake(capsys, "train", *workdir, *arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [["--optim.peek-lr", "1"], ["--model.norm", "bach"], ["--train.epochs", "many"], ["--resume", "perhaps"], ["word"]],
)
def test_flags_that_the_parser_refuses_exit_with_2(tmp_path, capsys, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as exit_code:
        main(["train", "--workdir", str(tmp_path / "run"), *arguments])
    assert exit_code.value.code == 2
    assert arguments[0] in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def empty_run(tmp_path, digits_dir) -> Path:
    """A run folder without a checkpoint."""
    config = TrainConfig()
    inputs = Preprocessing((28, 28, 1), (0.1,), (0.3,), "grey")
    return RunFolder.create(tmp_path / "run", config, tuple("0123456789"), inputs).path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_existing_run_is_not_overwritten(empty_run, capsys) -> None:
    before = contents(empty_run)
    assert f"already holds a run: go on with it by --workdir {empty_run} --resume" in mistake(
        capsys, "train", "--workdir", empty_run
    )
    assert contents(empty_run) == before


def test_resume_with_another_model_is_refused(empty_run, capsys) -> None:
    line = mistake(capsys, "train", "--workdir", empty_run, "--resume", "--model.name", "resnet20")
    assert "was started with model.name='resnet8', not 'resnet20'" in line
    assert f"--init-from {empty_run}" in line


def test_resume_of_what_is_no_run_is_refused(tmp_path, capsys) -> None:
    assert "there is no run to go on with" in mistake(capsys, "train", "--workdir", tmp_path, "--resume")
    (tmp_path / "file").write_text("mine")
    assert "is not an empty folder" in mistake(capsys, "train", "--workdir", tmp_path, "--resume", "auto")


def test_resume_of_a_run_with_a_damaged_config_names_the_field(empty_run, capsys) -> None:
    file = empty_run / "config.json"
    file.write_text(file.read_text().replace('"seed": 0', '"seed": "x"'))
    assert "config.json: seed='x'" in mistake(capsys, "train", "--workdir", empty_run, "--resume")


@pytest.mark.parametrize("name", ["evaluate", "predict"])
def test_what_comes_after_a_run_needs_a_run_with_a_checkpoint(name, empty_run, tmp_path, capsys, digits_dir) -> None:
    image = [empty_run / "x.png"] if name == "predict" else []
    assert "has no checkpoint yet" in mistake(capsys, name, empty_run, *image)
    assert "no run folder" in mistake(capsys, name, tmp_path / "nowhere", *image)
    assert "is not a run folder" in mistake(capsys, name, tmp_path, *image)


def test_predict_on_a_folder_without_images_is_told(empty_run, tmp_path, capsys) -> None:
    (tmp_path / "folder").mkdir()
    assert "no images in this folder" in mistake(capsys, "predict", empty_run, tmp_path / "folder")


def test_an_unknown_command_names_the_nearest(capsys) -> None:
    assert "no command 'trian'; did you mean 'train'?" in mistake(capsys, "trian")


def test_version_tells_the_environment(capsys) -> None:
    assert main(["--version", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["version"] == "0.1.0"
    assert report["backend"] == "cpu"
    assert set(report["versions"]) >= {"jax", "flax", "optax", "orbax-checkpoint", "tensorflow-datasets"}


def test_help_shows_every_field_with_its_default() -> None:
    out = subprocess.run([sys.executable, "train.py", "--help"], cwd=ROOT, capture_output=True, text=True, check=True)
    for text in (
        "--config FILE",
        "--workdir RUN",
        "--resume",
        "--optim.peak-lr",
        "(default: 0.3)",
        "--augment.flip.prob",
    ):
        assert text in out.stdout


def test_an_override_wins_over_the_config_file(tmp_path, capsys, monkeypatch, digits_dir) -> None:
    seen = []
    monkeypatch.setattr("jaxcnn.cli.train._train", lambda config, *_, **__: seen.append(config) or ({}, Path()))
    monkeypatch.setattr("jaxcnn.cli.train._summary", lambda *_: "")
    main(
        ["train", "--config", str(ROOT / "configs" / "quickstart.py"), "--optim.peak-lr", "0.2", "--freeze", "a", "!b"]
    )
    assert seen[0].optim.peak_lr == 0.2
    assert seen[0].freeze == ("a", "!b")


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("mount") is None, reason="mounting a small disk needs root")
def test_a_full_disk_ends_the_run_with_a_line_and_leaves_the_last_checkpoint(tmp_path, digits_dir) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(disk)]).returncode:
        pytest.skip("no permission to mount")
    try:
        data = ["--data.data-dir", digits_dir, "--data.train-split", "train[:256]", "--model.width", "4"]
        done = command("train", "--workdir", disk / "run", *data, "--train.epochs", "4")
        assert done.returncode == 0, done.stderr
        measure = ("evaluate", disk / "run", "--checkpoint", "latest", "--json")
        before = json.loads(command(*measure).stdout)
        (disk / "ballast").write_bytes(bytes(shutil.disk_usage(disk).free - 300_000))
        full = command("train", "--workdir", disk / "run2", *data, "--train.epochs", "40", "--model.width", "16")
        assert full.returncode in (1, 2)
        assert "Traceback" not in full.stderr, full.stderr
        assert "no space left on" in full.stderr.lower()
        assert json.loads(command(*measure).stdout) == before
    finally:
        subprocess.run(["umount", str(disk)], check=True)
