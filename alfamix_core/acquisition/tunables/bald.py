"""Tunables of BALD."""

from dataclasses import dataclass
from typing import Annotated

from alfamix_core.acquisition.tunable_types import Ge


@dataclass(frozen=True)
class Tunables:
    """Number of passes."""

    passes: Annotated[int, Ge(2), "Number of passes with dropout that `embed` computes; the released code has 5."] = 10
