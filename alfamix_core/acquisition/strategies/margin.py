"""Margin sampling: query where the two most likely classes are closest.

Needs logits alone. Scoring costs N K. A ranking: a shard sends its B best, exactly.

Choose it first where B is small beside the pool, on any encoder: it is hard to beat at its cost. It does not spread
the queries; where many near-copies of one hard case lie in the pool, ``power_margin`` and ``cluster_margin`` do.
"""

from torch import Tensor

from alfamix_core.acquisition import ranking
from alfamix_core.acquisition.probabilities import NoState, score_logits, without_top
from alfamix_core.acquisition.tunable_types import NoTunables
from alfamix_core.acquisition.types import Features, Head, Labelled, Scores

COLUMNS = frozenset({"logits"})
NEEDS_LABELS = False
USES_HEAD = False

keep = ranking.keep
select = ranking.select


def prepare(labelled: Labelled, head: Head, tunables: NoTunables, *, seed: int) -> NoState:
    """Return an empty state: a sample's logits are enough."""
    return NoState()


def margins(log_probs_nK: Tensor) -> Tensor:
    """Return 1 - (p_(1) - p_(2)), computed as p_(2) + Σ_{k≠y} p_k so that small values keep their digits.

    Args:
        log_probs_nK: (n, K) ln p, float64, K >= 2.

    Returns:
        (n,) in [0, 1]; 1 is a tie of two classes.

    Source:
        Scheffer, Decomain, Wrobel, "Active hidden Markov models for information extraction", IDA 2001.
    """
    return log_probs_nK.topk(2, dim=1).values[:, 1].exp() + without_top(log_probs_nK)


def score(block: Features, state: NoState) -> Scores:
    """Score each sample of n by one minus its margin; only the logits (n, K) are read."""
    return score_logits(block, margins)
