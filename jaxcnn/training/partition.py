"""Trainable | frozen: one rule list with three effects, held together here.

A frozen leaf gets no gradient (the step differentiates with respect to the trainable subtree only), no update and no
optimizer state; and a norm whose parameters are frozen uses its running statistics and does not write them
(`models/norms.py`, which is given the same rule). On disk the tree is the same whatever is frozen.
"""

from typing import Any

from jaxcnn.errors import InputError
from jaxcnn.paths import GlobRule, Tree, flatten, split


def partition(params: Tree, rule: GlobRule) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns (trainable, frozen) subtrees of the parameters; `paths.merge` puts them together again.

    Raises:
      InputError: a glob that matches nothing, with the nearest paths, or a rule that freezes everything.
    """
    rule.check(flatten(params), "freeze")
    trainable, frozen = split(params, rule)
    if not trainable:
        raise InputError(
            f"freeze={rule.patterns}: every parameter is frozen, so nothing would train; leave out the head"
        )
    return trainable, frozen


def trains_backbone(trainable: Tree) -> bool:
    """Returns whether a gradient goes through maps: without, a step is for the compiler a forward pass and a head."""
    return "backbone" in trainable
