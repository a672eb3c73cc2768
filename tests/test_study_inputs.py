"""The studies of augmentation and of preprocessing: their claims follow from the figures of their trials."""

import numpy as np
import pytest

from jaxcnn.config import DataConfig
from jaxcnn.studies import augmentation, preprocessing
from jaxcnn.studies.input_scales import NORMALISED, ways
from jaxcnn.studies.operations import operations
from jaxcnn.studies.rendering import write_findings
from jaxcnn.studies.setting import AS_THEY_ARE, Setting
from jaxcnn.studies.trials import Trial, Trials

SHAPES = DataConfig(
    source="synthetic", image_size=8, classes=("circle", "square"),
    train_split="train[:600]", validation_split="validation[:60]",
)  # fmt: skip


class Told(Trials):
    """Trials that are not trained: of the figures that `figures(label, config)` gives, and a little more a seed."""

    def __init__(self, figures):
        super().__init__()
        self.figures, self.asked = figures, {}

    def run(self, label, config, seeds, measure=None, preprocess=None):
        self.asked[label] = (config, preprocess)
        top1, gap, losses = self.figures(label, config)
        return [
            Trial(label, seed, (1.0,), ({"loss": 1.0, "top1": 0.5},), ({"loss": 1.0, "top1": top1 + gap},),
                  ({"loss": 1.0, "top1": top1 + 0.001 * seed},), tuple(losses), tuple(losses), True, {}, 1.0, "cpu")
            for seed in seeds
        ]  # fmt: skip


def found(study, figures, data=SHAPES):
    trials = Told(figures)
    findings = study(Setting("quick", data, (0, 1), trials))
    return findings, trials, {claim.statement: claim.supported for claim in findings.claims}


TOP1 = {"none": (0.5, 0.4), "flip": (0.6, 0.3), "crop": (0.7, 0.2), "crop-flip": (0.75, 0.1), "together": (0.8, 0.1)}


def test_each_operation_is_alone_in_its_trial() -> None:
    every = operations(4, 8, mirrored=True)
    assert len(every) <= 12
    assert every["none"] == AS_THEY_ARE
    for name in ("crop", "flip", "affine", "cutout", "mixup", "cutmix", "randaugment", "trivialaugment"):
        changed = [field for field in vars(AS_THEY_ARE) if getattr(every[name], field) != getattr(AS_THEY_ARE, field)]
        assert len(changed) == 1, name
    assert every["together"].flip.prob == 0.5
    assert operations(4, 8, mirrored=False)["together"].flip.prob == 0.0


def test_claims_on_augmentation_follow_from_its_trials(tmp_path) -> None:
    findings, trials, claims = found(
        augmentation.study, lambda label, config: (*TOP1.get(label, (0.55, 0.35)), [1.0])
    )  # fmt: skip
    assert list(claims.values()) == [True, True, True, True]
    assert {config.augment for config, _ in trials.asked.values()} == set(operations(4, 12, mirrored=True).values())
    row = {row[0]: row for row in findings.tables[0].rows}["crop"]
    assert row[1:5] == pytest.approx((70.05, 0.0707, 90.0, 19.95), abs=0.001)
    write_findings(findings, tmp_path)
    assert (tmp_path / "augmentation.png").stat().st_size > 10_000


def test_augmentation_that_is_no_use_is_said_to_be_none() -> None:
    _, _, claims = found(augmentation.study, lambda label, config: (0.5, 0.4, [1.0]))
    assert list(claims.values()) == [False, False, False, False]


@pytest.mark.parametrize(("with_flips", "spoils"), [(0.6, True), (0.75, False)])
def test_of_digits_shifts_are_held_against_shifts_with_mirror_images(with_flips, spoils) -> None:
    top1 = {**TOP1, "crop-flip": (with_flips, 0.1)}
    _, trials, claims = found(
        augmentation.study, lambda label, config: (*top1.get(label, (0.55, 0.35)), [1.0]), DataConfig()
    )  # fmt: skip
    (verdict,) = [verdict for statement, verdict in claims.items() if "mirror images spoil" in statement]
    assert verdict is spoils
    assert trials.asked["together"][0].augment.flip.prob == 0.0


def test_ways_to_prepare_images_are_those_statistics_and_no_others() -> None:
    job = Trials().job(Setting("quick", SHAPES, (0,), Trials()).config("x", augmentation.ModelConfig(), epochs=1))
    images = np.asarray(job.feed.source.images)
    prepared = ways(job.network.preprocessing, images)
    given = {
        name: (images / 255 - way.mean).reshape(-1, 3) / way.std for name, way in prepared.items()
    }  # fmt: skip
    assert np.abs(given[NORMALISED].mean(0)).max() < 1e-6
    np.testing.assert_allclose(given[NORMALISED].std(0), 1, rtol=1e-6)
    assert given["0 to 255"].max() == pytest.approx(images.max())
    assert given["0 to 1"].max() == pytest.approx(images.max() / 255)
    assert np.ptp(given["wrong unit"], axis=0).max() < 0.02
    ratios = {name: way.first.number for name, way in prepared.items()}
    assert ratios[NORMALISED] < ratios["0 to 1"] < ratios["wrong unit"]


def falling(steps):
    """Losses that are at 0 after so many steps."""
    return [2.0] * steps + [0.0] * (90 - steps)


@pytest.mark.parametrize(("slow", "supported"), [(40, True), (10, False)])
def test_claims_on_preprocessing_follow_from_its_trials(slow, supported, tmp_path) -> None:
    def figures(label, config):
        return 0.5, 0.1, falling(10 if label.startswith(NORMALISED) or config.model.norm == "batch" else slow)

    findings, trials, claims = found(preprocessing.study, figures)
    learns = [verdict for statement, verdict in claims.items() if "learns faster" in statement]
    assert learns == [supported] * len(learns)
    assert claims["Batch norm after the first convolution hides what was forgotten: the level is reached from any "
                  "input."]  # fmt: skip
    scale = trials.asked["0-to-255-no-norm"][1]
    assert (scale.mean, scale.std) == ((0.0,) * 3, (1 / 255,) * 3)
    write_findings(findings, tmp_path)
    assert (tmp_path / "preprocessing.csv").is_file()


def test_a_level_that_is_never_reached_is_slower_than_any_and_not_a_number_of_steps() -> None:
    def figures(label, config):
        return 0.5, 0.1, falling(10) if label.startswith(NORMALISED) else [2.3] * 90

    findings, _, claims = found(preprocessing.study, figures)
    assert all(verdict for statement, verdict in claims.items() if "learns faster" in statement)
    assert not claims["Batch norm after the first convolution hides what was forgotten: the level is reached from any "
                      "input."]  # fmt: skip
    assert "> 90" in findings.tables[0].rows[0]
