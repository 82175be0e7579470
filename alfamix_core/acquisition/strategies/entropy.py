"""Entropy sampling: query where the predicted distribution is flattest.

Needs logits alone. Scoring costs N K; no strategy that looks at predictions can do with less. A ranking: a shard sends
its B best, exactly.

Choose it as the cheap reference, and where many classes compete for a sample. With many classes it also counts
small probabilities of classes that nobody would confuse, where ``margin`` compares the two that matter. It does not
spread the queries.
"""

import torch
from torch import Tensor

from alfamix_core.acquisition import ranking
from alfamix_core.acquisition.probabilities import NoState, score_logits
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


def entropies(log_probs_nK: Tensor) -> Tensor:
    """Return -Σ p ln p.

    Args:
        log_probs_nK: (n, K) ln p, float64, K >= 2.

    Returns:
        (n,) nats, in [0, ln K].

    Source:
        Settles, "Active learning literature survey", University of Wisconsin 2009, section 3.1.
    """
    terms_nK: Tensor = torch.special.entr(log_probs_nK.exp())
    return terms_nK.sum(dim=1)


def score(block: Features, state: NoState) -> Scores:
    """Score each sample of n by its entropy; only the logits (n, K) are read."""
    return score_logits(block, entropies)
