"""What is told before the first step, and the proof after the last."""

import json
from pathlib import Path

import numpy as np
import pytest

from jaxcnn.build import build_job
from jaxcnn.certificate import Certificate, digests
from jaxcnn.config import AffineConfig, AugmentConfig, CutoutConfig, FlipConfig, PadCropConfig, TrainConfig
from jaxcnn.errors import RunFailed
from jaxcnn.interruption import StopRequest
from jaxcnn.loop import Trainer, train
from jaxcnn.receipt import _bytes, _flops, receipts_of
from jaxcnn.run_folder import RunFolder
from tests.conftest import with_fields


@pytest.fixture
def probe(tiny_config: TrainConfig) -> TrainConfig:
    return with_fields(tiny_config, freeze=("backbone/**",), optim__ema_decay=0.9)


def test_sizes_are_those_of_the_leaves(probe: TrainConfig) -> None:
    (receipt,) = receipts_of(build_job(probe), "leaves")
    head = 16 * 10 + 10
    assert (receipt.trainable.leaves, receipt.trainable.numbers, receipt.trainable.bytes) == (2, head, 4 * head)
    assert receipt.frozen.numbers == build_job(probe).network.num_parameters - head
    assert receipt.optimizer.bytes == 4 * head + 4  # momentum, and the count of the schedule
    assert (receipt.moving_statistics.leaves, receipt.frozen_statistics.leaves) == (0, 14)
    assert receipt.flops is None


def test_operations_are_the_multiply_adds_of_the_passes_twice(probe: TrainConfig) -> None:
    """Forward once for a probe; full fine-tuning has two more passes, less the gradient of the images."""
    from jaxcnn.models.cost import cost_of

    job = build_job(probe)
    (receipt,) = receipts_of(job)
    forward = 2 * cost_of(job.network.model, (28, 28, 1)).multiply_adds * probe.train.batch_size
    assert receipt.flops == pytest.approx(forward, rel=0.25)  # the rest: norms, activations, augmentation
    assert receipt.full_flops == pytest.approx(3 * forward, rel=0.25)


def test_a_head_on_kept_features_costs_next_to_nothing(probe: TrainConfig, tmp_path: Path) -> None:
    still = AugmentConfig(PadCropConfig(0.0), AffineConfig(0.0), FlipConfig(0.0), CutoutConfig(0.0))
    config = with_fields(probe, features__cache="auto", augment=still, data__cache_dir=str(tmp_path))
    job = build_job(config)
    assert job.start == "pooled"
    (receipt,) = receipts_of(job)
    assert receipt.flops is not None
    assert receipt.full_flops is not None
    assert receipt.flops < receipt.full_flops / 100


def test_a_full_receipt_measures_both_programs(probe: TrainConfig) -> None:
    (receipt,) = receipts_of(build_job(probe), "full")
    assert receipt.memory is not None
    assert receipt.full_memory is not None
    assert 0 < receipt.memory < receipt.full_memory
    assert receipt.step_seconds is not None
    assert receipt.step_seconds > 0
    text = "\n".join(receipt.lines())
    assert "2 leaves train" in text
    assert "14 of 14 statistics do not move" in text
    assert "times as many" in text
    assert "temporary memory" in text
    assert "times as long" in text


def run_of(config: TrainConfig, path: Path) -> tuple[RunFolder, StopRequest]:
    job = build_job(config)
    return RunFolder.create(path, config, job.network.class_names, job.network.preprocessing), StopRequest()


def test_the_certificate_has_every_frozen_leaf_before_and_after(probe: TrainConfig, tmp_path: Path) -> None:
    job = build_job(probe)
    folder, stop = run_of(probe, tmp_path / "run")
    certificate = train(job, folder, stop)["certificate"]
    assert certificate["equal"]
    (phase,) = certificate["phases"]
    assert (phase["first_step"], phase["last_step"]) == (0, 19)
    frozen = job.initial_state().frozen
    assert phase["before"] == phase["after"] == digests(frozen)
    assert sum(path.startswith("batch_stats/") for path in phase["before"]) == 14
    assert json.loads((folder.path / "result.json").read_text())["certificate"] == certificate


def test_a_frozen_leaf_that_changes_fails_the_run_by_name(probe: TrainConfig, tmp_path: Path) -> None:
    folder, stop = run_of(probe, tmp_path / "run")
    trainer = Trainer(build_job(probe), folder, stop, trace=None, started=0.0)
    spoil = trainer._train_until

    def spoiled(compiled, boundary: int) -> None:
        spoil(compiled, boundary)
        kernel = trainer.state.frozen["params"]["backbone"]["stem"]["conv"]["kernel"]
        trainer.state.frozen["params"]["backbone"]["stem"]["conv"]["kernel"] = kernel * np.float32(1.0001)

    trainer._train_until = spoiled  # type: ignore[method-assign]
    with pytest.raises(RunFailed, match="params/backbone/stem/conv/kernel was frozen and has changed"):
        trainer.run()
    assert not json.loads((folder.path / "result.json").read_text())["certificate"]["equal"]
    with pytest.raises(RunFailed, match="was frozen and has changed"):  # and it does not turn into a success
        train(build_job(probe, folder), folder, stop)


def test_the_certificate_outlives_an_interruption_and_a_step_back(probe: TrainConfig, tmp_path: Path) -> None:
    folder, _ = run_of(probe, tmp_path / "run")
    leaf = {"params": {"kernel": np.ones(3, np.float32)}}
    first = Certificate(folder)
    first.begin(0, 0, leaf)
    first.end(5, leaf)
    first.begin(1, 5, leaf)
    again = Certificate(folder)  # from a checkpoint of the first phase
    again.begin(0, 3, leaf)
    again.end(5, {"params": {"kernel": np.full(3, 2, np.float32)}})
    assert again.changed == ["params/kernel"]
    report = again.report()
    assert report is not None
    assert [phase["first_step"] for phase in report["phases"]] == [0]
    assert Certificate(folder).changed == ["params/kernel"]


def test_nothing_frozen_needs_no_certificate(tiny_config: TrainConfig, tmp_path: Path) -> None:
    folder, stop = run_of(tiny_config, tmp_path / "run")
    assert train(build_job(tiny_config), folder, stop)["certificate"] is None


def test_kept_features_are_found_again_where_the_newest_checkpoint_is_damaged(
    probe: TrainConfig, tmp_path: Path
) -> None:
    still = AugmentConfig(PadCropConfig(0.0), AffineConfig(0.0), FlipConfig(0.0), CutoutConfig(0.0))
    config = with_fields(probe, features__cache="auto", augment=still, data__cache_dir=str(tmp_path / "cache"))
    folder, stop = run_of(config, tmp_path / "run")
    first = train(build_job(config), folder, stop)
    (folder.path / "result.json").unlink()
    newest = max(folder.checkpoints.glob("[0-9]*"), key=lambda path: int(path.name))
    for file in newest.glob("model/**/d/*"):
        file.write_bytes(b"not what it was")
    again = train(build_job(config, folder), folder, stop)
    assert again["final"]["step"] == first["final"]["step"]
    assert again["certificate"]["equal"]


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (999_600, "1 MB"), (58_900_000, "58.9 MB"), (2.5e12, "2.5e+03 GB")]
)
def test_bytes_have_three_digits(count: float, text: str) -> None:
    assert _bytes(count) == text


def test_a_small_step_is_not_told_in_billions() -> None:
    assert _flops(11_000) == "11 kFLOP"
    assert _flops(1.82e12) == "1.82 TFLOP"
