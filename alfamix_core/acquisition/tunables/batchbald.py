"""Tunables of BatchBALD."""

from dataclasses import dataclass
from typing import Annotated

from alfamix_core.acquisition.tunable_types import Count, Ge


@dataclass(frozen=True)
class Tunables:
    """Effort of the choice."""

    passes: Annotated[int, Ge(2), "Number of passes with dropout that `embed` computes."] = 10
    candidates: Annotated[
        Count, "Largest number of samples from which queries are chosen, never fewer than the queries."
    ] = 2_000
    outcomes: Annotated[Count, "Largest number of joint outcomes of the picks; beyond it, that number is drawn."] = (
        2_000
    )
