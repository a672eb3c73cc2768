"""A row a leaf of the parameter tree: what it is, how it starts, and what the optimizer of a config does to it.

Each figure is had from what a run uses: shapes from a traced network, the optimizer's bytes from its `init` and its
decay from its `update`, traced over the leaves that train. Nothing is allocated.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.extend.core import Var

from jaxcnn import mesh as meshes
from jaxcnn.config import TrainConfig
from jaxcnn.inspection.initialisers import Drawn, initialisers_of
from jaxcnn.inspection.values import Values, values_of
from jaxcnn.network import Network
from jaxcnn.paths import Tree, flatten, unflatten
from jaxcnn.phases import Phase, make_phases
from jaxcnn.training.learning_rates import factors_of
from jaxcnn.training.partition import FrozenStatistics, first_phases

Kind = Literal["parameter", "statistic", "tensor"]
KINDS: dict[str, Kind] = {"params": "parameter", "batch_stats": "statistic"}


@dataclass(frozen=True)
class Moved:
    """What one step does to a leaf: norms of its gradient, its weights and its update (of kernels; else none)."""

    grad_norm: float
    weight_norm: float
    update_norm: float | None


@dataclass(frozen=True)
class Leaf:
    """One array of a network, or of a file of weights; none stands for what does not apply or is not known.

    Attributes:
      path: its name, such as `backbone/stem/conv/kernel`, or that of a file's tensor.
      kind: a parameter, a running statistic of a norm, or a tensor of a file, of which nothing else is known.
      shape, dtype: of the array.
      share: its part of all parameters of the network, or of all numbers in the file.
      drawn: its initialiser.
      state: "trains", of a statistic "moves"; "frozen", or "frozen until epoch 2".
      decays: whether the optimizer decays it.
      rate: factor of its learning rate.
      optimizer_bytes: of its moments.
      sharding: how it lies on the devices.
      values: figures of its numbers.
      moved: what a step does to it.
    """

    path: str
    kind: Kind
    shape: tuple[int, ...]
    dtype: str
    share: float | None = None
    drawn: Drawn | None = None
    state: str | None = None
    decays: bool | None = None
    rate: float | None = None
    optimizer_bytes: int | None = None
    sharding: str | None = None
    values: Values | None = None
    moved: Moved | None = None

    @property
    def size(self) -> int:
        """Numbers in it."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        return self.size * jnp.dtype(self.dtype).itemsize

    @property
    def runs(self) -> bool:
        """Whether it changes in training."""
        return self.state in ("trains", "moves")


def leaves_of(config: TrainConfig, network: Network, phase: int = 0) -> tuple[list[Leaf], int]:
    """Returns (the leaves of a network as a run of the config trains it, bytes of the optimizer besides theirs).

    They are in the order in which the network computes them.

    Args:
      config: what to train.
      network: the network of it.
      phase: the phase of the run, which says what is frozen and what the optimizer holds.

    Raises:
      InputError: globs of the config that match nothing.
    """
    phases = make_phases(config, network, optax.constant_schedule(1.0))
    drawn = initialisers_of(network.model, network.preprocessing.image_shape)
    shapes = flatten(network.shapes)
    params = {path.partition("/")[2]: leaf for path, leaf in shapes.items() if path.startswith("params/")}
    total = sum(math.prod(leaf.shape) for leaf in params.values())
    optim = config.optim
    rates = factors_of(network.shapes["params"], network.model.part_paths, optim.layer_decay, optim.lr_multipliers)
    held, other = optimizer_bytes(phases[phase], network)
    decayed = decayed_leaves(phases[phase], network)
    states = _states(network, phases, phase)
    sharding = str(tuple(meshes.replicated(meshes.make_mesh(1)).spec) or "replicated")
    leaves = []
    order = {full: place for place, full in enumerate(drawn)}
    for full in sorted(shapes, key=lambda full: order.get(full, len(order))):
        collection, _, path = full.partition("/")
        leaf = Leaf(
            path, KINDS[collection], shapes[full].shape, str(shapes[full].dtype), drawn=_head(config, full, drawn),
            state=states[full], sharding=sharding,
        )  # fmt: skip
        if leaf.kind == "parameter":
            rate = rates[path] if leaf.runs else None
            leaf = replace(
                leaf, share=leaf.size / total, decays=path in decayed, rate=rate, optimizer_bytes=held.get(path, 0)
            )
        leaves.append(leaf)
    return leaves, other


def _head(config: TrainConfig, path: str, drawn: Mapping[str, Drawn]) -> Drawn | None:
    """How a leaf is drawn, with what `model.head_init` makes of a new head afterwards (see `start.py`)."""
    if not path.startswith("params/head/") or config.model.head_init == "default":
        return drawn.get(path)
    if config.model.head_init == "prior" and path.endswith("/bias"):
        return Drawn("log share of class")
    return Drawn("zeros", 0.0, 0.0)


