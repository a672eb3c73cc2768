"""Checks that train for a few dozen steps: what a network cannot do there it will not do in hours.

Overfitting a small sample: Karpathy 2019, A Recipe for Training Neural Networks. Shuffled labels: Zhang et al. 2016,
Understanding Deep Learning Requires Rethinking Generalization. All use the trainings of `fitting.py`, in one program.
"""

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn.runtime import compiler_options
from jaxcnn.training.losses import Targets
from jaxcnn.training.partition import partition_variables
from jaxcnn.training.state import merge_variables
from jaxcnn.tuning.findings import Finding, Verdict
from jaxcnn.tuning.fitting import LEARN_STEPS, Fit, Fitting, fitting_of, ramp, undropped
from jaxcnn.tuning.subject import Subject

SAMPLE = 32
"""Examples that are to be learned by heart."""
SAMPLE_STEPS = 50
NEAR_ZERO = 0.1
"""Nats above its lowest possible value at which a loss on the sample is near zero."""
LEARNED = 0.05
"""Least part of the entropy of the classes by which unseen examples must be better than chance."""
MARGIN = 0.03
"""Least part of it by which they must be better than after shuffled labels."""
LEAST_HIGH, LEAST_LOW = 0.1, 0.03
"""Of what the loss falls at the suggested rate: less is a fail at a planned one above it, or far below it. A low rate
may be meant for a long run."""
FAR_ABOVE, FAR_BELOW = 8.0, 30.0
"""Factors from the suggested rate from which the planned one is worth a look."""
LOST = 200.0
"""Factor below it from which `LEAST_HIGH` is asked of the planned one too."""
NEAR = 1.6
"""Factor within which the planned rate is taken to be the suggested one."""
LOSS_APART, COSINE = 0.02, 0.95
"""Most relative difference of the loss, and least cosine of the gradients, between compute types."""


def timed(check: Callable[[Subject], Finding]) -> Callable[[Subject], Finding]:
    """Returns the check with the seconds that it took."""

    def run(subject: Subject) -> Finding:
        began = time.perf_counter()
        return dataclasses.replace(check(subject), seconds=time.perf_counter() - began)

    run.__name__, run.__doc__ = check.__name__, check.__doc__
    return run


@timed
def overfits_a_small_sample(subject: Subject) -> Finding:
    """Checks that a few examples can be learned by heart: loss near zero, all right.

    Augmentation, dropout and weight decay are off; label smoothing is taken out as the least loss that it allows. The
    rate is the one that the range test suggests; a tenth of it and the planned one are tried where it does not do.
    """
    fit = fitting_of(subject)
    sample = fit.order(1)[0][:SAMPLE]
    floor = least_loss(subject.label_smoothing, len(subject.class_names))
    tries = []
    for rate in dict.fromkeys((fit.sane_rate, fit.sane_rate / 10, subject.peak_lr)):
        found = fit.run(fit.batches_of(sample, SAMPLE_STEPS), rate * ramp(SAMPLE_STEPS, 5), plain=True)
        end = fit.measure(found.state, sample)
        left = end.start - floor if found.finite and end.finite else math.inf
        tries.append((left, end.top1, rate, found))
        if left < NEAR_ZERO and end.top1 == 1:
            break
    left, top1, rate, found = min(tries, key=lambda each: (each[0], -each[1]))
    verdict: Verdict = "pass" if left < NEAR_ZERO and top1 == 1 else "fail"
    if verdict == "fail" and left < 5 * NEAR_ZERO and top1 >= 0.9:
        verdict = "warn"
    return Finding(
        check="overfits a small sample",
        verdict=verdict,
        figure=f"loss {_nats(left)} above its least, {100 * top1:.0f} % right, {SAMPLE_STEPS} steps at {rate:.2g}",
        expected=f"below {NEAR_ZERO} nats and 100 % of {len(sample)} examples",
        advice="" if verdict == "pass" else _OVERFIT_ADVICE,
        numbers={"excess_loss": _finite(left), "top1": top1, "rate": rate, "tries": len(tries), "floor": floor},
        curves=_steps(found),
    )


_OVERFIT_ADVICE = (
    "Look at what stands between logits and loss (a softmax or an activation before the loss), at freeze (what trains "
    "may be too little), and at labels that contradict each other; in your own code overfit one batch first."
)


