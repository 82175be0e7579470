"""The types of tunables: bounds, and the choices that several strategies share, without torch or any other package.

A tunable is a field such as ``passes: Annotated[int, Ge(2), "Number of passes."] = 10``. The attributes of the bounds
have the names that pydantic's have, so one reader serves both; they are not pydantic's, because the
library's call needs nothing but torch and numpy.
"""

from dataclasses import dataclass
from typing import Annotated, Literal


@dataclass(frozen=True)
class Ge:
    """The smallest value."""

    ge: float


@dataclass(frozen=True)
class Gt:
    """A value below all others."""

    gt: float


@dataclass(frozen=True)
class Le:
    """The largest value."""

    le: float


@dataclass(frozen=True)
class Lt:
    """A value above all others."""

    lt: float


@dataclass(frozen=True)
class NoTunables:
    """The tunables of a strategy that has none."""


Count = Annotated[int, Ge(1)]
Positive = Annotated[float, Gt(0)]
NotNegative = Annotated[float, Ge(0)]

Effort = Literal["fast", "best", "ten_starts"]
"""Effort of a k-means: moves of centres; more of them, for up to a percent less inertia; the best of ten starts."""
EFFORT = 'Effort of the k-means; "best" takes much longer for up to a percent less inertia.'
