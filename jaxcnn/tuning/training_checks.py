"""Checks that train for a few dozen steps: what a network cannot do there it will not do in hours.

Overfitting a small sample: Karpathy 2019, A Recipe for Training Neural Networks. Shuffled labels: Zhang et al. 2016,
Understanding Deep Learning Requires Rethinking Generalization. All use the trainings of `fitting.py`, in one program.
"""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxcnn.tuning.entropies import balanced, entropy_of, least_loss
from jaxcnn.tuning.findings import Finding, Verdict
from jaxcnn.tuning.fitting import LEARN_STEPS, fitting_of, ramp
from jaxcnn.tuning.gradients import loss_and_gradient
from jaxcnn.tuning.subject import Subject
from jaxcnn.tuning.weighing import (
    FAR_BELOW,
    LEAST_HIGH,
    LEAST_LOW,
    LOST,
    beats_largest,
    bounded,
    chance_of,
    nats,
    number,
    rate_told,
    rate_verdict,
    rates_to_try,
    steps_of,
    timed,
)

SAMPLE = 32
"""Examples that are to be learned by heart."""
SAMPLE_STEPS = 50
NEAR_ZERO = 0.1
"""Nats above its lowest possible value at which a loss on the sample is near zero."""
LEARNED = 0.05
"""Least part of the entropy of the classes by which unseen examples must be better than chance."""
UNSEEN = 200
"""Least number of unseen examples, where there are as many."""
BALANCED, RARE = 0.9, 0.5
"""Parts of ln K: where the entropy of K classes is below the one, classes are weighted to count alike; below the other
the rarest have too few examples to fail a run for."""
MARGIN = 0.03
"""Least part of it by which they must be better than after shuffled labels."""
NEAR = 1.6
"""Factor within which the planned rate is taken to be the suggested one."""
LOSS_APART, COSINE = 0.02, 0.95
"""Most relative difference of the loss, and least cosine of the gradients, between compute types."""


@timed
def overfits_a_small_sample(subject: Subject) -> Finding:
    """Checks that a few examples can be learned by heart: loss near zero, all right.

    Augmentation and dropout are off; label smoothing is taken out as the least loss that it allows. The rate is the one
    that the range test suggests; where it does not do, the planned one, ten times and a tenth of it are tried, and the
    one that a noisy test would suggest. Where only far smaller batches than planned are affordable, as on CPU, a fault
    is a warning: more steps might have done.
    """
    fit = fitting_of(subject)
    sample = np.random.default_rng(fit.subject.seed).permutation(fit.num_train)[:SAMPLE]
    floor = least_loss(subject.label_smoothing, len(subject.class_names))
    tries = []
    for rate in rates_to_try(fit):
        found = fit.run(fit.batches_of(sample, SAMPLE_STEPS), rate * ramp(SAMPLE_STEPS, 5), plain=True)
        end = fit.measure(found.state, sample)
        left = end.start - floor if found.finite and end.finite else math.inf
        tries.append((left, end.top1, rate, found))
        if left < NEAR_ZERO and end.top1 == 1:
            break
    left, top1, rate, found = min(tries, key=lambda each: (each[0], -each[1]))
    verdict: Verdict = "pass" if left < NEAR_ZERO and top1 == 1 else "fail"
    advice = "" if verdict == "pass" else _OVERFIT_ADVICE
    if verdict == "fail" and left < 5 * NEAR_ZERO and top1 >= 0.9:
        verdict, advice = "warn", _NEAR_MISS_ADVICE
    finding = Finding(
        check="overfits a small sample",
        verdict=verdict,
        figure=f"loss {nats(left)} above its least, {100 * top1:.0f} % right, {SAMPLE_STEPS} steps at {rate:.2g}",
        expected=f"below {NEAR_ZERO} nats and 100 % of {len(sample)} examples",
        advice=advice,
        numbers={
            "excess_loss": number(left), "top1": top1, "rate": rate, "tries": len(tries), "floor": floor,
            "examples": len(sample),
        },
        curves=steps_of(objective=found),
    )  # fmt: skip
    return bounded(fit, finding, sure=not math.isfinite(left))


_OVERFIT_ADVICE = (
    "Look at what stands between logits and loss (a softmax or an activation before the loss), at freeze (what trains "
    "may be too little), and at labels that contradict each other; in your own code overfit one batch first."
)
_NEAR_MISS_ADVICE = (
    "Nearly learned: more steps or a higher optim.peak_lr may do. Overfit one batch for some hundred steps; if the "
    "loss stays where it is, look at labels that contradict each other and at what stands between logits and loss."
)


