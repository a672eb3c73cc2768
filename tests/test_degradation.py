"""The study of degradation: gradients of layers against jax's own, and claims that follow from its numbers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.config import DataConfig, ModelConfig
from jaxcnn.studies import degradation
from jaxcnn.studies.degradation import Net, claims
from jaxcnn.studies.layer_gradients import gradient_norms, layers_in_order
from jaxcnn.studies.rendering import write_findings
from jaxcnn.studies.setting import Setting
from jaxcnn.studies.trials import Trial, Trials
from jaxcnn.training.losses import cross_entropy

SHAPES = DataConfig(
    source="synthetic", image_size=8, classes=("circle", "square"),
    train_split="train[:200]", validation_split="validation[:20]",
)  # fmt: skip


@pytest.fixture(scope="module")
def setting(tmp_path_factory) -> Setting:
    return Setting("quick", SHAPES, (0, 1), Trials(tmp_path_factory.mktemp("degradation") / "trials"))


def test_plain_and_residual_networks_have_equally_many_parameters(setting) -> None:
    for depth in (20, 56):
        stages = ((depth - 2) // 6,) * 3
        models = [
            ModelConfig(name="resnet20", stage_sizes=stages, block=block) for block in degradation.BLOCKS.values()
        ]
        jobs = [setting.trials.job(setting.config("a", model, epochs=1, batch_size=16)) for model in models]
        first, second = (job.network.num_parameters for job in jobs)
        assert first == second
        assert round(first / 1e6, 2) == {20: 0.27, 56: 0.85}[depth]  # He et al. 2015, table 6


def test_gradients_of_layers_are_those_of_the_loss_of_the_first_batch(setting) -> None:
    job = setting.trials.job(setting.config("a", ModelConfig(name="resnet8", width=4), epochs=1, batch_size=16))
    state = job.initial_state()
    places = np.asarray(job.feed.order(0, 1))[0]
    images, labels = (np.asarray(each)[places] for each in (job.inputs.train.images, job.inputs.train.labels))

    def loss(params):
        logits, _ = job.network.model.apply(
            {**state.current, "params": params}, job.network.normalise(images), train=True, mutable=["batch_stats"]
        )
        return jnp.mean(cross_entropy(logits, labels))

    grads = jax.jit(jax.grad(loss))(state.params)
    norms = gradient_norms(job, state)
    assert layers_in_order(job)[0] == "backbone/stem/conv"
    assert layers_in_order(job)[-1] == "head"
    assert set(layers_in_order(job)) == set(norms)
    assert norms["head"] == pytest.approx(float(jnp.linalg.norm(grads["head"]["kernel"])), rel=1e-3)
    stem = grads["backbone"]["stem"]["conv"]["kernel"]
    assert norms["backbone/stem/conv"] == pytest.approx(float(jnp.linalg.norm(stem)), rel=1e-3)


def _net(kind: str, depth: int | str, errors, gradients) -> Net:
    figures = [({"loss": 1.0, "top1": 1 - error},) for error in errors]
    trials = tuple(
        Trial(
            f"{kind}-{depth}", seed, (1.0,), train, (), train, (), (), True, {"initial": [norm], "final": [norm]}, 1.0,
            "cpu",
        )
        for seed, (train, norm) in enumerate(zip(figures, gradients, strict=True))
    )  # fmt: skip
    return Net(kind, depth, 100, f"{kind}-{depth}", trials)


def _verdicts(deep_plain, deep_residual, gradients) -> list[bool | None]:
    low = (0.1, 0.1)
    nets = [
        _net("plain", 20, (0.2, 0.3), low), _net("plain", 56, deep_plain, gradients),
        _net("residual", 20, (0.2, 0.25), low), _net("residual", 56, deep_residual, low),
    ]  # fmt: skip
    return [claim.supported for claim in claims(nets)]


def test_claims_follow_from_the_numbers() -> None:
    assert _verdicts((0.5, 0.6), (0.2, 0.21), (1.0, 2.0)) == [True, True, True, True]
    assert _verdicts((0.29, 0.6), (0.26, 0.27), (0.1, 2.0)) == [False, False, True, False]
    assert _verdicts((0.3, 0.6), (0.25, 0.35), (0.01, 0.02)) == [False, True, False, False]


def test_networks_of_other_sizes_say_nothing_of_equally_many_parameters() -> None:
    nets = [_net(kind, depth, (0.1, 0.2), (0.1, 0.1)) for kind in ("plain", "residual") for depth in (20, 56)]
    nets[1] = dataclasses.replace(nets[1], trials=_net("plain", 56, (0.5, 0.6), (0.1, 0.1)).trials, num_parameters=101)
    assert [claim.supported for claim in claims(nets)][:3] == [True, True, False]


def test_the_study_tells_what_its_trials_measured(setting, monkeypatch, tmp_path) -> None:
    errors = {"plain-8": 0.25, "plain-20": 0.4, "plain-44": 0.75, "residual-8": 0.25, "residual-20": 0.2,
              "residual-44": 0.125}  # fmt: skip

    def trained(label, config, seeds, measure):
        assert config.model.block == ("plain" if "plain" in label else "basic")
        net = _net(
            *label.split("-"), [errors[label] + 0.01 * seed for seed in seeds], [float(1 + seed) for seed in seeds]
        )
        return list(net.trials)

    monkeypatch.setattr(setting.trials, "run", trained)
    findings = degradation.study(setting)
    rows = {row[0]: row for row in findings.tables[0].rows}
    assert list(rows) == list(errors)
    stages = 14 * (4 * 4 * 9 + 8), 4 * 8 * 9 + 16 + 13 * (8 * 8 * 9 + 16), 8 * 16 * 9 + 32 + 13 * (16 * 16 * 9 + 32)
    assert rows["plain-44"][1] == rows["residual-44"][1] == 3 * 4 * 9 + 8 + sum(stages) + 16 * 2 + 2
    assert rows["plain-44"][2:5] == ("75.5 ± 0.7 %", "75.5 ± 0.7 %", None)
    assert [claim.supported for claim in findings.claims] == [True, True, True, False]
    files = write_findings(findings, tmp_path)
    assert set(files) == {"degradation.csv", "degradation.json", "degradation.png", "degradation.md"}
