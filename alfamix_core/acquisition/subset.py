"""Choices from a part of the pool: a random subset that no shard, block or order changes, and further parts after it.

What a sample is worth to these strategies depends on the samples beside it, so there is nothing to score before
``select``: ``unscored`` passes the embeddings on.
"""

from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

from alfamix_core.acquisition import noise
from alfamix_core.acquisition.batch import Batch
from alfamix_core.acquisition.types import Features, Scores

S = TypeVar("S")


def unscored(block: Features, state: object) -> Scores:
    """Pass the embeddings on: what a sample is worth depends on the others and is only known in ``select``.

    Args:
        block: n pool samples; only positions and embeddings (n, D) are read.
        state: Not read.

    Returns:
        scores_n = 0 for every sample, with the row ``embeddings``.
    """
    assert block.embeddings_nD is not None
    zeros_n = torch.zeros(len(block), dtype=torch.float32, device=block.embeddings_nD.device)
    return Scores(block.positions_n, zeros_n, {"embeddings": block.embeddings_nD})


def whole_pool(scores: Scores, state: object, reach: int) -> Scores:
    """Return all rows: any of them may be chosen once others are."""
    return scores


def smallest(scores: Scores, noise_key: int, count: int) -> Scores:
    """Return the rows whose positions have the smallest random numbers.

    Args:
        scores: n rows of one shard or of several merged.
        noise_key: Key of the random numbers, from ``noise.fold``.
        count: Size of the subset, >= 0.

    Returns:
        min(count, n) rows in position order; taking it of parts and then of their merge gives that of the whole.
    """
    if count >= len(scores):
        return scores
    numbers_n = noise.uniform(noise_key, scores.positions_n)
    return scores.take(numbers_n.sort(stable=True).indices[:count].sort().values)


def in_turns(scores: Scores, state: S, batch: Batch, keep: Callable[[Scores, S, int], Scores]) -> Iterator[Scores]:
    """Yield what a strategy keeps of the samples that were not offered yet, until the batch is full or none is left.

    Args:
        scores: n rows, positions ascending.
        state: State of the strategy.
        batch: Batch to which the caller offers samples between two turns.
        keep: The strategy's ``keep``; its reach is the number of queries that are missing.

    Yields:
        Rows in position order: first what is kept of all rows, then of those that remain.
    """
    rest = scores
    while batch.missing and len(rest):
        yield keep(rest, state, batch.missing)
        rest = rest.take(batch.untouched(rest.positions_n).nonzero()[:, 0])
