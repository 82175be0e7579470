"""Tunables of DFAL."""

from dataclasses import dataclass
from typing import Annotated

from alfamix_core.acquisition.tunable_types import Ge


@dataclass(frozen=True)
class Tunables:
    """Number of boundaries."""

    classes: Annotated[int, Ge(2), "Number of most likely classes that `embed` considers; time grows with it."] = 10
