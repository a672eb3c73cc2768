"""What a check found: a verdict, a figure, what was expected of it, and what to do."""

from dataclasses import dataclass, field
from typing import Any, Literal

Verdict = Literal["pass", "warn", "fail", "skip"]


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
      check: its name, such as "initial loss".
      verdict: "pass"; "warn": worth a look; "fail": the run would be wasted; "skip": it does not apply, and why.
      figure: what was measured, in words with units: "2.304 nats".
      expected: what was expected: "ln 10 = 2.303 within 0.35".
      advice: what to do; "" where all is well.
      numbers: what was measured, for machines: JSON.
      curves: arrays to draw, by name: {"rate": [...], "loss": [...]}.
      seconds: how long the check took.
    """

    check: str
    verdict: Verdict
    figure: str
    expected: str
    advice: str = ""
    numbers: dict[str, Any] = field(default_factory=dict)
    curves: dict[str, list[float]] = field(default_factory=dict)
    seconds: float = 0.0
