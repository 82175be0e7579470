"""Tunables of ProbCover."""

from dataclasses import dataclass
from typing import Annotated

from alfamix_core.acquisition.tunable_types import Count, Ge, Gt, Le


@dataclass(frozen=True)
class Tunables:
    """How far a sample covers, and how many are chosen from."""

    radius: Annotated[
        Annotated[float, Ge(1e-6), Le(3)] | None,
        "Radius of the balls around embeddings of length 1, which are at most 2 apart; null for the largest at which "
        "`purity` holds.",
    ] = None
    purity: Annotated[float, Gt(0), Le(1), "Share of the balls that must hold samples of one cluster alone."] = 0.95
    clusters: Annotated[
        Annotated[int, Ge(2)] | None, "Number of clusters that stand for classes; null for the number of classes."
    ] = None
    subset: Annotated[
        Count, "Largest number of samples that are covered and chosen from, though never fewer than the queries."
    ] = 20_000
