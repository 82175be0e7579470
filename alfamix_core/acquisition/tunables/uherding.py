"""Tunables of uncertainty herding."""

from dataclasses import dataclass
from typing import Annotated, Literal

from alfamix_core.acquisition.tunable_types import Count, Positive


@dataclass(frozen=True)
class Tunables:
    """Measure of uncertainty, and size of the subset."""

    temperature: Annotated[
        Positive,
        "Divisor of the logits. If none is given, a round takes the one that `evaluate` fitted for the champion.",
    ] = 1.0
    uncertainty: Annotated[
        Literal["margin", "entropy", "least_confidence"],
        'Uncertainty that is covered: "margin" is 1 - (p_(1) - p_(2)), the released code\'s; "entropy" in nats; '
        '"least_confidence" is 1 - p_(1).',
    ] = "margin"
    subset: Annotated[
        Count, "Largest number of samples that are covered and can be chosen, never fewer than the queries."
    ] = 35_000
