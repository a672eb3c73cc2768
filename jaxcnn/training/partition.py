"""Trainable | frozen: one rule list with three effects, held together here.

A frozen leaf gets no gradient (the step differentiates with respect to the trainable subtree only), no update and no
optimizer state; and a norm whose parameters are frozen uses its running statistics and does not write them
(`models/norms.py`, which is given the same rule). On disk the tree is the same whatever is frozen.

A run may thaw leaves on its way (Howard & Ruder 2018, section 3.3, gradual unfreezing): it then has phases, each with a
rule of its own, and what trains in one trains in all that follow.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jaxcnn.errors import InputError
from jaxcnn.paths import GlobRule, Tree, flatten, split

Variables = dict[str, Any]
"""{"params", "batch_stats"}: parameters and running statistics."""


@dataclass(frozen=True)
class FrozenStatistics:
    """The paths of the running statistics that do not move: those of norms whose scale and bias are frozen."""

    rule: GlobRule

    def matches(self, path: str) -> bool:
        """Returns whether the path of a statistic, such as `backbone/stem/norm/mean`, is in the set."""
        norm = path.rpartition("/")[0]
        return self.rule.matches(f"{norm}/scale") and self.rule.matches(f"{norm}/bias")


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


def partition_variables(variables: Tree, rule: GlobRule) -> tuple[Variables, Variables]:
    """Returns (what moves, what is frozen) of parameters and statistics; raises as `partition`."""
    trainable, frozen = partition(variables["params"], rule)
    moving, still = split(variables.get("batch_stats", {}), FrozenStatistics(rule))
    return {"params": trainable, "batch_stats": moving}, {"params": frozen, "batch_stats": still}


def phase_rules(freeze: Sequence[str], unfreeze: Sequence[tuple[float, str]]) -> list[tuple[float, GlobRule]]:
    """Returns (first epoch, what is frozen) of each phase, in order.

    Args:
      freeze: globs of what is frozen at first.
      unfreeze: (epoch, glob): what trains from that epoch on.

    Raises:
      InputError: an epoch that is not above 0, a glob that takes back, or one that is there twice.
    """
    rules, patterns = [(0.0, GlobRule(tuple(freeze)))], tuple(freeze)
    for epoch, glob in unfreeze:
        if epoch <= 0 or glob.startswith("!"):
            raise InputError(f"unfreeze={epoch:g} {glob!r}: it takes an epoch above 0 and a glob of what trains then")
    for epoch in sorted({epoch for epoch, _ in unfreeze}):
        patterns += tuple(f"!{glob}" for at, glob in unfreeze if at == epoch)
        rules.append((epoch, GlobRule(patterns)))
    return rules


def check_phases(params: Tree, rules: Sequence[tuple[float, GlobRule]], epochs: float) -> None:
    """Raises InputError where a phase begins after the run, thaws nothing, or a glob matches nothing."""
    first, *others = rules
    frozen = partition(params, first[1])[1]
    if first[1].patterns and not frozen:
        raise InputError(f"freeze={first[1].patterns}: nothing is frozen by it")
    known = len(first[1].patterns)
    for epoch, rule in others:
        for glob in (pattern.removeprefix("!") for pattern in rule.patterns[known:]):
            if epoch >= epochs:
                raise InputError(f"unfreeze={epoch:g} {glob!r}: the run has only {epochs:g} epochs")
            GlobRule((glob,)).check(flatten(params), "unfreeze")
            if not split(frozen, GlobRule((glob,)))[1]:
                raise InputError(f"unfreeze={epoch:g} {glob!r}: all that it matches trains already")
        frozen, known = partition(params, rule)[1], len(rule.patterns)


def first_phases(params: Tree, rules: Sequence[GlobRule]) -> dict[str, int]:
    """Returns the phase in which each parameter begins to train, by path; those that never do are left out."""
    first: dict[str, int] = {}
    for phase, rule in enumerate(rules):
        for path in flatten(params):
            if path not in first and not rule.matches(path):
                first[path] = phase
    return first


def trains_backbone(trainable: Tree) -> bool:
    """Returns whether a gradient goes through maps: without, a step is for the compiler a forward pass and a head."""
    return "backbone" in trainable
