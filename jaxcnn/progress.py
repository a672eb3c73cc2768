"""How far a run is: what it knows besides its arrays."""

import math
from dataclasses import dataclass


@dataclass
class Progress:
    """What a run knows besides its arrays; saved as JSON with each checkpoint."""

    best: dict[str, float] | None = None
    """Step, epoch and top1 of the best validation so far."""
    higher_epoch: float = 0.0
    """Epoch at which the validation top-1 last rose above all before."""
    stopped_early: bool = False
    seconds: float = 0.0
    """Wall time of the sessions before this one."""
    phase: int = 0
    """The phase of the last step: which leaves have an optimizer state."""
    evaluated: bool = True
    """Whether the evaluation that is due at the last step, if one is, has been done."""
    timing: dict[str, float] | None = None
    """Of the steps before an evaluation that was broken off: it is done again without them."""

    def judge(self, step: int, epoch: float, top1: float) -> bool:
        """Takes one evaluation in and returns whether it is the best so far.

        Of equal ones the latest is the best: on a small validation split ties are common, and the loss is no judge
        between them, since training with smoothed labels makes it grow again. Patience waits for a higher one.
        """
        before = -math.inf if self.best is None else self.best["top1"]
        if top1 > before:
            self.higher_epoch = epoch
        is_best = top1 >= before
        if is_best:
            self.best = {"step": step, "epoch": epoch, "top1": top1}
        return is_best
