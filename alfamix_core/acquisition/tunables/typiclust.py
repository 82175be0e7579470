"""Tunables of TypiClust."""

from dataclasses import dataclass
from typing import Annotated

from alfamix_core.acquisition.tunable_types import EFFORT, Count, Effort, Ge


@dataclass(frozen=True)
class Tunables:
    """How the pool is clustered, and what is typical."""

    max_clusters: Annotated[Count, "Largest number of clusters; otherwise there are L + B."] = 500
    neighbours: Annotated[Count, "Number of nearest neighbours, at most, whose mean distance is taken."] = 20
    min_size: Annotated[Count, "Number of members below which a cluster is passed over, unless all are."] = 6
    max_compared: Annotated[
        int,
        Ge(2),
        "Number of members nearest to its centre, at most, that are compared with each other in a cluster; a "
        "comparison of all with all would grow with the square of the pool.",
    ] = 8_192
    clustering: Annotated[Effort, EFFORT] = "fast"
