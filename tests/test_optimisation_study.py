"""The study of loss surfaces: slices measured of a network, and claims that follow from its numbers."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.config import DataConfig, ModelConfig
from jaxcnn.studies import optimisation
from jaxcnn.studies.loss_slices import measured_slices
from jaxcnn.studies.optimisation import Net, claims
from jaxcnn.studies.rendering import write_findings
from jaxcnn.studies.setting import Setting
from jaxcnn.studies.trials import Trial, Trials
from jaxcnn.training.losses import cross_entropy

SHAPES = DataConfig(
    source="synthetic", image_size=8, classes=("circle", "square"),
    train_split="train[:100]", validation_split="validation[:20]",
)  # fmt: skip


@pytest.fixture
def setting(tmp_path) -> Setting:
    return Setting("quick", SHAPES, (0, 1), Trials(tmp_path / "trials"))


def test_the_middle_of_the_slices_is_the_loss_of_the_network_and_the_first_line_is_in_the_slice(setting) -> None:
    model = ModelConfig(name="resnet8", stage_sizes=(1,), width=4)
    job = setting.trials.job(setting.config("a", model, epochs=1, batch_size=8))
    state = job.initial_state()
    found = measured_slices(job, state, num_images=10, side=5, num_lines=2)
    grid, lines = np.array(found["grid"]), np.array(found["lines"])
    chosen = np.random.default_rng(0).permutation(job.num_train)[:10]
    images, labels = (np.asarray(each)[chosen] for each in (job.inputs.train.images, job.inputs.train.labels))
    apply = jax.jit(lambda variables, x: job.network.model.apply(variables, x, train=True, mutable=["batch_stats"])[0])
    logits = apply(state.current, job.network.normalise(images))
    expected = float(jnp.mean(cross_entropy(logits, labels)))
    assert (found["loss"], grid[2, 2], lines[0, 2], lines[1, 2]) == pytest.approx((expected,) * 4, rel=1e-4)
    np.testing.assert_allclose(lines[0], grid[:, 2], rtol=1e-4)
    np.testing.assert_allclose(lines[1], grid[2], rtol=1e-4)
    assert np.ptp(lines[0]) > 0
    assert 0 <= found["negative"] <= 1


def _net(name: str, widths, negative=(0.5, 0.5)) -> Net:
    places = [-1.0, -0.5, 0.0, 0.5, 1.0]
    line = [2 * abs(place) for place in places]
    grid = [[2 * math.hypot(a, b) for b in places] for a in places]
    figures = ({"loss": 1.0, "top1": 0.75},)
    trials = tuple(
        Trial(name, seed, (1.0,), figures, (), figures, (), (), True, {"places": places, "grid": grid, "lines": [line],
              "loss": 0.0, "half_width": width, "negative": share}, 1.0, "cpu")
        for seed, (width, share) in enumerate(zip(widths, negative, strict=True))
    )  # fmt: skip
    return Net(name.split("-")[0], name, trials)


def _nets(deep_plain, deep_residual, negative=(0.8, 0.9)) -> list[Net]:
    return [
        _net("plain-8", (0.5, 0.6)), _net("plain-20", deep_plain, negative),
        _net("residual-8", (0.5, 0.6)), _net("residual-20", deep_residual),
    ]  # fmt: skip


def test_claims_follow_from_the_numbers() -> None:
    def verdicts(*values) -> list[bool | None]:
        return [claim.supported for claim in claims(_nets(*values))]

    assert verdicts((0.1, 0.2), (0.5, 0.6)) == [True, True, True]
    assert verdicts((0.1, 0.5), (0.5, 0.6)) == [False, True, True]
    assert verdicts((0.1, 0.2), (0.1, 0.2), (0.4, 0.6)) == [False, False, False]
    assert verdicts((0.6, 0.7), (0.9, 1.0)) == [True, False, True]  # depth makes neither steeper
    assert verdicts((float("nan"), 0.2), (0.5, 0.6)) == [False, False, True]


def test_the_study_tells_what_was_measured(setting, monkeypatch, tmp_path) -> None:
    nets = {net.name: net for net in _nets((0.1, 0.2), (0.5, 0.6))}
    monkeypatch.setattr(setting.trials, "run", lambda label, config, seeds, measure: list(nets[label].trials))
    findings = optimisation.study(setting)
    assert [row[0] for row in findings.tables[0].rows] == ["plain-8", "plain-20", "residual-8", "residual-20"]
    assert findings.tables[0].rows[1][1:] == ("0 ± 0", "25.0 ± 0.0 %", "0.15 ± 0.0707", "0.85 ± 0.0707")
    assert [claim.supported for claim in findings.claims] == [True, True, True]
    assert "optimisation.png" in write_findings(findings, tmp_path)
