"""Tunables of power margin."""

from dataclasses import dataclass
from typing import Annotated

from alfamix_core.acquisition.tunable_types import NotNegative


@dataclass(frozen=True)
class Tunables:
    """Sharpness of the draw."""

    beta: Annotated[
        NotNegative,
        "Exponent of the weight (1 - margin) with which samples are drawn: 0 is `random`, larger values come nearer to "
        "`margin`.",
    ] = 1.0
