"""What changes from step to step: arrays only."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from jaxcnn.paths import GlobRule, merge
from jaxcnn.training.metrics import Sums
from jaxcnn.training.partition import partition


class TrainState(flax.struct.PyTreeNode):
    """The state of a run; functions, config and the position in the data (which is `step`) are outside."""

    step: jax.Array
    """Steps done, int32 []."""
    params: Any
    """The trainable leaves."""
    frozen: Any
    """The other parameters."""
    batch_stats: Any
    """Running statistics of batch norms."""
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
        return {"params": merge(self.averaged["params"], self.frozen), "batch_stats": self.averaged["batch_stats"]}


def create_state(
    variables: dict[str, Any], rule: GlobRule, optimizer: optax.GradientTransformation, use_ema: bool
) -> TrainState:
    """Returns the state before step 0, for the variables of `model.init` or of weights read from elsewhere."""
    trainable, frozen = partition(variables["params"], rule)
    batch_stats = variables.get("batch_stats", {})
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=trainable,
        frozen=frozen,
        batch_stats=batch_stats,
        opt_state=optimizer.init(trainable),
        # Copies: two leaves of a donated state must not share a buffer.
        ema=jax.tree.map(jnp.copy, {"params": trainable, "batch_stats": batch_stats}) if use_ema else None,
    )


def to_trees(state: TrainState, sums: Sums) -> dict[str, Any]:
    """Returns a state as the trees of a checkpoint: `model` is the same whatever is frozen."""
    return {
        "model": {"params": merge(state.params, state.frozen), "batch_stats": state.batch_stats},
        "average": {} if state.ema is None else state.ema,
        "optimizer": {"step": state.step, "opt_state": state.opt_state},
        "sums": sums,
    }


def from_trees(trees: dict[str, Any], rule: GlobRule) -> tuple[TrainState, Sums]:
    """Returns the state and sums of a checkpoint's trees: the inverse of `to_trees`."""
    params, frozen = partition(trees["model"]["params"], rule)
    optimizer = trees["optimizer"]
    state = TrainState(
        step=optimizer["step"],
        params=params,
        frozen=frozen,
        batch_stats=trees["model"]["batch_stats"],
        opt_state=optimizer["opt_state"],
        ema=trees["average"] or None,
    )
    return state, trees["sums"]
