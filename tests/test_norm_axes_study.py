"""The study of norms: its configs, and claims that follow from its numbers."""

import pytest

from jaxcnn.config import DataConfig
from jaxcnn.studies import norm_axes
from jaxcnn.studies.norm_axes import claims, config_of
from jaxcnn.studies.rendering import write_findings
from jaxcnn.studies.setting import Setting
from jaxcnn.studies.spread import Spread
from jaxcnn.studies.trials import Trial, Trials

SHAPES = DataConfig(source="synthetic", image_size=8, classes=("circle", "square"))
EXACT = {"batch": 96, "layer": 96, "instance": 96, "group": 96}


@pytest.fixture
def setting(tmp_path) -> Setting:
    return Setting("quick", SHAPES, (0, 1), Trials(tmp_path / "trials"))


def test_batch_norm_shares_statistics_within_a_worker_and_the_rate_is_linear_in_its_images(setting) -> None:
    large, small = config_of(setting, "batch", 32), config_of(setting, "batch", 2)
    assert (large.train.batch_size, small.train.batch_size) == (64, 4)
    assert (large.model.virtual_batch_size, small.model.virtual_batch_size) == (32, 2)
    assert large.optim.peak_lr == pytest.approx(16 * small.optim.peak_lr)
    assert large.train.epochs == small.train.epochs
    assert config_of(setting, "group", 2).model.virtual_batch_size is None


def _tops(**by_norm):
    return {norm: {32: Spread.of(large), 2: Spread.of(small)} for norm, (large, small) in {**_SAME, **by_norm}.items()}


_SAME = dict.fromkeys(("batch", "layer", "instance", "group"), ((0.8, 0.82), (0.8, 0.82)))


def test_claims_follow_from_the_numbers() -> None:
    falls = _tops(batch=((0.8, 0.82), (0.5, 0.6)))
    assert [claim.supported for claim in claims(falls, EXACT)] == [True, True, True, True]
    assert [claim.supported for claim in claims(_tops(), EXACT)] == [True, False, False, False]
    both = _tops(batch=((0.8, 0.82), (0.5, 0.6)), group=((0.8, 0.82), (0.4, 0.3)))
    assert [claim.supported for claim in claims(both, {**EXACT, "layer": 95})] == [False, True, False, False]
    one = {norm: {32: Spread.of([0.8]), 2: Spread.of([0.5])} for norm in _SAME}
    assert [claim.supported for claim in claims(one, EXACT)] == [True, None, None, None]


def test_the_study_tells_what_was_measured_of_norms_and_trials(setting, monkeypatch, tmp_path) -> None:
    tops = {"batch-32": 0.8, "batch-8": 0.75, "batch-2": 0.5}

    def trained(label, config, seeds):
        figures = [({"loss": 1.0, "top1": tops.get(label, 0.7) + 0.01 * seed},) for seed in seeds]
        return [Trial(label, seed, (1.0,), one, (), one, (), (), True, {}, 1.0, "cpu")
                for seed, one in zip(seeds, figures, strict=True)]  # fmt: skip

    monkeypatch.setattr(setting.trials, "run", trained)
    findings = norm_axes.study(setting)
    accuracy, axes = findings.tables
    assert accuracy.rows[0] == ("batch", "80.5 ± 0.7 %", "75.5 ± 0.7 %", "50.5 ± 0.7 %")
    # Of N, H, W, C = 4, 2, 2, 6: a channel of all images, an image, a channel of it, three channels of it.
    assert [row[:3] for row in axes.rows] == [
        ("batch", 16, 96), ("layer", 24, 96), ("instance", 4, 96), ("group", 12, 96)
    ]  # fmt: skip
    assert [claim.supported for claim in findings.claims] == [True, True, True, True]
    files = write_findings(findings, tmp_path)
    assert {"norm-axes.csv", "norm-axes_axes.csv", "norm-axes.png"} <= set(files)


def test_images_are_resized_by_size_unless_the_data_say_how_large_they_are(setting) -> None:
    assert setting.resized(quick=14, cpu=16, paper=None).data.image_size == 8
    stored = Setting("cpu", DataConfig(), (0,), setting.trials)
    assert stored.resized(quick=14, cpu=16, paper=None).data == DataConfig(image_size=16)
    assert stored.resized(quick=14, cpu=None, paper=None).data == DataConfig()
