"""Least confidence: query where the most likely class is least likely.

Needs logits alone. Scoring costs N K. A ranking: a shard sends its B best, exactly.

Choose it where the errors of the top prediction alone count, as when every sample below a confidence goes to a person.
With two classes ``margin`` and ``entropy`` rank the same way. It does not spread the queries.
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


def least_confidences(log_probs_nK: Tensor) -> Tensor:
    """Return Σ_{k≠y} p_k, y the most likely class.

    Args:
        log_probs_nK: (n, K) ln p, float64, K >= 2.

    Returns:
        (n,) in [0, 1 - 1/K]; 0 is certain.

    Source:
        Lewis, Gale, "A sequential algorithm for training text classifiers", SIGIR 1994.
    """
    return without_top(log_probs_nK)


def score(block: Features, state: NoState) -> Scores:
    """Score each sample of n by its least confidence; only the logits (n, K) are read."""
    return score_logits(block, least_confidences)
