"""Tunables of TypiClust."""

from dataclasses import dataclass
from typing import Annotated

from alfamix_core.acquisition.tunable_types import EFFORT, Count, Effort, Ge


@dataclass(frozen=True)
class Tunables:
    """Clustering of the pool, and the measure of typicality."""

    max_clusters: Annotated[Count, "Largest number of clusters; otherwise there are L + B."] = 500
    neighbours: Annotated[Count, "Largest number of nearest neighbours in the mean distance."] = 20
    min_size: Annotated[Count, "Number of members below which a cluster is skipped, unless all are smaller."] = 6
    max_compared: Annotated[
        int,
        Ge(2),
        "Largest number of members of a cluster that are compared with each other, those nearest to its centre; a "
        "comparison of all with all would grow with the square of the pool.",
    ] = 8_192
    clustering: Annotated[Effort, EFFORT] = "fast"
