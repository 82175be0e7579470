"""Tunables of Cluster-Margin."""

from dataclasses import dataclass
from typing import Annotated

from alfamix_core.acquisition.tunable_types import Count


@dataclass(frozen=True)
class Tunables:
    """Number of samples to cluster, and the size of the clusters."""

    factor: Annotated[Count, "Number of samples that are clustered, as a multiple of the batch."] = 10
    max_clustered: Annotated[Count, "Largest number of samples that are clustered."] = 20_000
    cluster_size: Annotated[Count, "Mean number of members of a cluster."] = 10
