"""Tunables of MaxHerding."""

from dataclasses import dataclass
from typing import Annotated

from alfamix_core.acquisition.tunable_types import Count, Positive


@dataclass(frozen=True)
class Tunables:
    """Reach of a sample's coverage, and size of the subset."""

    width: Annotated[
        Positive | None,
        "Width of the kernel exp(-(distance / width)²) between embeddings of length 1; null for the smallest distance "
        "between labelled samples that differ, and 1 without two of these.",
    ] = None
    subset: Annotated[
        Count, "Largest number of samples that are covered and can be chosen, never fewer than the queries."
    ] = 35_000
