"""BALD: query samples for which dropout passes are confident but disagree.

Needs ``mc_logits``: T passes of the whole model with dropout, T times the time of ``embed``, and a model that has
dropout layers. Scoring costs N T K. A ranking: a shard sends its B best, exactly.

Choose it where a model with dropout is in use anyway and noise in the images makes plain uncertainty useless: a
sample that is equally ambiguous to every pass scores 0. It does not spread the queries.

scikit-activeml's ``GreedyBALD`` differs in that it clips probabilities to at least 1e-7 and breaks ties at random.
"""

import math

import torch
from torch import Tensor

from alfamix_core.acquisition import ranking
from alfamix_core.acquisition.blocks import map_rows
from alfamix_core.acquisition.probabilities import NoState, log_probabilities
from alfamix_core.acquisition.tunables.bald import Tunables
from alfamix_core.acquisition.types import Features, Head, Labelled, Scores
from alfamix_core.errors import InputError

COLUMNS = frozenset({"mc_logits"})
COLUMN_TUNABLES = frozenset({"passes"})
NEEDS_LABELS = False
USES_HEAD = False

keep = ranking.keep
select = ranking.select


def prepare(labelled: Labelled, head: Head, tunables: Tunables, *, seed: int) -> NoState:
    """Return an empty state: a sample's logits are enough, and the masks are drawn in ``embed``."""
    return NoState()


def disagreements(logits_nTK: Tensor) -> Tensor:
    """Return the mutual information of a sample's class and the pass, without a difference of two entropies.

    Args:
        logits_nTK: (n, T, K) of T passes.

    Returns:
        (n,) float64 in [0, ln min(T, K)], nats: the mean over the passes of the divergence of p_t from the mean p.

    Source:
        Houlsby et al., "Bayesian active learning for classification and preference learning", 2011; with dropout: Gal,
        Islam, Ghahramani, "Deep Bayesian active learning with image data", ICML 2017.
    """
    n, T, K = logits_nTK.shape
    log_probs_nTK = log_probabilities(logits_nTK.reshape(n * T, K)).reshape(n, T, K)
    log_mean_nK = log_probs_nTK.logsumexp(dim=1) - math.log(T)
    total_n = log_mean_nK.new_zeros(n)
    for log_probs_nK in log_probs_nTK.unbind(dim=1):
        total_n += (log_probs_nK.exp() * (log_probs_nK - log_mean_nK)).sum(dim=1)
    return (total_n / T).clamp(min=0)


def score(block: Features, state: NoState) -> Scores:
    """Score each sample by how much its dropout passes disagree.

    Args:
        block: n pool samples; only positions and mc_logits (n, T, K), K >= 2, are read.
        state: Not read.

    Returns:
        scores_n >= 0 in nats.

    Raises:
        InputError: There are fewer than two classes.
    """
    assert block.mc_logits_nTK is not None
    if block.mc_logits_nTK.shape[2] < 2:
        raise InputError(f"two classes are needed to compare, the logits have {block.mc_logits_nTK.shape[2]}")
    return Scores(block.positions_n, map_rows(disagreements, block.mc_logits_nTK).to(torch.float32))
