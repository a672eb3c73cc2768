"""Checks of what flows through a network at its starting point: signal, gradients, dropout, and what trains at all."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn.models.taps import backward, tapped, unscanned
from jaxcnn.paths import flatten
from jaxcnn.training.losses import Targets
from jaxcnn.training.partition import partition_variables
from jaxcnn.training.state import merge_variables
from jaxcnn.tuning.findings import Finding, Verdict
from jaxcnn.tuning.passes import apply, batch_of, compiled, draws_at_random, shaken
from jaxcnn.tuning.subject import Subject

_BOUNDS = {"sigmoid": (0.01, 0.99), "tanh": (-0.99, 0.99)}


@dataclass(frozen=True)
class Profile:
    """Figures of each layer that has a kernel, in the order in which they are computed.

    Attributes:
      signal: deviation of the layer's inputs over images and places, root mean square over channels.
      gradient: norm of the gradient of an example's loss with respect to the layer's input, root mean square.
      dead: share of the channels of the input that are 0 for all images and places.
      saturated: share of the values of the input at a bound of the activation; 0 where it has none.
      update: norm of the first update of the kernel at the planned rate, less what decays without a gradient, against
        the norm of the kernel; of those that have a gradient and are not 0.
      gain: root mean square of the kernel times sqrt(fan_in); of the same.
    """

    signal: OrderedDict[str, float]
    gradient: OrderedDict[str, float]
    dead: OrderedDict[str, float]
    saturated: OrderedDict[str, float]
    update: OrderedDict[str, float]
    gain: OrderedDict[str, float]


def profile(subject: Subject) -> Profile:
    """Returns the figures of a batch of training images in training mode, without augmentation."""
    batch = batch_of(subject, 32)
    model, optimizer = unscanned(subject.model), subject.optimizer(lambda step: subject.peak_lr)
    moving, frozen = partition_variables(subject.variables, subject.frozen)
    low, high = _BOUNDS.get(subject.activation, (-np.inf, np.inf))

    @compiled
    def figures(params: Any, images: Any, labels: Any) -> Any:
        variables = merge_variables({**moving, "params": params}, frozen)
        rngs = {"dropout": jax.random.key(subject.seed)}
        found = backward(
            model,
            variables,
            subject.normalise(images),
            lambda logits: jnp.mean(subject.loss(logits, Targets(labels))),
            train=True,
            rngs=rngs,
        )
        inputs, by_input = found.seen.inputs, found.inputs
        grads = partition_variables({"params": found.params}, subject.frozen)[0]["params"]
        begun = optimizer.init(params)
        updates, decays = (optimizer.update(g, begun, params)[0] for g in (grads, jax.tree.map(jnp.zeros_like, grads)))
        one: Any = OrderedDict()
        for path, given in inputs.items():
            values = given.astype(jnp.float32).reshape(-1, given.shape[-1])  # [N * H * W, C]
            one[path] = {
                "signal": jnp.sqrt(jnp.mean(jnp.var(values, axis=0))),
                "gradient": len(labels) ** 0.5 * jnp.linalg.norm(by_input[path].astype(jnp.float32)),
                "dead": jnp.mean(jnp.all(values == 0, axis=0)),
                "saturated": jnp.mean((values <= low) | (values >= high)),
            }
        flat, slope, steps = map(flatten, (params, grads, jax.tree.map(jnp.subtract, updates, decays)))
        return one, {path: _ratio(steps[path], flat[path], slope[path]) for path in flat if path.endswith("kernel")}

    layers, ratios = jax.device_get(figures(moving["params"], batch.images, batch.labels))

    def column(name: str) -> OrderedDict[str, float]:
        return OrderedDict((path, float(one[name])) for path, one in layers.items())

    kernels = ((path, ratios.get(f"{path}/kernel")) for path in layers)
    update = OrderedDict((path, float(ratio)) for path, ratio in kernels if ratio is not None and ratio >= 0)
    gains = ((path, _gain(flatten(moving["params"])[f"{path}/kernel"])) for path in update)
    return Profile(
        column("signal"), column("gradient"), column("dead"), column("saturated"), update, OrderedDict(gains)
    )


def _gain(kernel: Any) -> float:
    """1 for the initialisation of LeCun et al. 1998, sqrt(2) for that of He et al. 2015, by fan_in."""
    values = np.asarray(kernel, np.float64)  # [..., inputs, outputs]
    return float(np.sqrt(np.mean(values**2) * np.prod(values.shape[:-1])))


def _ratio(update: jax.Array, weight: jax.Array, gradient: jax.Array) -> jax.Array:
    """The size of an update against that of what it updates; -1 where there is no gradient, or that is 0."""
    size = jnp.linalg.norm(weight)
    meant = (size > 0) & jnp.any(gradient != 0)
    return jnp.where(meant, jnp.linalg.norm(update) / jnp.maximum(size, 1e-30), -1.0)


def signal_and_gradient(subject: Subject) -> Finding:
    """Signal and gradient keep their size through the layers, units are alive, and the first update fits the weights.

    Glorot & Bengio 2010, section 4.2: variances should be kept from layer to layer in both directions; He et al. 2015
    (Delving Deep), section 2.2, for ReLU. Signal is how much the input of a layer varies over images and places,
    against that of the first layer; gradient is its norm by example at a layer's input, of the first against the last.
    Fail beyond a factor 1,000 of signal or 10,000 of gradient, warn a factor 10 earlier; fail for a layer with 90 % of
    its channels 0 on all images (ReLU), or half of its values at a bound (sigmoid, tanh); warn from 80 % and 20 %
    (padded shortcuts with last scales of 0 leave up to three quarters of the channels at 0).

    Where norms keep the signal whatever the scale of kernels, that scale still divides the updates (van Laarhoven
    2017), so it is looked at by itself: the root mean square of a kernel times sqrt(fan_in), sqrt(2) of He et al. 2015,
    the median over layers, if nothing is pretrained: fail outside 0.01 to 5, warn outside 0.05 to 3. And the first
    update at the planned rate, against the kernel, the median too: fail outside 1e-6 to 10, warn outside 3e-6 to 3
    (Karpathy, CS231n notes, calls 1e-3 usual while training).
    """
    found = profile(subject)
    numbers = _summary(subject, found)
    faults = [_outside(numbers[name], band, margin, kind) for name, band, margin, kind in _BANDS]
    verdict = max((fault[0] for fault in faults), key=["pass", "warn", "fail"].index)
    kinds = list(dict.fromkeys(kind for each, kind in faults if each == verdict and kind))
    return Finding(
        "signal and gradient",
        verdict,
        _figure(numbers, bool(found.update)),
        "signal 1e-3 to 1e3, gradient 1e-4 to 1e4, update 1e-6 to 10, kernels 0.01 to 5",
        "; ".join(_ADVICE[kind] for kind in kinds),
        {**numbers, "layers": list(found.signal), "kernels": list(found.update)},
        {name: list(getattr(found, name).values()) for name in ("signal", "gradient", "dead", "saturated", "update")},
    )


def _summary(subject: Subject, found: Profile) -> dict[str, float]:
    """What is judged; the first layer's input is the image, which is neither dead nor saturated."""
    signal, gradient = list(found.signal.values()), list(found.gradient.values())
    scale = signal[0] if signal[0] > 0 else 1.0
    slope = gradient[0] / max(gradient[-1], 1e-30) if gradient[-1] > 0 else 1.0
    gains = [] if subject.pretrained else list(found.gain.values())
    dead = list(found.dead.values())[1:] if subject.activation == "relu" else []
    return {
        "signal_least": min(signal[1:] or signal) / scale,
        "signal_most": max(signal[1:] or signal) / scale,
        "gradient_first_to_last": slope,
        "update_to_weight": float(np.median(list(found.update.values()))) if found.update else 1e-3,
        "kernel_gain": float(np.median(gains)) if gains else 1.0,
        "dead": max(dead, default=0.0),
        "saturated": max(list(found.saturated.values())[1:], default=0.0),
    }


