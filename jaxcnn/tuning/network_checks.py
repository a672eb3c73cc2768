"""Checks of a network and its loss before the first step: what it says of images, and what it looks at."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn.training.losses import Targets
from jaxcnn.tuning.findings import Finding, Verdict
from jaxcnn.tuning.passes import batch_of, input_gradient, logits_of, num_logits, shaken
from jaxcnn.tuning.subject import Subject

_MARGIN = 30.0
_FEW = 16
Problem = tuple[Verdict, str]
_FINE: Problem = ("pass", "")


def class_prior(subject: Subject) -> np.ndarray:
    """Returns the share of each class [K] of the training examples, K being the larger of classes and logits."""
    size = max(num_logits(subject), len(subject.class_names), int(subject.train.labels.max()) + 1)
    return np.bincount(subject.train.labels, minlength=size) / len(subject.train)


def initial_loss(subject: Subject) -> Finding:
    """The loss before the first step is that of a network that knows nothing: ln K, or the entropy of the classes.

    Uniform predictions have cross-entropy ln K, whatever the label smoothing; a head whose bias is the logarithm of the
    class shares (`model.head_init=prior`) has their entropy H, (1 - s) H + s CE(uniform, shares) with smoothing s. A
    loss far below says that the labels leak; far above, that the logits start too large: "verify loss @ init" of
    Karpathy, A Recipe for Training Neural Networks (2019). Training mode, without augmentation.

    What the loss gives for equal logits is measured: where it is not ln K all figures are scaled by that, and warned of
    (focal loss, sums over classes). If it depends on how many examples there are, or is ln K times or over them, the
    mean over the batch is taken twice, or never, and the check fails.

    Logits of variance v add about v / 2 nats, so some excess is usual (1.5 nats of ResNet-110): warn from 3, fail from
    5 nats or ln K if that is more. A pretrained network may be below, and above by five times as much: a new head gets
    features of any scale.
    """
    batch = batch_of(subject, 64)
    logits = logits_of(subject, subject.variables, batch.images)
    found = _mean_loss(subject, logits, batch.labels)
    classes, prior, smoothing = num_logits(subject), class_prior(subject), subject.label_smoothing
    uniform, present = math.log(classes), prior[prior > 0]
    shares = -np.log(np.maximum(prior, 0.5 / len(subject.train)))
    informed = (1 - smoothing) * entropy(present) + smoothing * float(np.mean(shares))
    own, (verdict, advice) = _scale(subject, batch.labels, classes)
    low, high = own * min(uniform, informed), own * max(uniform, informed)
    most = (5 if subject.pretrained else 1) * max(own, 1.0)
    expected = f"ln {classes} = {uniform:.3f} nats"
    if verdict == "warn":
        expected = f"{own * uniform:.3f} (equal logits)"
    elif min(uniform, informed) < uniform - 0.02:
        expected += f" or {informed:.3f} (class shares)"
    if verdict != "fail":
        if not math.isfinite(found) or found - high > most * max(5.0, uniform):
            verdict, advice = "fail", _TOO_LARGE
        elif found < low - max(0.35 * own, 0.15 * low) and not subject.pretrained:
            verdict, advice = "fail", _KNOWN
        elif found - high > 3 * most:
            verdict, advice = "warn", _TOO_LARGE
    figure, expected = f"{found:.3f} nats", f"{expected}, at most {3 * most:.3g} more"
    numbers = {"loss": found, "uniform": uniform, "prior": informed, "equal": own * uniform, "examples": len(batch)}
    return Finding("initial loss", verdict, figure, expected, advice, numbers)


def _mean_loss(subject: Subject, logits: np.ndarray, labels: np.ndarray) -> float:
    return float(np.mean(subject.loss(jnp.asarray(logits, jnp.float32), Targets(jnp.asarray(labels)))))


def _scale(subject: Subject, labels: np.ndarray, classes: int) -> tuple[float, Problem]:
    """Returns what the loss of equal logits is, of these labels, over ln K; and what is wrong with that."""

    def equal(labels: np.ndarray) -> float:
        return _mean_loss(subject, np.zeros((len(labels), classes)), labels) / math.log(classes)

    labels = np.clip(labels, 0, classes - 1)
    own = equal(labels) if classes > 1 else 1.0
    if not (math.isfinite(own) and own > 0 and classes > 1):
        return 1.0, _FINE
    double = equal(np.concatenate([labels, labels]))
    right, wrong = _costs(subject, classes)
    # By a fixed number of examples: cross-entropy is then as much too small, or large, at any logits.
    as_much = abs((wrong - right) / (own * (1 - subject.label_smoothing) * _MARGIN) - 1) < 0.1
    sizes = [size for size in (len(labels), subject.batch_size) if as_much and size >= 8]
    if double < 0.75 * own or any(abs(own * size - 1) < 0.02 for size in sizes):
        return own, ("fail", _TWICE)
    if double > 1.5 * own or any(abs(own / size - 1) < 0.02 for size in sizes):
        return own, ("fail", _SUMMED)
    everywhere = equal(np.clip(subject.train.labels, 0, classes - 1))  # weights of classes have mean 1 over all alone
    if abs(everywhere - 1) <= _SAME:
        return own, _FINE
    told = f"the loss of equal logits is {everywhere * math.log(classes):.3g}, not ln {classes}: another loss than "
    return own, ("warn", told + "cross-entropy, or another scale; go on if that is meant (optim.peak_lr goes with it)")


_SAME = 0.1
"""Part of ln K by which the loss of equal logits may differ from it."""
_TWICE = (
    "the loss is divided by the examples of the batch twice: take the mean once, not in the loss function and again in "
    "the step"
)
_KNOWN = "the loss knows the labels before training: see whether they are part of the images"
_SUMMED = "the loss is summed over the batch, so that its scale goes with the batch size: take the mean over examples"
_TOO_LARGE = (
    "the first logits are too large: set model.init to kaiming_fan_out_normal and model.norm to batch or group, or "
    "model.head_init=zero; in your own code scale the kernels by 1 / sqrt(fan)"
)


def entropy(shares: np.ndarray) -> float:
    """Returns -sum p ln p in nats, of shares that may be 0."""
    present = shares[shares > 0]
    return float(-np.sum(present * np.log(present)))


def network_outputs(subject: Subject) -> Finding:
    """What the network returns are logits, and the loss takes them as such.

    A softmax before a loss that has its own lets the loss not fall below ln(1 + (K - 1) / e), 1.46 for ten classes, and
    makes gradients small; a ReLU after the last layer cannot say no to a class ("you passed softmaxed outputs to a loss
    that expects raw logits", Karpathy, 2018). Found by the outputs (beside the starting point, see `shaken`): rows in
    0..1 that add up to 1; none below 0 with exact zeros. And by the loss: where the logit of one class is 30 and the
    others 0, being right must cost about nothing and being wrong 30 nats less the smoothing.
    """
    batch = batch_of(subject, 64)
    logits, plain = (logits_of(subject, each, batch.images) for each in (shaken(subject), subject.variables))
    right, wrong = _costs(subject, logits.shape[-1])
    smoothing, classes = subject.label_smoothing, logits.shape[-1]
    spread, wanted = smoothing * _MARGIN * (classes - 1) / classes, (1 - smoothing) * _MARGIN
    zeros, least = float(np.mean(logits == 0)), float(logits.min())
    numbers = {"loss_if_right": right, "loss_if_wrong": wrong, "zeros": zeros, "smallest": least}
    figure = f"logits {least:.2f} to {logits.max():.2f}; loss {right:.3g} if right by 30, {wrong:.3g} if wrong"
    expected = f"logits of either sign; {spread:.3g} and {spread + wanted:.3g} nats"
    problem = _output_fault(logits, plain) or _loss_fault(right, wrong, spread, wanted)
    verdict, advice = problem or _FINE
    return Finding("network outputs", verdict, figure, expected, advice, numbers)


def _costs(subject: Subject, classes: int) -> tuple[float, float]:
    """Mean loss of logits that are right by the margin, and of those that are wrong by it."""
    labels = np.clip(subject.train.labels[:1024], 0, classes - 1)
    eye = _MARGIN * np.eye(classes, dtype=np.float32)
    loss = jax.jit(lambda logits, labels: jnp.mean(subject.loss(logits, Targets(labels))))
    right, wrong = (float(loss(logits, labels)) for logits in (eye[labels], eye[(labels + 1) % classes]))
    return right, wrong


def _output_fault(logits: np.ndarray, plain: np.ndarray) -> Problem | None:
    if not (np.isfinite(logits).all() and np.isfinite(plain).all()):
        return "fail", "outputs are not finite: look at the images (NaN, range) and at model.init, model.norm"
    if np.allclose(logits.sum(-1), 1, atol=1e-3) and logits.min() >= 0 and logits.max() <= 1:
        return "fail", "the outputs are probabilities: take the softmax out of the network, the loss has its own"
    if logits.min() >= 0 and np.mean(logits == 0) > 0.01:
        return "fail", "the outputs are never below 0: take the activation after the last layer away"
    if logits.min() >= 0 and logits.max() <= 1:
        return "fail", "the outputs are all in 0..1: take the sigmoid after the last layer away"
    return None


def _loss_fault(right: float, wrong: float, spread: float, wanted: float) -> Problem | None:
    """Of a loss that is not cross-entropy less is asked: it must tell right from wrong by a good part of the margin."""
    gap = wrong - right
    if gap < 0:
        return "fail", "the loss is larger for right answers than for wrong ones: its sign is turned"
    if gap < 0.2 * wanted:
        return "fail", (
            "the loss hardly tells right from wrong logits: give it the logits, not their softmax, and take the mean "
            "over the batch once"
        )
    if right > spread + 0.5 or abs(gap - wanted) > 0.25 * wanted:
        return "warn", "the loss is not cross-entropy with this label smoothing; go on if that is meant"
    return None


def every_pixel_counts(subject: Subject) -> Finding:
    """A gradient of the outputs reaches every pixel and channel of the input, over some images, in evaluation mode.

    "Use backprop to chart dependencies", Karpathy (2019). Where it does not, a part of the image is ignored: a channel
    that is not read, a border that a stride leaves out, a network that is dead or whose gradient vanishes. Beside the
    starting point, see `shaken`; fail below 90 %, warn below 100 %.
    """
    batch = batch_of(subject, _FEW)
    weights = np.random.default_rng(subject.seed).standard_normal((len(batch), num_logits(subject)))
    gradient = input_gradient(subject, shaken(subject), batch.images, weights)
    if not np.isfinite(gradient).all():
        return Finding("every pixel counts", "fail", "the gradient of the input is not finite", "100 %", _NOT_FINITE)
    reached = np.any(gradient != 0, axis=0)  # [H, W, C]
    share = float(np.mean(reached))
    verdict: Any = "pass" if share == 1 else "warn" if share >= 0.9 else "fail"
    advice = "" if share == 1 else _unreached(reached)
    numbers = {"share": share, "by_channel": reached.mean((0, 1)).tolist(), "images": len(batch)}
    return Finding("every pixel counts", verdict, f"{100 * share:.1f} % of the inputs", "100 %", advice, numbers)


_NOT_FINITE = (
    "logits or their gradient are NaN or infinite: look at images and mean, std (not 0), at model.init and model.norm; "
    "in your own code at sqrt, log and division without an epsilon"
)


def _unreached(reached: np.ndarray) -> str:
    channels = [channel for channel, share in enumerate(reached.mean((0, 1))) if share < 0.5]
    if len(channels) == reached.shape[-1]:
        return "hardly any gradient reaches the input: see the check of signal and gradient"
    if channels:
        return f"the network does not read channel {channels[0]} (data.channels): look at how the input enters"
    border = "choose a stride or padding that covers the border, or data.image_size as a multiple of the strides"
    return f"a part of the image has no effect: {border}"


def examples_are_independent(subject: Subject) -> Finding:
    """What the network says of an image does not depend on the others of the batch, in evaluation mode.

    The gradient of one example's logits with respect to the other inputs is exactly 0 (Karpathy, 2019: "use backprop
    to chart dependencies"). In training mode batch norm couples examples by design; a network without running
    statistics must keep them apart there too. Beside the starting point, see `shaken`.
    """
    batch = batch_of(subject, _FEW)
    weights = np.random.default_rng(subject.seed).standard_normal((len(batch), num_logits(subject)))
    weights[1:] = 0
    batch_norm = bool(jax.tree.leaves(subject.variables.get("batch_stats", {})))
    shares = {}
    for mode in ("evaluation",) if batch_norm else ("evaluation", "training"):
        gradient = input_gradient(subject, shaken(subject), batch.images, weights, train=mode == "training")
        if not np.isfinite(gradient).all():
            figure = f"the gradient of the input is not finite in {mode}"
            return Finding("examples are independent", "fail", figure, "exactly 0", _NOT_FINITE)
        sizes = np.abs(gradient).reshape(len(batch), -1).sum(1)  # [N]
        shares[mode] = float(sizes[1:].sum() / max(sizes.sum(), 1e-300))
    mixes = max(shares.values()) > 0
    figure = ", ".join(f"{100 * share:.3g} % of the gradient to others in {mode}" for mode, share in shares.items())
    advice = (
        "an operation runs over the batch axis: look for a reshape, transpose, mean or softmax over axis 0, or a norm "
        "over the wrong axes"
    )
    verdict: Any = "fail" if mixes else "pass"
    return Finding("examples are independent", verdict, figure, "exactly 0", advice if mixes else "", shares)


def blank_input(subject: Subject) -> Finding:
    """What can be reached without looking at images, and whether the network looks: the outputs differ by image.

    A network that sees blank images learns the class shares and no more: a loss of their entropy and the accuracy of
    the largest class. A run whose validation does not get past these has learnt nothing from images (Karpathy, 2019,
    "input-independent baseline"). And the logits of different images must differ (beside the starting point, see
    `shaken`, in training mode): their deviation over images; fail below 0.0001 nats, warn below 0.001.
    """
    batch = batch_of(subject, 64)
    logits = logits_of(subject, shaken(subject), batch.images)
    spread = float(np.sqrt(np.mean(np.var(logits, axis=0))))
    prior = class_prior(subject)
    verdict: Any = "pass" if spread >= 1e-3 else "warn" if spread >= 1e-4 else "fail"
    figure = (
        f"{entropy(prior):.3f} nats and {100 * prior.max():.1f} % without images; outputs differ by {spread:.2g} nats"
    )
    advice = (
        ""
        if verdict == "pass"
        else (
            "the outputs hardly depend on the image: see the check of signal and gradient (model.norm, model.init, "
            "model.activation), and whether images are all alike once normalised"
        )
    )
    numbers = {"loss": entropy(prior), "top1": float(prior.max()), "spread": spread}
    return Finding("blank input", verdict, figure, "outputs differ by 0.001 nats or more", advice, numbers)
