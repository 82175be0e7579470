"""Tunables of ProbCover."""

from dataclasses import dataclass
from typing import Annotated

from alfamix_core.acquisition.tunable_types import Count, Ge, Gt, Le, Positive


@dataclass(frozen=True)
class Tunables:
    """Reach of a sample's coverage, and size of the subset."""

    radius: Annotated[
        Positive | None,
        "Radius of the balls around embeddings of length 1; null for the largest at which `purity` holds.",
    ] = None
    purity: Annotated[float, Gt(0), Le(1), "Share of the balls that must hold samples of a single cluster."] = 0.95
    clusters: Annotated[
        Annotated[int, Ge(2)] | None, "Number of clusters that stand for classes; null for the number of classes."
    ] = None
    subset: Annotated[
        Count, "Largest number of samples that are covered and can be chosen, never fewer than the queries."
    ] = 20_000
