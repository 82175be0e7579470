"""Tunables of CoreGCN."""

from dataclasses import dataclass
from typing import Annotated, Literal

from alfamix_core.acquisition.tunable_types import Count


@dataclass(frozen=True)
class Tunables:
    """The input of the network, and the features that are compared."""

    subset: Annotated[Count, "Number of pool samples that the network sees, though never fewer than the queries."] = (
        10_000
    )
    features: Annotated[
        Literal["hidden_and_logit", "hidden"],
        'Features that k-centre compares. "hidden_and_logit" is the released code\'s: the 128 hidden units and the '
        'logit, whose spread is several times theirs. "hidden" are the hidden units alone.',
    ] = "hidden_and_logit"
