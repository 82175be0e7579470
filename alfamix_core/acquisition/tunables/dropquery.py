"""Tunables of DropQuery."""

from dataclasses import dataclass
from typing import Annotated

from alfamix_core.acquisition.tunable_types import EFFORT, Count, Effort, Gt, Lt


@dataclass(frozen=True)
class Tunables:
    """Dropout of the features, and the clustering of the candidates."""

    passes: Annotated[Count, "Number of dropout passes."] = 3
    dropout: Annotated[
        float, Gt(0), Lt(1), "Share of the features that a pass drops; kept ones grow by 1 / (1 - dropout)."
    ] = 0.75
    max_candidates: Annotated[
        Count, "Bound on what a shard sends and k-means clusters, though never fewer than the queries plus one."
    ] = 250_000
    clustering: Annotated[Effort, EFFORT] = "fast"
