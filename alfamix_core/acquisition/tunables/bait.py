"""Tunables of BAIT."""

from dataclasses import dataclass
from typing import Annotated, Literal

from alfamix_core.acquisition.tunable_types import Count, Positive


@dataclass(frozen=True)
class Tunables:
    """Scaling of the information, and size of the subset."""

    ridge: Annotated[
        Positive,
        "Ridge λ of the information matrix; best 1/C where the head is a logistic regression with that C.",
    ] = 1.0
    normalise: Annotated[
        bool, "Whether embeddings are scaled to length 1; the published code takes them as they are."
    ] = True
    scaling: Annotated[
        Literal["plain", "published"],
        'Information of the labels and of the picks: "plain" takes the mean of the labels\' and the sum of the '
        'picks\'; "published" multiplies these by L/(L + B) and B/(L + B), as the published code does.',
    ] = "plain"
    subset: Annotated[
        Count, "Largest number of samples from which queries are chosen, never fewer than the queries."
    ] = 50_000
