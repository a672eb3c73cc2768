"""The equal blocks of a stage as one loop (`lax.scan`), so that a deep network compiles in half the time.

Each block keeps its own leaves under its own name, `stage2/block5/conv1/kernel`: they are stacked inside the call and
the new running statistics are taken apart again, so nothing outside notices. A loop has one body, in which all blocks
must be alike. They are not where a freeze takes leaves of some blocks only, nor with stochastic depth, whose rate
differs from block to block: such a stage goes through its blocks one by one.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import Scope

from jaxcnn.models.stacking import stack, unstack
from jaxcnn.paths import GlobRule, Tree, flatten

Factory = Callable[..., Any]


@dataclass(frozen=True)
class BlockScan:
    """Which blocks of a stage may share a loop, given the paths that do not train."""

    freeze: GlobRule = GlobRule()

    def run(self, stage: Tree, path: str) -> list[str]:
        """Returns the names of the blocks to be looped over; none where the freeze splits them.

        Args:
          stage: parameters (or their shapes) of the stage: {"block1": {...}, ...}.
          path: path of the stage, such as `backbone/stage2`.
        """
        names = equal_blocks(stage)
        return [] if self.splits(names, stage, path) else names

    def splits(self, names: list[str], stage: Tree, path: str) -> bool:
        """Returns whether the freeze takes leaves of some of these blocks and not of others."""
        frozen = [
            {leaf for leaf in flatten(stage[name]) if self.freeze.matches(f"{path}/{name}/{leaf}")} for name in names
        ]
        return any(leaves != frozen[0] for leaves in frozen)


def equal_blocks(stage: Tree) -> list[str]:
    """Returns the names of the blocks whose leaves have the names and shapes of the last one's; none for a single one.

    The first block is often another: it gets its input from a narrower stage.
    """
    names = [f"block{index + 1}" for index in range(len(stage))]
    shapes = {name: {path: leaf.shape for path, leaf in flatten(stage[name]).items()} for name in names}
    equal = [name for name in names if shapes[name] == shapes[names[-1]]]
    return equal if len(equal) > 1 else []


def split_stages(backbone: nn.Module, params: Tree) -> list[str]:
    """Returns the names of the stages that are to be scanned, but are not because a freeze splits their blocks."""
    scan: BlockScan | None = getattr(backbone, "scan", None)
    if scan is None:
        return []
    stages = {name: tree for name, tree in params.items() if name.startswith("stage")}
    return [name for name, tree in stages.items() if scan.splits(equal_blocks(tree), tree, f"backbone/{name}")]


def scan_blocks(
    stage: nn.Module, block: Factory, names: Sequence[str], x: jax.Array, *, remat: bool = False
) -> jax.Array:
    """Returns x [N, H, W, C] after the blocks of these names, which are children of the stage.

    Args:
      stage: the module whose scope holds the leaves and takes the new running statistics.
      block: factory of any one of the blocks.
      names: names of the blocks, in order.
      x: input of the first of them.
      remat: keep only the inputs of blocks for the way back, and compute the maps inside them anew.
    """
    trees: list[dict[str, Any]] = [
        {kind: stage.get_variable(kind, name) for kind in stage.variables if stage.has_variable(kind, name)}
        for name in names
    ]
    assert stage.scope is not None
    keys = _dropout_keys(stage.scope, block(parent=None), names)
    path = (*stage.path, names[0])  # by which batch norms ask whether they are frozen: the others would hear the same
    writes = stage.is_mutable_collection("batch_stats")

    def body(x: jax.Array, given: tuple[Mapping[str, Any], jax.Array | None]) -> tuple[jax.Array, Any]:
        variables, key = dict(given[0]), given[1]
        scope = Scope(variables, name=names[0], path=path, mutable="batch_stats" if writes else False)
        module = block(parent=scope) if key is None else block(parent=scope, dropout=_keyed(block, key))
        return module(x), variables.get("batch_stats") if writes else None

    # Forward and way back are loops of their own, so XLA cannot take what is computed anew for what is there already.
    x, statistics = jax.lax.scan(jax.checkpoint(body, prevent_cse=False) if remat else body, x, (stack(trees), keys))
    if statistics:
        for name, tree in zip(names, unstack(statistics), strict=True):
            stage.put_variable("batch_stats", name, tree)
    return x


def _dropout_keys(scope: Scope, block: Any, names: Sequence[str]) -> jax.Array | None:
    """The keys [blocks] that the dropout of each block would draw by itself; none where nothing is dropped."""
    if not block.train or not block.dropout(parent=None).rate:
        return None
    return jnp.stack([scope.push(name).push("dropout").make_rng("dropout") for name in names])


def _keyed(block: Any, key: jax.Array) -> Factory:
    """The dropout of a block, with its key given."""
    factory = block(parent=None).dropout
    return lambda **options: functools.partial(factory(**options), rng=key)
