"""Checks of what flows through a network at its starting point: signal, gradients, dropout, and what trains at all."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn.models.taps import tapped, unscanned
from jaxcnn.paths import flatten
from jaxcnn.training.losses import Targets
from jaxcnn.training.partition import partition_variables
from jaxcnn.training.state import merge_variables
from jaxcnn.tuning.findings import Finding, Verdict
from jaxcnn.tuning.passes import apply, compiled, draws_at_random, shaken, some
from jaxcnn.tuning.subject import Subject

_SIGNAL = (1e-3, 1e3)
_GRADIENT = (1e-4, 1e4)
_UPDATE = (1e-6, 3.0)
"""Within these a network passes, beyond them it fails; a warning comes a factor 10 (updates: 3) before."""
_DEAD, _SATURATED = 0.9, 0.5
_BOUNDS = {"sigmoid": (0.01, 0.99), "tanh": (-0.99, 0.99)}


@dataclass(frozen=True)
class Profile:
    """Figures of each layer that has a kernel, in the order in which they are computed.

    Attributes:
      signal: deviation of the layer's inputs over images and places, root mean square over channels.
      gradient: norm of the gradient of an example's loss with respect to the layer's input, root mean square.
      dead: share of the channels of the input that are 0 for all images and places.
      saturated: share of the values of the input at a bound of the activation; 0 where it has none.
      update: norm of the first update of the kernel at the planned rate against the norm of the kernel; of those that
        train and are not 0.
    """

    signal: OrderedDict[str, float]
    gradient: OrderedDict[str, float]
    dead: OrderedDict[str, float]
    saturated: OrderedDict[str, float]
    update: OrderedDict[str, float]


def profile(subject: Subject) -> Profile:
    """Returns the figures of a batch of training images in training mode, without augmentation."""
    batch = some(subject, 32)
    model, optimizer = unscanned(subject.model), subject.optimizer(lambda step: subject.peak_lr)
    moving, frozen = partition_variables(subject.variables, subject.frozen)
    low, high = _BOUNDS.get(subject.activation, (-np.inf, np.inf))

    def forward(params: Any, shifts: Any, images: Any, labels: Any) -> Any:
        variables = merge_variables({**moving, "params": params}, frozen)
        key = jax.random.key(subject.seed)
        x = subject.normalise(images)
        seen = tapped(model, variables, x, train=True, rngs={"dropout": key}, shifts=shifts)
        return jnp.mean(subject.loss(seen.logits, Targets(labels))), seen.inputs

    @compiled
    def figures(params: Any, images: Any, labels: Any) -> Any:
        inputs = jax.eval_shape(forward, params, {}, images, labels)[1]
        zeros = {path: jnp.zeros(given.shape, given.dtype) for path, given in inputs.items()}
        (grads, by_input), inputs = jax.grad(forward, argnums=(0, 1), has_aux=True)(params, zeros, images, labels)
        updates, _ = optimizer.update(grads, optimizer.init(params), params)
        one: Any = OrderedDict()
        for path, given in inputs.items():
            values = given.astype(jnp.float32).reshape(-1, given.shape[-1])  # [N * H * W, C]
            one[path] = {
                "signal": jnp.sqrt(jnp.mean(jnp.var(values, axis=0))),
                "gradient": len(labels) ** 0.5 * jnp.linalg.norm(by_input[path].astype(jnp.float32)),
                "dead": jnp.mean(jnp.all(values == 0, axis=0)),
                "saturated": jnp.mean((values <= low) | (values >= high)),
            }
        flat, steps = flatten(params), flatten(updates)
        return one, {path: _ratio(steps[path], flat[path]) for path in flat if path.endswith("kernel")}

    layers, ratios = jax.device_get(figures(moving["params"], batch.images, batch.labels))

    def column(name: str) -> OrderedDict[str, float]:
        return OrderedDict((path, float(one[name])) for path, one in layers.items())

    kernels = ((path, ratios.get(f"{path}/kernel")) for path in layers)
    update = OrderedDict((path, float(ratio)) for path, ratio in kernels if ratio is not None and ratio >= 0)
    return Profile(column("signal"), column("gradient"), column("dead"), column("saturated"), update)


def _ratio(update: jax.Array, weight: jax.Array) -> jax.Array:
    """The size of an update against that of what it updates; -1 where that is 0."""
    size = jnp.linalg.norm(weight)
    return jnp.where(size > 0, jnp.linalg.norm(update) / jnp.maximum(size, 1e-30), -1.0)


def signal_and_gradient(subject: Subject) -> Finding:
    """Signal and gradient keep their size through the layers, units are alive, and the first update fits the weights.

    Glorot & Bengio 2010, section 4.2: variances should be kept from layer to layer in both directions; He et al. 2015
    (Delving Deep), section 2.2, for ReLU. Signal is how much the input of a layer varies over images and places,
    against that of the first layer; gradient is its norm by example at a layer's input, of the first against the last.
    Fail beyond a factor 1,000 of signal or 10,000 of gradient, warn a factor 10 earlier; fail for a layer with 90 % of
    its channels 0 on all images (ReLU), or half of its values at a bound (sigmoid, tanh); warn from 50 % and 20 %.

    Where norms keep the signal whatever the scale of kernels, their scale shows in the update: of the first at the
    planned rate, against the kernel, the median over layers should be within 1e-6 to 3 (Karpathy, CS231n notes, calls
    1e-3 usual while training); warn from a factor 3 before.
    """
    found = profile(subject)
    signal, gradient = list(found.signal.values()), list(found.gradient.values())
    steps = list(found.update.values())
    scale = signal[0] if signal[0] > 0 else 1.0
    extremes = [value / scale for value in (min(signal[1:] or signal), max(signal[1:] or signal))]
    slope = gradient[0] / max(gradient[-1], 1e-30) if gradient[-1] > 0 else 1.0
    update = float(np.median(steps)) if steps else 0.0
    dead = max(list(found.dead.values())[1:] or [0.0]) if subject.activation == "relu" else 0.0
    saturated = max(list(found.saturated.values())[1:] or [0.0])
    faults = [
        _outside(extremes[0], (_SIGNAL[0], np.inf), 10, "vanishing"),
        _outside(extremes[1], (0.0, _SIGNAL[1]), 10, "exploding"),
        _outside(slope, (_GRADIENT[0], np.inf), 10, "vanishing"),
        _outside(slope, (0.0, _GRADIENT[1]), 10, "exploding"),
        _outside(update, (0.0, _UPDATE[1]), 3, "large") if steps else ("pass", ""),
        _outside(update, (_UPDATE[0], np.inf), 3, "small") if steps else ("pass", ""),
        _outside(dead, (0.0, _DEAD), _DEAD / 0.5, "dead"),
        _outside(saturated, (0.0, _SATURATED), _SATURATED / 0.2, "saturated"),
    ]
    verdict = max((fault[0] for fault in faults), key=["pass", "warn", "fail"].index)
    kinds = list(dict.fromkeys(kind for each, kind in faults if each == verdict and kind))
    parts = [f"signal {extremes[0]:.2g} to {extremes[1]:.2g} of the first", f"gradient {slope:.2g} of the last"]
    parts += [f"first update {update:.2g} of a kernel"] if steps else []
    parts += [f"up to {100 * dead:.0f} % of a layer dead"] if dead else []
    parts += [f"up to {100 * saturated:.0f} % saturated"] if saturated else []
    numbers = {
        "layers": list(found.signal),
        "signal_least": extremes[0],
        "signal_most": extremes[1],
        "gradient_first_to_last": slope,
        "update_to_weight": update,
        "dead": dead,
        "saturated": saturated,
        "kernels": list(found.update),
    }
    curves = {"signal": signal, "gradient": gradient, "update": steps, "dead": list(found.dead.values())}
    expected = "signal 1e-3 to 1e3, gradient 1e-4 to 1e4, update 1e-6 to 3"
    advice = "; ".join(_SIGNAL_ADVICE[kind] for kind in kinds)
    return Finding("signal and gradient", verdict, ", ".join(parts), expected, advice, numbers, curves)


def _outside(value: float, band: tuple[float, float], margin: float, kind: str) -> tuple[Verdict, str]:
    """Whether a value is in a band, and far enough from its ends."""
    low, high = band
    if not low <= value <= high:  # NaN too
        return "fail", kind
    return ("pass", "") if low * margin <= value <= high / margin else ("warn", kind)


_SIGNAL_ADVICE = {
    "vanishing": (
        "signal or gradient vanishes on its way: set model.activation=relu, model.norm=batch or group, and model.init="
        "kaiming_fan_out_normal; in your own code put a norm after each layer or scale kernels by sqrt(2 / fan)"
    ),
    "exploding": (
        "signal or gradient grows from layer to layer: set model.norm=batch or group and model.init="
        "kaiming_fan_out_normal; in your own code scale kernels by sqrt(2 / fan)"
    ),
    "large": (
        "the first update is large against the kernels: they start too small (model.init, model.init_std), or "
        "optim.peak_lr is too high"
    ),
    "small": (
        "the first update is tiny against the kernels: they start too large (model.init, model.init_std), or "
        "optim.peak_lr is too low"
    ),
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
        return Finding("dropout", "skip", "no dropout", "below 75 %")
    batch, model = some(subject, 64), unscanned(subject.model)

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
    return Finding("dropout", verdict, figure, "below 75 %", advice, {"dropped": share, "layer": worst})


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
    batch, optimizer = some(subject, 16), subject.optimizer(lambda step: subject.peak_lr)
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