def _states(network: Network, phases: tuple[Phase, ...], phase: int) -> dict[str, str]:
    """What each leaf does in a phase, by full path; of one that thaws later, when."""
    first = {
        "params": first_phases(network.shapes["params"], [each.rule for each in phases]),
        "batch_stats": first_phases(network.shapes["batch_stats"], [FrozenStatistics(each.rule) for each in phases]),  # type: ignore[misc]
    }
    states = {}
    for full in flatten(network.shapes):
        collection, _, path = full.partition("/")
        begins = first[collection].get(path)
        if begins is None:
            states[full] = "frozen"
        elif begins <= phase:
            states[full] = "trains" if collection == "params" else "moves"
        else:
            states[full] = f"frozen until epoch {phases[begins].epoch:g}"
    return states


def optimizer_bytes(phase: Phase, network: Network) -> tuple[dict[str, int], int]:
    """Returns (bytes of the optimizer's state of each parameter by path, bytes of what is no parameter's: counts).

    The state is that of the real optimizer's `init` over the leaves that train, evaluated to shapes. A leaf of it
    belongs to the parameter whose path ends its own.
    """
    state = phase.state_shapes(network)
    params = flatten(state.params)
    held: dict[str, int] = {}
    other = 0
    for keys, leaf in jax.tree_util.tree_leaves_with_path(state.opt_state):
        size = math.prod(leaf.shape) * leaf.dtype.itemsize
        names = [str(key.key) for key in keys if isinstance(key, jax.tree_util.DictKey)]
        suffixes = ("/".join(names[start:]) for start in range(len(names)))
        owner = next((path for path in suffixes if path in params and params[path].shape == leaf.shape), None)
        if owner is None:
            other += size
        else:
            held[owner] = held.get(owner, 0) + size
    return held, other


def decayed_leaves(phase: Phase, network: Network) -> set[str]:
    """Returns the paths of the parameters that the optimizer of a phase decays.

    Those whose update depends on the weights themselves: with the gradient given, decay is all in an update that does.
    This is read from the traced update, so it holds for whatever mask the optimizer has. What depends on them by a
    number alone, as on the norm in the trust ratio of lars and lamb, does not count.
    """
    state = phase.state_shapes(network)
    paths = list(flatten(state.params))
    params = [flatten(state.params)[path] for path in paths]

    def update(grads: list[Any], weights: list[Any], held: Any) -> list[Any]:
        trees = [unflatten(dict(zip(paths, leaves, strict=True))) for leaves in (grads, weights)]
        flat = flatten(phase.optimizer.update(trees[0], held, trees[1])[0])
        return [flat[path] for path in paths]

    program = jax.make_jaxpr(update)(params, params, state.opt_state).jaxpr
    reached = set(program.invars[len(params) : 2 * len(params)])
    for equation in program.eqns:
        if any(isinstance(given, Var) and given in reached for given in equation.invars):
            reached |= {made for made in equation.outvars if made.aval.shape}
    outputs = zip(paths, program.outvars, strict=True)
    return {path for path, output in outputs if isinstance(output, Var) and output in reached}


def with_values(leaves: list[Leaf], variables: Tree) -> list[Leaf]:
    """Returns the leaves with figures of their numbers in {"params", "batch_stats"}."""
    arrays = {
        (KINDS[full.partition("/")[0]], full.partition("/")[2]): leaf for full, leaf in flatten(variables).items()
    }
    return [replace(leaf, values=values_of(np.asarray(arrays[leaf.kind, leaf.path]))) for leaf in leaves]


def with_step(leaves: list[Leaf], figures: Mapping[str, Mapping[str, Any]]) -> list[Leaf]:
    """Returns the leaves with what a step does to them: `training.health.leaf_figures` as numbers, by path.

    None, as health.jsonl has it, is what was not finite.
    """

    def number(figure: Any) -> float:
        return math.nan if figure is None else float(figure)

    moved = {}
    for path, one in figures.items():
        weight_norm = number(one["weight_norm"])
        update_norm = number(one["update_ratio"]) * weight_norm if "update_ratio" in one else None
        moved[path] = Moved(number(one["grad_norm"]), weight_norm, update_norm)
    return [replace(leaf, moved=moved.get(leaf.path) if leaf.kind == "parameter" else None) for leaf in leaves]


def leaves_of_tensors(tensors: Mapping[str, np.ndarray], types: Mapping[str, str] | None = None) -> list[Leaf]:
    """Returns the leaves of a file of weights: its own names and shapes, and the figures of its numbers.

    `types` are those that the tensors have in the file, where they are known to be others.
    """
    types = types or {}
    total = sum(array.size for array in tensors.values()) or 1
    return [
        Leaf(
            name, "tensor", array.shape, types.get(name, str(array.dtype)), array.size / total, values=values_of(array)
        )
        for name, array in tensors.items()
    ]
