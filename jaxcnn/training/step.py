"""One training step, the loop of several, and one evaluation step: pure functions, jitted by whoever builds them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxcnn.augment.mixing import Mix
from jaxcnn.paths import select
from jaxcnn.training import metrics
from jaxcnn.training.losses import Targets, target_losses
from jaxcnn.training.metrics import Sums
from jaxcnn.training.state import TrainState, merge_variables

Augment = Callable[[jax.Array, jax.Array], tuple[jax.Array, Mix | None]]
Step = Callable[[TrainState, jax.Array, jax.Array], tuple[TrainState, Sums]]


@dataclass(frozen=True)
class StepOptions:
    """What a step needs to know besides model, optimizer and augmentation."""

    seed: Any
    """An int, or an int32 array [] where one program serves several seeds: the draws are the same."""
    label_smoothing: float = 0.0
    accumulation: int = 1
    ema_decay: float | None = None
    class_weights: tuple[float, ...] | None = None
    """Factor of the loss of the examples of each class; none: 1. See `target_losses`."""
    loss: Callable[[jax.Array, Targets], jax.Array] | None = None
    """(logits [N, K], targets) -> [N], in the place of `target_losses`: for those who have their own."""


def make_step(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    augment: Augment,
    options: StepOptions,
) -> Step:
    """Returns (state, images uint8 [B, H, W, C], labels int32 [B]) -> (state, sums of the batch).

    All randomness is fold_in(key(seed), step). The sums are those of the network in training mode on augmented images,
    before the update: cross-entropy and hits for the images' own labels, also where images are mixed or classes are
    weighted. `objective` and `grad_norm` are sums over steps: of the mean loss that is trained on, and of the norm of
    the trainable gradient. Where one of these two is not finite, `nonfinite` is 1 and the state is the one before.
    """

    draw, gradients = make_draw(augment, options), make_gradients(model, options)

    def step(state: TrainState, images: jax.Array, labels: jax.Array) -> tuple[TrainState, Sums]:
        grads, batch_stats, sums = gradients(state, draw(state.step, images, labels))
        grad_norm = optax.tree.norm(grads)
        finite = jnp.isfinite(sums["objective"]) & jnp.isfinite(grad_norm)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        new = state.replace(
            step=state.step + 1,
            params=params,
            batch_stats=batch_stats,
            opt_state=opt_state,
            ema=_average(state, params, batch_stats, options.ema_decay),
        )
        counts = {"steps": jnp.ones((), jnp.int32), "nonfinite": jnp.where(finite, 0, 1)}
        return _kept_unless(finite, state, new), {**sums, "grad_norm": grad_norm, **counts}

    return step


class Drawn(NamedTuple):
    """What a step shows the network: its images as augmentation has left them."""

    images: jax.Array
    """float32 [B, h, w, C]."""
    targets: Targets
    dropout_key: jax.Array


def make_draw(augment: Augment, options: StepOptions) -> Callable[[jax.Array, jax.Array, jax.Array], Drawn]:
    """Returns (step, images uint8 [B, H, W, C], labels int32 [B]) -> what that step shows the network."""

    def draw(step: jax.Array, images: jax.Array, labels: jax.Array) -> Drawn:
        augment_key, dropout_key = jax.random.split(jax.random.fold_in(jax.random.key(options.seed), step))
        images, mix = augment(augment_key, images)
        targets = Targets(labels) if mix is None else Targets(labels, labels[mix.partner], mix.share)
        return Drawn(images, targets, dropout_key)

    return draw


def make_gradients(model: nn.Module, options: StepOptions) -> Callable[[TrainState, Drawn], tuple[Any, Any, Sums]]:
    """Returns (state, drawn) -> (gradient of the trainable parameters, new running statistics, sums of the batch)."""

    def gradients(state: TrainState, drawn: Drawn) -> tuple[Any, Any, Sums]:
        differentiate = _differentiate(model, state.frozen, options)
        return differentiate(state.params, state.batch_stats, drawn.images, drawn.targets, drawn.dropout_key)

    return gradients


def _kept_unless(finite: jax.Array, old: TrainState, new: TrainState) -> TrainState:
    """The new state, or where not all is finite the old one: XLA makes a part of each update of it."""
    moving = jax.tree.map(
        lambda before, after: jnp.where(finite, after, before), *(s.replace(frozen=()) for s in (old, new))
    )
    return moving.replace(frozen=old.frozen)


def _differentiate(model: nn.Module, frozen: Any, options: StepOptions) -> Callable:
    """Returns (params, batch_stats, images, targets, key) -> (gradients, batch_stats, sums) of the whole batch."""

    def loss(params, batch_stats, images, targets, key):
        variables = merge_variables({"params": params, "batch_stats": batch_stats}, frozen)
        logits, new = model.apply(variables, images, train=True, mutable=["batch_stats"], rngs={"dropout": key})
        if options.loss is not None:
            losses = options.loss(logits, targets)
        else:
            losses = target_losses(logits, targets, options.label_smoothing, options.class_weights)
        return jnp.mean(losses), (
            select(new.get("batch_stats", {}), batch_stats),
            metrics.sums_of(logits, targets.labels),
        )

    def whole(params, batch_stats, images, targets, key):
        (value, (batch_stats, sums)), grads = jax.value_and_grad(loss, has_aux=True)(
            params, batch_stats, images, targets, key
        )
        return grads, batch_stats, {**sums, "objective": value}

    def in_parts(params, batch_stats, images, targets, key):
        parts = options.accumulation

        def split(x):  # part p takes examples p, p + parts, ...: each stays on the device that holds it
            return jnp.swapaxes(x.reshape(x.shape[0] // parts, parts, *x.shape[1:]), 0, 1)

        def body(carry, part):
            index, images, targets = part
            grads, batch_stats, sums = whole(params, carry[1], images, targets, jax.random.fold_in(key, index))
            return (metrics.add(carry[0], grads), batch_stats, metrics.add(carry[2], sums)), None

        batches = (jnp.arange(parts), split(images), jax.tree.map(split, targets))
        first = jax.tree.map(lambda leaf: leaf[0], batches[1:])
        shapes = jax.eval_shape(whole, params, batch_stats, *first, key)
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        (grads, batch_stats, sums), _ = jax.lax.scan(body, (zeros[0], batch_stats, zeros[2]), batches)
        sums["objective"] /= parts
        return jax.tree.map(lambda grad: grad / parts, grads), batch_stats, sums

    return whole if options.accumulation == 1 else in_parts


def _average(state: TrainState, params: Any, batch_stats: Any, decay: float | None) -> Any:
    """The moving averages after a step; early on the decay is lower, so that they forget the start."""
    if decay is None:
        return None
    keep = jnp.minimum(decay, (1 + state.step) / (10 + state.step))
    new = {"params": params, "batch_stats": batch_stats}
    return jax.tree.map(lambda old, value: (keep * old + (1 - keep) * value).astype(old.dtype), state.ema, new)


def make_chunk(step: Step, take: Callable) -> Callable:
    """Returns (state, sums, source, inputs, num_steps) -> (state, sums, progress): the first `num_steps` steps.

    `take(source, input)` gives the images and labels of one step. `inputs` has a leading axis of at least `num_steps`.
    The number of steps is an argument of the program, not a part of it: any number runs the same compiled body, so the
    result does not depend on how a run is cut into chunks. Sums are added step by step for the same reason.
    A step that is not finite is the last one: the state stays the one before it, in all chunks that follow too.
    `progress` is a copy of what a progress line shows: the steps done and the sums of this chunk alone; and `trace`,
    [rows] of what each step had as objective and as grad_norm.
    """

    def chunk(state: TrainState, sums: Sums, source: Any, inputs: Any, num_steps: jax.Array) -> Any:
        frozen = state.frozen  # outside of what the loop carries: no step writes it

        def goes_on(carry):
            index, (_, sums, *_) = carry
            return (index < num_steps) & (sums["nonfinite"] == 0)

        def body(carry):
            index, (moving, sums, recent, trace) = carry
            batch = take(source, jax.tree.map(lambda leaf: leaf[index], inputs))
            moving, new = step(moving.replace(frozen=frozen), batch.images, batch.labels)
            brief = {name: new[name] for name in recent}
            trace = {name: values.at[index].set(new[name]) for name, values in trace.items()}
            return index + 1, (moving.replace(frozen=()), metrics.add(sums, new), metrics.add(recent, brief), trace)

        recent = {name: jnp.zeros_like(sums[name]) for name in ("loss", "top1", "examples", "nonfinite")}
        rows = jax.tree.leaves(inputs)[0].shape[0]
        trace = {name: jnp.zeros(rows, sums[name].dtype) for name in ("objective", "grad_norm")}
        start = (jnp.int32(0), (state.replace(frozen=()), sums, recent, trace))
        _, (moving, sums, recent, trace) = jax.lax.while_loop(goes_on, body, start)
        state = moving.replace(frozen=frozen)
        return state, sums, {**recent, "step": state.step, "trace": trace}

    return chunk


def zero_sums(step: Step, state: TrainState, images: Any, labels: Any) -> dict[str, np.ndarray]:
    """Returns the sums of no batch, on the host, in the form that `step` returns; the arguments may be shapes."""
    _, shapes = jax.eval_shape(step, state, images, labels)
    return {name: np.zeros(leaf.shape, leaf.dtype) for name, leaf in shapes.items()}