@timed
def real_labels_beat_shuffled_ones(subject: Subject) -> Finding:
    """Checks that unseen examples profit from training, and more than from training on shuffled labels.

    Both trainings have the same steps, images and rate. The loss is that of validation examples with their own labels,
    with the statistics of their batches; labels that have nothing to do with the images leave it at the entropy of
    the classes or above.
    """
    fit = fitting_of(subject)
    rng = np.random.default_rng(subject.seed + 1)
    labels = np.array(fit.source.labels)
    labels[: fit.num_train] = rng.permutation(labels[: fit.num_train])
    entropy = _entropy(labels[: fit.num_train])
    unseen = np.random.default_rng(subject.seed).permutation(len(fit.subject.validation)) + fit.num_train
    unseen = unseen[: 4 * fit.batch_size]
    real, shuffled = (_unseen_loss(fit, found, unseen) for found in (fit.learned, fit.learn(fit.sane_rate, labels)))
    verdict: Verdict = "pass"
    if real > (1 - LEARNED) * entropy or real > shuffled - MARGIN * entropy:
        verdict = "fail"
    return Finding(
        check="real labels beat shuffled ones",
        verdict=verdict,
        figure=f"unseen loss {_nats(real)} after real labels, {_nats(shuffled)} after shuffled ({LEARN_STEPS} steps)",
        expected=f"below {(1 - LEARNED) * entropy:.3f} nats (classes alone: {entropy:.3f}) and below shuffled",
        advice="" if verdict == "pass" else _SHUFFLED_ADVICE,
        numbers={"real": _finite(real), "shuffled": _finite(shuffled), "entropy": entropy, "steps": LEARN_STEPS},
        curves=_steps(fit.learned),
    )


_SHUFFLED_ADVICE = (
    "Images tell nothing of their labels: look at sheets of images with labels (`jaxcnn data preview`), at whether "
    "both are read in the same order, at augment (it may take away what tells classes apart) and at model.dropout."
)


def _unseen_loss(fit: Fitting, found: Fit, unseen: np.ndarray) -> float:
    measured = fit.measure(found.state, unseen)
    return measured.loss if found.finite and measured.finite else math.inf


@timed
def learning_rate_in_range(subject: Subject) -> Finding:
    """Checks the planned learning rate against a range test: what it gains in a short training, of what can be gained.

    A short training at the planned rate, with warm-up, is compared with one at the rate that the sweep suggests; near
    to each other they are the same. Only what is far off fails: a higher rate that gains less than a tenth of what the
    other does, beyond what the classes alone give; a lower one, by a factor above 30, that gains next to nothing, or by
    a factor above 200 that gains less than a tenth.
    """
    fit = fitting_of(subject)
    curve, planned, sane = fit.curve, subject.peak_lr, fit.sane_rate
    first, finite = float(np.mean(curve.losses[:3])), len(curve.smoothed)
    end = fit.learned.end
    is_near = 1 / NEAR < planned / sane < NEAR
    at_planned = end if is_near else fit.learn(planned).end
    best, chance = min(end, at_planned), _chance(fit, first)
    base = chance if planned > sane else first
    share = (base - at_planned) / (base - best) if best < base else 0.0
    common: Any = {
        "check": "learning rate in range",
        "expected": f"at least {100 * LEAST_HIGH:.0f} % of what the suggested rate gains in {LEARN_STEPS} steps; "
        f"{100 * LEAST_LOW:.0f} % if it is lower",
        "numbers": {
            "planned": planned, "suggestion": curve.suggestion, "steepest": curve.steepest, "share": _finite(share),
            "minimum_tenth": curve.minimum_tenth, "diverged_at": curve.diverged_at, "first_loss": _finite(first),
            "best_loss": _finite(best), "planned_loss": _finite(at_planned),
        },
        "curves": {
            "rate": list(curve.rates[:finite]),
            "loss": list(curve.losses[:finite]),
            "smoothed": list(curve.smoothed),
        },
    }  # fmt: skip
    if not best < first - LEARNED * first:
        return Finding(
            verdict="fail",
            figure=f"no rate lowers the loss: {_nats(first)} at first, {_nats(best)} at best",
            advice="The learning rate is not what is wrong: look at the other checks first, labels and loss above all.",
            **common,
        )
    verdict = _rate_verdict(share, planned / sane)
    told = "as good as suggested" if is_near else f"gains {100 * max(share, 0):.0f} % of what the best does"
    side = "high: lower" if planned > sane else "low: raise"
    return Finding(
        verdict=verdict,
        figure=f"at {planned:.3g} {told} (suggested: {f'{curve.suggestion:.2g}' if curve.suggestion else 'none'})",
        advice="" if verdict == "pass" else f"The rate is too {side} optim.peak_lr to about {sane:.1g}.",
        **common,
    )


