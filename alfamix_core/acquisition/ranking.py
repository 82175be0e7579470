"""The order of every choice: score descending, position ascending; and the keep and select of a plain ranking."""

import torch
from torch import Tensor

from alfamix_core.acquisition.batch import Batch
from alfamix_core.acquisition.types import Scores


def order(scores: Scores) -> Tensor:
    """Return the indices of the rows from best to worst.

    ``torch.topk`` promises nothing about ties, so this sorts, and stably: rows are in position order.

    Args:
        scores: n rows, positions ascending.

    Returns:
        (n,) int64 indices (not positions): score descending, ties by position ascending.
    """
    return torch.sort(scores.scores_n, descending=True, stable=True).indices


def largest(values_n: Tensor, count: int) -> Tensor:
    """Return the indices of the largest values, ascending; of equal values the lowest indices.

    Without a sort of all: ``torch.topk`` gives the smallest value that belongs to them, and nothing else of it is used.

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
    """Return what a shard of a ranking must send: its ``reach`` best rows, exactly.

    Args:
        scores: n rows of one shard or of several merged.
        state: not read.
        reach: the greatest number of queries that can still be asked for, >= 0.

    Returns:
        min(reach, n) rows in position order.
    """
    return best(scores, reach)


def select(scores: Scores, state: object, batch: Batch, generator: torch.Generator) -> None:
    """Offer the rows, best first.

    Args:
        scores: n rows, positions ascending.
        state: not read.
        batch: what they are offered to.
        generator: not read.
    """
    batch.offer_all(scores.positions_n[order(scores)])
