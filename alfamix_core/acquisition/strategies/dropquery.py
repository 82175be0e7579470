"""DropQuery: query samples whose prediction changes when features are dropped, spread by k-means.

Needs embeddings and the head. Scoring costs T N K D, T passes; the choice is a k-means of the candidates. Exact
under sharding: a shard sends all its samples that can be candidates, never more than ``max_candidates``. One matrix
of the candidates' rows is in memory, 4 D bytes per row.

Choose it on frozen features of a foundation model, with a head trained on dropped features: it costs T + 1 head
passes, no gradient. ``alfamix`` measures continuously how near the flip is.

scikit-activeml's ``DropQuery`` has 5 passes by default. Its candidates are the samples that most passes flip, filled up
to the batch by flips, with ties in no defined order; here samples that fewer passes flip are candidates too, until
there are 25 times the batch. It clusters the rows as they are; here they have length 1. It does not scale the features
that are kept, which matters only if the head has a bias. Its masks come from a random state of its own, and its queries
in the order of the clusters.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from alfamix_core.acquisition import masks, noise
from alfamix_core.acquisition.batch import Batch
from alfamix_core.acquisition.blocks import map_rows, products
from alfamix_core.acquisition.spread import offer_clusters, offer_in_rounds
from alfamix_core.acquisition.tunables.dropquery import Tunables
from alfamix_core.acquisition.types import Features, Head, Labelled, LinearHead, Scores

COLUMNS = frozenset({"embeddings"})
NEEDS_LABELS = False
USES_HEAD = True

_ENOUGH = 25
"""Multiple of the batch: with at least that many candidates, samples that fewer passes flip are left out."""


@dataclass(frozen=True)
class State:
    """The head, the tunables and the seed, which every shard needs.

    Attributes:
        head: Head of the model.
        tunables: Passes and dropout, candidates and effort of the k-means.
        seed: Seed of masks and order.
    """

    head: Head
    tunables: Tunables
    seed: int


def prepare(labelled: Labelled, head: Head, tunables: Tunables, *, seed: int) -> State:
    """Keep the head, the tunables and the seed.

    Args:
        labelled: Not read.
        head: Head in evaluation mode.
        tunables: Passes and dropout, candidates and effort of the k-means.
        seed: Seed of masks and order.

    Returns:
        The state.
    """
    return State(head, tunables, seed)


def _predictions(rows_nD: Tensor, head: Head) -> Tensor:
    """Return the first class with the largest logit, (n,) int64, independent of the other rows."""
    if not isinstance(head, LinearHead):
        with torch.no_grad():
            return map_rows(lambda block_nD: head(block_nD).argmax(dim=1), rows_nD)
    kernel_DK, bias_K = head.weight_KD.T.to(rows_nD.dtype), head.bias_K.to(rows_nD.dtype)
    return map_rows(lambda block_nD: (products(block_nD, kernel_DK) + bias_K).argmax(dim=1), rows_nD)


def score(block: Features, state: State) -> Scores:
    """Score each sample by the number of dropout passes that change its prediction.

    The features are dropped before the head, by a mask of seed, pass and position.

    Args:
        block: n pool samples; only positions and embeddings (n, D) are read.
        state: Result of ``prepare``.

    Returns:
        scores_n: whole numbers in [0, passes]. The row ``embeddings`` is what k-means needs.

    Source:
        Gupte et al., "Revisiting active learning in the era of vision foundation models", TMLR 2024, section 4.
        Three passes at 0.75 are the released code's.
    """
    assert block.embeddings_nD is not None
    embeddings_nD = block.embeddings_nD
    rows_nD = embeddings_nD.to(torch.promote_types(embeddings_nD.dtype, torch.float32))
    predicted_n = _predictions(rows_nD, state.head)
    flips_n = torch.zeros(len(block), dtype=torch.float32, device=rows_nD.device)
    for index in range(state.tunables.passes):
        noise_key = noise.fold(state.seed, noise.HEAD_DROPOUT, index)
        mask_nD = masks.kept(noise_key, block.positions_n, rows_nD.shape[1], state.tunables.dropout)
        flips_n += _predictions(rows_nD * mask_nD / (1 - state.tunables.dropout), state.head) != predicted_n
    return Scores(block.positions_n, flips_n, {"embeddings": embeddings_nD})


def _order(scores: Scores, state: State) -> Tensor:
    """Return the rows from best to worst: most flips first, then a random number of seed and position."""
    numbers_n = noise.uniform(noise.fold(state.seed, noise.FLIPS_FILL), scores.positions_n)
    drawn_n = numbers_n.sort(stable=True).indices
    return drawn_n[scores.scores_n[drawn_n].sort(descending=True, stable=True).indices]


def _candidates(scores: Scores, state: State, need: int) -> int:
    """Return the number of best rows that are candidates.

    These are the rows that more than half of the passes flip, or one pass less, and so on down to one, until there are
    25 times ``need``.
    """
    for least in range(state.tunables.passes // 2 + 1, 0, -1):
        candidates = int((scores.scores_n >= least).sum())
        if candidates >= _ENOUGH * need:
            break
    return candidates


def keep(scores: Scores, state: State, reach: int) -> Scores:
    """Return the candidates, and the ``reach`` best rows.

    If a number of flips suffices in a shard, it suffices in the pool, so no candidate of the pool is missing.

    Args:
        scores: n rows of one shard or of several merged.
        state: Result of ``prepare``.
        reach: Largest number of queries that can still be asked for.

    Returns:
        At most max(max_candidates, reach + 1) rows, in position order.
    """
    count = min(max(_candidates(scores, state, reach), reach), max(state.tunables.max_candidates, reach + 1))
    return scores if count >= len(scores) else scores.take(_order(scores, state)[:count].sort().values)


def select(scores: Scores, state: State, batch: Batch, generator: torch.Generator) -> None:
    """Choose among the candidates by k-means; fill a short batch at random, by seed and position.

    Args:
        scores: n rows, positions ascending, with ``embeddings``.
        state: Result of ``prepare``.
        batch: Batch that receives the queries: the candidates nearest to the cluster centres, then the fill; each by
            flips, then by the random number. Where candidates are refused, the choice is that of the pool without them.
        generator: Source of the seed of the k-means.

    Source:
        Gupte et al., TMLR 2024, algorithm 1; the released code fills by a draw with a global state.
    """
    seed = noise.draw_seed(generator)

    def choose(left: Scores) -> None:
        kept = keep(left, state, batch.need)
        if len(kept) > batch.need:
            offer_clusters(batch, kept, _order(kept, state), seed, state.tunables.clustering)

    offer_in_rounds(batch, scores, choose)
    batch.offer_all(scores.positions_n[_order(scores, state)])


def summary(scores: Scores, state: State, need: int) -> dict[str, float | int]:
    """Return ``candidates``, the number of samples among which k-means chooses."""
    return {"candidates": min(_candidates(scores, state, need), max(state.tunables.max_candidates, need + 1))}