_BANDS: tuple[tuple[str, tuple[float, float], float, str], ...] = (
    ("signal_least", (1e-3, np.inf), 10, "vanishing"),
    ("signal_most", (0.0, 1e3), 10, "exploding"),
    ("gradient_first_to_last", (1e-4, np.inf), 10, "vanishing"),
    ("gradient_first_to_last", (0.0, 1e4), 10, "exploding"),
    ("update_to_weight", (0.0, 10.0), 10 / 3, "large"),
    ("update_to_weight", (1e-6, np.inf), 3, "small"),
    ("kernel_gain", (0.0, 5.0), 5 / 3, "wide"),
    ("kernel_gain", (0.01, np.inf), 5, "narrow"),
    ("dead", (0.0, 0.9), 0.9 / 0.8, "dead"),
    ("saturated", (0.0, 0.5), 0.5 / 0.2, "saturated"),
)
"""(figure, beyond which it fails, factor within that from which it warns, what is wrong then)."""


def _figure(numbers: dict[str, float], updated: bool) -> str:
    parts = [
        f"signal {numbers['signal_least']:.2g} to {numbers['signal_most']:.2g} of the first",
        f"gradient {numbers['gradient_first_to_last']:.2g} of the last",
    ]
    if updated:
        parts.append(f"first update {numbers['update_to_weight']:.2g} of a kernel")
        parts.append(f"kernels {numbers['kernel_gain']:.2g} / sqrt(fan)")
    if numbers["dead"]:
        parts.append(f"up to {100 * numbers['dead']:.0f} % of a layer dead")
    if numbers["saturated"]:
        parts.append(f"up to {100 * numbers['saturated']:.0f} % saturated")
    return ", ".join(parts)