@timed
def real_labels_beat_shuffled_ones(subject: Subject) -> Finding:
    """Checks that unseen examples profit from training, and more than from training on shuffled labels.

    Both trainings have the same steps and rate. The loss is that of some two hundred validation examples or more with
    their own labels, with the statistics of their batches; labels that have nothing to do with the images leave it at
    the entropy of the classes or above. Hits above the share of the largest class will do too. Where some classes are
    rare, which makes that low, both train on as many examples of each class, and class-balanced hits are judged,
    against 1 / K and their standard error; with very rare classes a fault is a warning. It is one too where only far
    smaller batches than planned are affordable, as with large networks on CPU: there shuffled labels cannot be told
    from a network that has hardly begun.
    """
    fit = fitting_of(subject)
    own = np.asarray(fit.source.labels)
    train, rest = own[: fit.num_train], np.arange(fit.num_train, len(own))
    unseen = np.random.default_rng(subject.seed).permutation(rest[np.isin(own[rest], train)])
    if len(np.unique(own[unseen])) < 2:
        return Finding(
            "real labels beat shuffled ones", "skip", "fewer than two classes in validation", "two that train has too"
        )
    labels = own.copy()
    labels[: fit.num_train] = np.random.default_rng(subject.seed + 1).permutation(train)
    rarity, batch = entropy_of(train) / math.log(len(np.unique(train))), fit.batch_size
    count = -(-max(UNSEEN, 4 * batch) // batch) * batch
    if rarity < BALANCED:
        places = balanced(own, unseen, count, subject.seed)
        fits = [fit.learn(fit.sane_rate, each, balance=True) for each in (own, labels)]
    else:
        places = unseen[: min(count, max(len(unseen) // batch, 1) * batch)]
        fits = [fit.learned, fit.learn(fit.sane_rate, labels)]
    measured = [fit.measure(each.state, places) for each in fits]
    real, shuffled = (
        after.loss if each.finite and after.finite else math.inf for each, after in zip(fits, measured, strict=True)
    )
    if rarity < BALANCED:
        good, figure, expected = _by_hits(measured[0].top1, measured[1].top1, own[unseen])
    else:
        good, figure, expected = _by_loss(real, shuffled, entropy_of(train))
        hits = (measured[0].top1, measured[1].top1)
        if not good and beats_largest(*hits, own[places]):  # a head on large features is sure long before it is right
            good, figure = True, f"{figure}; {100 * hits[0]:.0f} % right, {100 * hits[1]:.0f} % after shuffled"
    good = good and math.isfinite(real)
    finding = Finding(
        check="real labels beat shuffled ones",
        verdict="pass" if good else "fail" if rarity > RARE or not math.isfinite(real) else "warn",
        figure=f"{figure} ({LEARN_STEPS} steps)",
        expected=expected,
        advice="" if good else _SHUFFLED_ADVICE,
        numbers={
            "real": number(real), "shuffled": number(shuffled), "entropy": entropy_of(train), "steps": LEARN_STEPS,
            "examples": len(places), "hits": measured[0].top1, "shuffled_hits": measured[1].top1,
        },
        curves=steps_of(real=fits[0], shuffled=fits[1]),
    )  # fmt: skip
    return bounded(fit, finding, sure=not math.isfinite(real))


def _by_loss(real: float, shuffled: float, entropy: float) -> tuple[bool, str, str]:
    """Whether a loss tells of learning, with figure and expectation."""
    return (
        real <= (1 - LEARNED) * entropy and real <= shuffled - MARGIN * entropy,
        f"unseen loss {nats(real)} after real labels, {nats(shuffled)} after shuffled",
        f"below {(1 - LEARNED) * entropy:.3f} nats (classes alone: {entropy:.3f}) and below shuffled",
    )


def _by_hits(real: float, shuffled: float, labels: np.ndarray) -> tuple[bool, str, str]:
    """Whether class-balanced hits on unseen labels [N] do. A rare class is sure to be learned with too much confidence.

    Their standard error by chance is had from the examples that there are of each class.
    """
    counts = np.unique(labels, return_counts=True)[1]
    chance = 1 / len(counts)
    error = chance * math.sqrt(chance * (1 - chance) * float(np.sum(1 / counts)))
    return (
        real > chance + 3 * error and real > shuffled + 2 * error,
        f"class-balanced hits {100 * real:.0f} % after real labels, {100 * shuffled:.0f} % after shuffled",
        f"above {100 * (chance + 3 * error):.0f} % (chance: {100 * chance:.0f} %) and above shuffled",
    )


_SHUFFLED_ADVICE = (
    "Images tell nothing of their labels: look at sheets of images with labels (`jaxcnn data preview`), at whether "
    "both are read in the same order, at augment (it may take away what tells classes apart) and at model.dropout."
)


@timed
def learning_rate_in_range(subject: Subject) -> Finding:
    """Checks the planned learning rate against a range test: what it gains in a short training, of what can be gained.

    A short training at the planned rate, with warm-up, is compared with one at the rate that the sweep suggests; near
    to each other they are the same. Only what is far off fails: a higher rate that gains less than a tenth of what the
    other does, beyond what the classes alone give; a lower one, by a factor above 30, that gains next to nothing, or by
    a factor above 200 that gains less than a tenth. Where the batch is another than planned, so is the planned rate
    (`affordable.scaled_rate`); where it is far smaller, only rates farther off than by such factors fail, or that
    diverge. Where the sweep is too noisy to suggest a rate nothing fails that is finite.
    """
    fit = fitting_of(subject)
    curve, planned, sane = fit.curve, fit.subject.peak_lr, fit.sane_rate
    first, finite = float(np.mean(curve.losses[:3])), len(curve.smoothed)
    end = fit.learned.end
    is_near = 1 / NEAR < planned / sane < NEAR
    at_planned = end if is_near else fit.learn(planned).end
    best, chance = min(end, at_planned), chance_of(fit, first)
    base = chance if planned > sane else first
    share = (base - at_planned) / (base - best) if best < base else 0.0
    common: Any = {
        "check": "learning rate in range",
        "expected": f"at least {100 * LEAST_HIGH:.0f} % of what the suggested rate gains in {LEARN_STEPS} steps; "
        f"{100 * LEAST_LOW:.0f} % if it is lower",
        "numbers": {
            "planned": planned, "suggestion": curve.suggestion, "steepest": curve.steepest, "share": number(share),
            "minimum_tenth": curve.minimum_tenth, "diverged_at": curve.diverged_at, "first_loss": number(first),
            "best_loss": number(best), "planned_loss": number(at_planned), "batch_size": fit.batch_size,
            "peak_lr": subject.peak_lr,
        },
        "curves": {
            "rate": list(curve.rates[:finite]),
            "loss": list(curve.losses[:finite]),
            "smoothed": list(curve.smoothed),
        },
    }  # fmt: skip
    told, fall = rate_told(fit, subject), f"{nats(first)} at first, {nats(best)} at best"
    if curve.suggestion is None and best < first - LEARNED * first:
        return Finding(
            verdict="skip", figure=f"at {told}: {fall}; the sweep suggests no rate to compare with", **common
        )
    if curve.noisy and math.isfinite(best):
        advice = "Plan a larger train.batch_size, or compare a few rates in longer runs."
        return Finding(verdict="warn", figure=f"at {told}: {fall}; {curve.sentence()}", advice=advice, **common)
    if not best < first - LEARNED * first:
        advice = "The learning rate is not what is wrong: look at the other checks first, labels and loss above all."
        finding = Finding(verdict="fail", figure=f"no rate lowers the loss: {fall}", advice=advice, **common)
        return bounded(fit, finding, sure=not math.isfinite(best))
    verdict = rate_verdict(share, planned / sane)
    gain = "as good as suggested" if is_near else f"gains {100 * max(share, 0):.0f} % of what the best does"
    side = "high: lower" if planned > sane else "low: raise"
    finding = Finding(
        verdict=verdict,
        figure=f"at {told} {gain} (suggested: {curve.suggestion:.2g})",
        advice=""
        if verdict == "pass"
        else f"The rate is too {side} optim.peak_lr to about {sane / fit.rate_scale / subject.rate_factor:.1g}.",
        **common,
    )
    return bounded(fit, finding, sure=not (math.isfinite(at_planned) and 1 / LOST < planned / sane < FAR_BELOW))


@timed
def compute_type_agrees(subject: Subject) -> Finding:
    """Checks that one step in the compute type is finite, and near the one in float32 where that is another.

    Without `subject.reference_model` the network is taken to compute in float32, and only finiteness is looked at.
    """
    fit = fitting_of(subject)
    subject, places = fit.subject, fit.order(1)
    step = fit.run(places, np.zeros(1), plain=True)
    common: Any = {"check": "compute type agrees", "numbers": {"loss": number(step.start)}}
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
        loss_and_gradient(subject, model, images, labels) for model in (subject.model, subject.reference_model)
    )
    apart = abs(own[0] - exact[0]) / max(abs(exact[0]), 1e-6)
    lengths = np.linalg.norm(own[1]) * np.linalg.norm(exact[1])
    cosine = float(own[1] @ exact[1] / lengths) if lengths > 0 else 0.0
    good = apart < LOSS_APART and cosine > COSINE
    common["numbers"].update({"loss_apart": number(apart), "cosine": number(cosine)})
    return Finding(
        verdict="pass" if good else "warn",
        figure=f"loss {100 * apart:.2g} % from float32's, gradients at cosine {cosine:.4f}",
        expected=f"within {100 * LOSS_APART:g} %, cosine above {COSINE}",
        advice="" if good else "Compare a run with model.dtype=float32: this network loses too much in few digits.",
        **common,
    )
