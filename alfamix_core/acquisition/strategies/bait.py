"""BAIT in its binary form: query the samples that lower the variance of a linear model's predictions most.

Needs embeddings, logits and the labelled embeddings. Scoring costs N K; the choice works on a random subset of m
samples, m = 50,000: 6 m D² once and 16 B m D for the picks, in memory m D + 3 D² numbers. Exact under sharding: the
subset are the m smallest random numbers of seed and position, so each shard sends its own m smallest.

Choose it on frozen features of a good encoder, where it leads a public comparison of eight strategies; embeddings are
scaled to length 1, without which it gains little. A budget of thousands takes minutes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from alfamix_core.acquisition import noise, subset
from alfamix_core.acquisition.batch import Batch
from alfamix_core.acquisition.blocks import BLOCK_ROWS
from alfamix_core.acquisition.optimal_design import forward_backward, information
from alfamix_core.acquisition.probabilities import log_probabilities, score_logits, without_top
from alfamix_core.acquisition.tunables.bait import Tunables
from alfamix_core.acquisition.types import Features, Head, Labelled, Scores

COLUMNS = frozenset({"embeddings", "logits"})
NEEDS_LABELS = False
USES_HEAD = False


@dataclass(frozen=True)
class State:
    """The information of the labelled samples, and how the choice uses it.

    Attributes:
        known_DD: (D, D) float64, the sum over labelled samples of p (1 - p) x x'.
        labels: Number of labelled samples L; it may be 0.
        tunables: λ, the scaling of embeddings and of information, and the size of the subset.
        noise_key: Key of the subset's random numbers.
    """

    known_DD: Tensor
    labels: int
    tunables: Tunables
    noise_key: int


def prepare(labelled: Labelled, head: Head, tunables: Tunables, *, seed: int) -> State:
    """Add up the information of the labelled samples.

    Args:
        labelled: L >= 0 labelled samples.
        head: Not read.
        tunables: λ, the scaling of embeddings and of information, and the size of the subset.
        seed: Seed of the subset.

    Returns:
        The state.
    """
    D, device = labelled.embeddings_LD.shape[1], labelled.embeddings_LD.device
    known_DD = torch.zeros(D, D, dtype=torch.float64, device=device)
    for start in range(0, len(labelled), BLOCK_ROWS):
        part = slice(start, start + BLOCK_ROWS)
        rows_bD = _scaled(labelled.embeddings_LD[part], tunables.normalise)
        known_DD += information(rows_bD, weights(log_probabilities(labelled.logits_LK[part])))
    return State(known_DD, len(labelled), tunables, noise.fold(seed, noise.DESIGN_SUBSET))


def weights(log_probs_nK: Tensor) -> Tensor:
    """Return p (1 - p) of the most likely class, (n,): the information of one label about the logit, at most 1/4."""
    return log_probs_nK.amax(dim=1).exp() * without_top(log_probs_nK)


def _scaled(rows_nD: Tensor, to_one: bool) -> Tensor:
    rows_nD = rows_nD.to(torch.float32)
    return normalize(rows_nD, dim=1) if to_one else rows_nD


def score(block: Features, state: State) -> Scores:
    """Score each sample by the information of its label alone, which weighs it in the choice.

    Args:
        block: n pool samples; positions, logits (n, K) and embeddings (n, D) are read.
        state: Result of ``prepare``.

    Returns:
        scores_n = p (1 - p), p the largest probability: in [0, 1/4]. ``select`` reads the row ``embeddings``.

    Raises:
        InputError: There are fewer than two classes.
    """
    assert block.embeddings_nD is not None
    scores = score_logits(block, weights)
    return Scores(scores.positions_n, scores.scores_n, {"embeddings": block.embeddings_nD})


def keep(scores: Scores, state: State, reach: int) -> Scores:
    """Return the subset: the max(m, reach) rows with the smallest random numbers, in position order."""
    return subset.smallest(scores, state.noise_key, max(state.tunables.subset, reach))


def select(scores: Scores, state: State, batch: Batch, generator: torch.Generator) -> None:
    """Pick twice as many samples as are wanted, one by one, and drop those whose removal costs least.

    Args:
        scores: n rows, positions ascending, with ``embeddings``.
        state: Result of ``prepare``.
        batch: Batch that receives the queries in the order of the picks. What it refuses is replaced by another search
            among the rest, in which the queries so far count as picked.
        generator: Not read: the subset belongs to the seed of ``prepare``.

    Source:
        Huseljic et al., ECML PKDD 2024, section 4, "binary"; Ash et al., NeurIPS 2021, algorithm 1.
    """
    L = state.labels
    published = state.tunables.scaling == "published"
    labels, picks = (L / (L + batch.need), batch.need / (L + batch.need)) if published and batch.need else (1.0, 1.0)
    known_DD = state.known_DD.to(scores.positions_n.device)
    inside_DD = known_DD * (labels / max(L, 1))
    inside_DD.diagonal().add_(state.tunables.ridge)
    for kept in subset.in_turns(scores, state, batch, keep):
        rows_mD = _scaled(kept.column("embeddings"), state.tunables.normalise)
        weights_m = kept.scores_n.to(torch.float64)
        pool_DD = (known_DD + information(rows_mD, weights_m)) / (L + len(kept))
        count = min(batch.missing, len(kept))
        chosen = forward_backward(rows_mD, picks * weights_m, pool_DD, inside_DD, count)
        accepted = [row for row in chosen if batch.offer(int(kept.positions_n[row]))]
        inside_DD = inside_DD + information(rows_mD[accepted], picks * weights_m[accepted])