def _outside(value: float, band: tuple[float, float], margin: float, kind: str) -> tuple[Verdict, str]:
    """Whether a value is in a band, and far enough from its ends."""
    low, high = band
    if not low <= value <= high:  # NaN too
        return "fail", kind
    return ("pass", "") if low * margin <= value <= high / margin else ("warn", kind)


_ADVICE = {
    "vanishing": (
        "signal or gradient vanishes on its way: set model.activation=relu, model.norm=batch or group, and model.init="
        "kaiming_fan_out_normal; in your own code put a norm after each layer or scale kernels by sqrt(2 / fan)"
    ),
    "exploding": (
        "signal or gradient grows from layer to layer: set model.norm=batch or group and model.init="
        "kaiming_fan_out_normal; in your own code scale kernels by sqrt(2 / fan)"
    ),
    "large": "the first update is large against the kernels: lower optim.peak_lr",
    "small": "the first update is tiny against the kernels: raise optim.peak_lr",
    "wide": "kernels start too large: set model.init=kaiming_fan_out_normal, in your own code sqrt(2 / fan)",
    "narrow": "kernels start too small: set model.init=kaiming_fan_out_normal, in your own code sqrt(2 / fan)",
    "dead": "a layer gives 0 for nearly all channels: lower biases or kernels start wrong (model.init), or images do",
    "saturated": "a layer sits at the bounds of its activation: set model.init=xavier_normal, or model.norm",
}


