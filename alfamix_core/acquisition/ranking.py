"""The order of every choice: score descending, position ascending; and the keep and select of a plain ranking."""

import torch
from torch import Tensor

from alfamix_core.acquisition import noise
from alfamix_core.acquisition.batch import Batch
from alfamix_core.acquisition.types import Scores

_MARKED_ROWS = 2048


def order(scores: Scores) -> Tensor:
    """Return the indices of the rows from best to worst.

    ``torch.topk`` promises nothing about ties, so this sorts, and stably: rows are in position order.

    Args:
        scores: n rows, positions ascending.

    Returns:
        (n,) int64 indices (not positions): score descending, ties by position ascending.
    """
    return torch.sort(scores.scores_n, descending=True, stable=True).indices


def repeats(scores: Scores) -> Tensor:
    """Return a mask of the rows that are copies of an earlier one: equal scores, and embeddings equal to the bit.

    Only embeddings of equal scores are read.

    Args:
        scores: n rows, positions ascending, with ``embeddings``; a score is a function of the embedding.

    Returns:
        (n,) bool.
    """
    repeated_n = torch.zeros(len(scores), dtype=torch.bool, device=scores.scores_n.device)
    ascending_n = scores.scores_n.sort().values
    if not bool((ascending_n[1:] == ascending_n[:-1]).any()):
        return repeated_n
    _, owner_n, counts_u = torch.unique(scores.scores_n, return_inverse=True, return_counts=True)
    equal_m = (counts_u[owner_n] > 1).nonzero()[:, 0]
    if not len(equal_m):
        return repeated_n
    marks_m = torch.cat([_marks(scores.rows["embeddings"][index_b]) for index_b in torch.split(equal_m, _MARKED_ROWS)])
    # a stable sort keeps copies in the order of their rows
    by_mark_m = marks_m.sort(stable=True).indices
    by_both_m = by_mark_m[owner_n[equal_m][by_mark_m].sort(stable=True).indices]
    same_m = torch.zeros_like(by_both_m, dtype=torch.bool)
    marks_m, owner_m = marks_m[by_both_m], owner_n[equal_m][by_both_m]
    same_m[1:] = (marks_m[1:] == marks_m[:-1]) & (owner_m[1:] == owner_m[:-1])
    repeated_n[equal_m[by_both_m[same_m]]] = True
    return repeated_n


def _marks(rows_mD: Tensor) -> Tensor:
    """Return 64 bits per row: equal for equal rows, different for others but for one chance in 2^64: (m,) int64."""
    whole = {2: torch.int16, 4: torch.int32, 8: torch.int64}[rows_mD.element_size()]
    # adding 0 makes the two zeros one
    bits_mD = (rows_mD + 0.0).contiguous().view(whole).to(torch.int64)
    odd_D = noise.bits(noise.fold(noise.ROW_MARK), torch.arange(rows_mD.shape[1], device=rows_mD.device)) | 1
    return (bits_mD * odd_D).sum(dim=1)


def largest(values_n: Tensor, count: int) -> Tensor:
    """Return the indices of the largest values, ascending; of equal values the lowest indices.

    Nothing is sorted as a whole: ``torch.topk`` gives the smallest value among them, the only part of its answer in
    use.

    Args:
        values_n: (n,) without NaN.
        count: 1 <= count <= n.

    Returns:
        (count,) int64.
    """
    last = values_n.topk(count, sorted=False).values.min()
    above_m = (values_n > last).nonzero()[:, 0]
    level_m = (values_n == last).nonzero()[: count - len(above_m), 0]
    return torch.cat([above_m, level_m]).sort().values


def best(scores: Scores, count: int) -> Scores:
    """Return the ``count`` best rows (all, if there are fewer), in position order."""
    if count >= len(scores):
        return scores
    return scores.take(order(scores)[:count].sort().values)


def keep(scores: Scores, state: object, reach: int) -> Scores:
    """Return the rows that a shard of a ranking must send: exactly its ``reach`` best.

    Args:
        scores: n rows of one shard or of several merged.
        state: Not read.
        reach: Largest number of queries that can still be asked for, >= 0.

    Returns:
        min(reach, n) rows in position order.
    """
    return best(scores, reach)


def select(scores: Scores, state: object, batch: Batch, generator: torch.Generator) -> None:
    """Offer the rows, best first.

    Args:
        scores: n rows, positions ascending.
        state: Not read.
        batch: Batch that they are offered to.
        generator: Not read.
    """
    batch.offer_all(scores.positions_n[order(scores)])
