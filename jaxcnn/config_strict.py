"""What all parts of a config share: how they are read, and the ranges of their fields."""

from typing import Annotated, Any, ClassVar

from annotated_types import Ge, Gt, Interval

Probability = Annotated[float, Interval(ge=0.0, le=1.0)]
Positive = Annotated[float, Gt(0)]
NonNegative = Annotated[float, Ge(0)]
Count = Annotated[int, Ge(1)]


class Strict:
    """Read strictly: no unknown keys, no conversion of types, finite numbers. Told to pydantic without importing it."""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid", "strict": True, "allow_inf_nan": False}