def dropout_leaves_signal(subject: Subject) -> Finding:
    """Dropout leaves enough of the units: of those that are not 0 in one draw, how many are 0 in another.

    That is the probability of dropout at the layer's input, without knowing where it is (Srivastava et al. 2014 use 0.5
    in hidden layers; a network that drops nearly all sees noise). The largest over layers: warn from 75 %, fail from
    90 %. Both draws are in training mode, of the same images.
    """
    if not draws_at_random(subject):
        return Finding("dropout leaves signal", "skip", "no dropout", "below 75 %")
    batch, model = batch_of(subject, 64), unscanned(subject.model)

    @compiled
    def lost(variables: Any, images: Any) -> Any:
        keys = jax.random.split(jax.random.key(subject.seed))
        x = subject.normalise(images)
        one, two = (tapped(model, variables, x, train=True, rngs={"dropout": key}).inputs for key in keys)

        def share(a: jax.Array, b: jax.Array) -> jax.Array:
            return 1 - jnp.sum((a != 0) & (b != 0)) / jnp.maximum(jnp.sum(a != 0), 1)

        return OrderedDict((path, share(one[path], two[path])) for path in one)

    found = OrderedDict(
        (path, float(value)) for path, value in jax.device_get(lost(shaken(subject), batch.images)).items()
    )
    worst = max(found, key=found.__getitem__)
    share = found[worst]
    verdict: Any = "pass" if share < 0.75 else "warn" if share < 0.9 else "fail"
    advice = "" if verdict == "pass" else "lower model.dropout or model.block_dropout to 0.5 or less"
    figure = f"{100 * share:.0f} % of the units before {worst} dropped"
    return Finding("dropout leaves signal", verdict, figure, "below 75 %", advice, {"dropped": share, "layer": worst})


def something_trains(subject: Subject) -> Finding:
    """Which share of the parameters trains; what is frozen should come from trained weights.

    A parameter trains if it is not frozen, a gradient reaches it and the optimizer moves it: looked at beside the
    starting point, see `shaken`. Where weights start at random, what does not train stays random: fail from 10 % of the
    parameters (of the quick start's network the head has 1 %), warn below. Where they are pretrained, a frozen part is
    as meant; but something must train.
    """
    trains = _moves(subject)
    sizes = {path: leaf.size for path, leaf in flatten(subject.variables["params"]).items()}
    total, free = sum(sizes.values()), sum(sizes[path] for path in trains)
    active = sum(sizes[path] for path, does in trains.items() if does)
    still = [path for path, does in trains.items() if not does]
    verdict: Any = "pass"
    advice = ""
    if active < 0.5 * free:
        verdict, advice = (
            "fail",
            (
                f"no update moves {still[0]} and {len(still) - 1} more: look at the optimizer (its mask, its rate "
                "optim.peak_lr) and for stop_gradient"
            ),
        )
    elif active < total and not subject.pretrained:
        verdict = "fail" if active < 0.9 * total else "warn"
        advice = "what is frozen starts at random and stays so: take `freeze` away, or give init_from"
    figure = f"{active:,} of {total:,} parameters ({100 * active / total:.3g} %)"
    expected = "some, the rest pretrained" if subject.pretrained else "all, as no weights are given"
    numbers = {"trainable": active, "free": free, "total": total, "still": still}
    return Finding("something trains", verdict, figure, expected, advice, numbers)


def _moves(subject: Subject) -> dict[str, bool]:
    """Whether a gradient reaches each parameter that is not frozen and the first update changes it, by path."""
    batch, optimizer = batch_of(subject, 16), subject.optimizer(lambda step: subject.peak_lr)
    moving, frozen = partition_variables(shaken(subject), subject.frozen)

    @compiled
    def moves(params: Any, images: Any, labels: Any) -> Any:
        def loss(params: Any) -> jax.Array:
            variables = merge_variables({**moving, "params": params}, frozen)
            logits = apply(subject, variables, subject.normalise(images), train=True)
            return jnp.mean(subject.loss(logits, Targets(labels)))

        grads = jax.grad(loss)(params)
        updates, _ = optimizer.update(grads, optimizer.init(params), params)
        both = jax.tree.map(lambda grad, update: jnp.any(grad != 0) & jnp.any(update != 0), grads, updates)
        return flatten(both)

    found = jax.device_get(moves(moving["params"], batch.images, batch.labels))
    return {path: bool(does) for path, does in found.items()}