def _rate_verdict(share: float, ratio: float) -> Verdict:
    """The verdict on a rate that is `ratio` times the suggested one and gains `share` of what the best does."""
    if ratio > 1:
        return "fail" if share < LEAST_HIGH else "warn" if ratio > FAR_ABOVE else "pass"
    if ratio > 1 / FAR_BELOW or share >= LEAST_HIGH:
        return "pass"
    return "fail" if share < LEAST_LOW or ratio < 1 / LOST else "warn"


def _chance(fit: Fitting, first: float) -> float:
    """The loss that the classes alone allow, or the first one if that is lower, or of another scale."""
    entropy = _entropy(np.asarray(fit.source.labels)[: fit.num_train])
    return entropy if entropy < first < 3 * entropy else first


def _entropy(labels: np.ndarray) -> float:
    """Entropy in nats of the shares of the classes."""
    shares = np.bincount(labels) / len(labels)
    return float(-sum(share * math.log(share) for share in shares if share))


@timed
def compute_type_agrees(subject: Subject) -> Finding:
    """Checks that one step in the compute type is finite, and near the one in float32 where that is another.

    Without `subject.reference_model` the network is taken to compute in float32, and only finiteness is looked at.
    """
    fit = fitting_of(subject)
    subject, places = fit.subject, fit.order(1)
    step = fit.run(places, np.zeros(1), plain=True)
    common: Any = {"check": "compute type agrees", "numbers": {"loss": _finite(step.start)}}
    if not step.finite:
        return Finding(
            verdict="fail",
            figure="loss or gradient of the first step is not finite",
            expected="finite",
            advice="Lower the scale of the initial weights (model.init) or choose model.dtype=float32.",
            **common,
        )
    if subject.reference_model is None:
        return Finding(
            verdict="pass",
            figure=f"one step is finite: loss {step.start:.3f}; float32, nothing to compare with",
            expected="finite",
            **common,
        )
    images = subject.normalise(np.asarray(fit.source.images)[places[0]])
    labels = jnp.asarray(np.asarray(fit.source.labels)[places[0]])
    own, exact = (
        _loss_and_gradient(subject, model, images, labels) for model in (subject.model, subject.reference_model)
    )
    apart = abs(own[0] - exact[0]) / max(abs(exact[0]), 1e-6)
    lengths = np.linalg.norm(own[1]) * np.linalg.norm(exact[1])
    cosine = float(own[1] @ exact[1] / lengths) if lengths > 0 else 0.0
    good = apart < LOSS_APART and cosine > COSINE
    common["numbers"].update({"loss_apart": _finite(apart), "cosine": _finite(cosine)})
    return Finding(
        verdict="pass" if good else "warn",
        figure=f"loss {100 * apart:.2g} % from float32's, gradients at cosine {cosine:.4f}",
        expected=f"within {100 * LOSS_APART:g} %, cosine above {COSINE}",
        advice="" if good else "Compare a run with model.dtype=float32: this network loses too much in few digits.",
        **common,
    )


def _loss_and_gradient(
    subject: Subject, model: nn.Module, images: jax.Array, labels: jax.Array
) -> tuple[float, np.ndarray]:
    """The mean loss of a batch, and its gradient to what trains, in one row; without dropout."""
    moving, frozen = partition_variables(subject.variables, subject.frozen)

    def loss(params: Any) -> jax.Array:
        variables = merge_variables({"params": params, "batch_stats": moving["batch_stats"]}, frozen)
        with nn.intercept_methods(undropped(jnp.asarray(True))):
            logits, _ = model.apply(
                variables, images, train=True, mutable=["batch_stats"], rngs={"dropout": jax.random.key(0)}
            )
        return jnp.mean(subject.loss(logits, Targets(labels)))

    value, grads = jax.jit(jax.value_and_grad(loss), compiler_options=compiler_options(training=True))(moving["params"])
    return float(value), np.concatenate([np.ravel(np.asarray(leaf, np.float64)) for leaf in jax.tree.leaves(grads)])


def least_loss(smoothing: float, num_classes: int) -> float:
    """Returns the least cross-entropy that smoothed labels allow: the entropy of (1 - s) onehot + s / K, in nats."""
    other = smoothing / num_classes
    own = 1 - smoothing + other
    return -own * math.log(own) - (num_classes - 1) * (other * math.log(other) if other else 0.0)


def _steps(fit: Fit) -> dict[str, list[float]]:
    """The objective of each step that was finite, to draw."""
    finite = np.flatnonzero(np.isfinite(fit.objectives))
    return {"step": finite.tolist(), "objective": fit.objectives[finite].tolist()}


def _nats(value: float) -> str:
    return f"{value:.3f} nats" if math.isfinite(value) else "not finite"


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
