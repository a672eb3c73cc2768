"""What changes from step to step: arrays only."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from jaxcnn.paths import GlobRule, Tree, flatten, merge, unflatten
from jaxcnn.training.metrics import Sums
from jaxcnn.training.optim import carry_over
from jaxcnn.training.partition import partition_variables


class TrainState(flax.struct.PyTreeNode):
    """The state of a run; functions, config and the position in the data (which is `step`) are outside."""

    step: jax.Array
    """Steps done, int32 []."""
    params: Any
    """The trainable leaves."""
    frozen: Any
    """{"params", "batch_stats"} of what does not move: passed from step to step, never written."""
    batch_stats: Any
    """Running statistics of the batch norms that train."""
    opt_state: Any
    """The optimizer's state, for the trainable leaves."""
    ema: Any
    """Moving averages {"params", "batch_stats"}, or none."""

    @property
    def averaged(self) -> Any:
        """{"params", "batch_stats"} to evaluate with: the moving averages if they are kept, else the current ones."""
        return self.ema if self.ema is not None else {"params": self.params, "batch_stats": self.batch_stats}

    @property
    def variables(self) -> dict[str, Any]:
        """The variables to evaluate with, as `model.apply` takes them."""
        return merge_variables(self.averaged, self.frozen)

    @property
    def current(self) -> dict[str, Any]:
        """The variables to train with."""
        return merge_variables({"params": self.params, "batch_stats": self.batch_stats}, self.frozen)


def merge_variables(moving: Tree, frozen: Tree) -> dict[str, Any]:
    """Returns {"params", "batch_stats"} of what moves and what does not: the inverse of `partition_variables`."""
    return {name: merge(moving[name], frozen[name]) for name in ("params", "batch_stats")}


def create_state(
    variables: dict[str, Any], rule: GlobRule, optimizer: optax.GradientTransformation, use_ema: bool
) -> TrainState:
    """Returns the state before step 0, for the variables of `model.init` or of weights read from elsewhere."""
    moving, frozen = partition_variables(variables, rule)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=moving["params"],
        frozen=frozen,
        batch_stats=moving["batch_stats"],
        opt_state=optimizer.init(moving["params"]),
        # Copies: two leaves of a donated state must not share a buffer.
        ema=jax.tree.map(jnp.copy, moving) if use_ema else None,
    )


def thawed(state: TrainState, rule: GlobRule, optimizer: optax.GradientTransformation) -> TrainState:
    """Returns the state with less of it frozen: what trained already keeps its optimizer state and its averages.

    Args:
      state: after the last step of a phase.
      rule: what is frozen in the next.
      optimizer: of the next phase.
    """
    new = create_state(state.current, rule, optimizer, state.ema is not None)
    ema = None
    if state.ema is not None:
        ema = {name: unflatten({**flatten(new.ema[name]), **flatten(state.ema[name])}) for name in new.ema}
    return new.replace(step=state.step, opt_state=carry_over(state.opt_state, new.opt_state), ema=ema)


def to_trees(state: TrainState, sums: Sums) -> dict[str, Any]:
    """Returns a state as the trees of a checkpoint: `model` is the same whatever is frozen."""
    return {
        "model": state.current,
        "average": {} if state.ema is None else state.ema,
        "optimizer": {"step": state.step, "opt_state": state.opt_state},
        "sums": sums,
    }


def from_trees(trees: dict[str, Any], rule: GlobRule) -> tuple[TrainState, Sums]:
    """Returns the state and sums of a checkpoint's trees: the inverse of `to_trees`."""
    moving, frozen = partition_variables(trees["model"], rule)
    optimizer = trees["optimizer"]
    state = TrainState(
        step=optimizer["step"],
        params=moving["params"],
        frozen=frozen,
        batch_stats=moving["batch_stats"],
        opt_state=optimizer["opt_state"],
        ema=trees["average"] or None,
    )
    return state, trees["sums"]
