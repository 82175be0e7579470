"""A random part of the pool that no shard, block or order changes: the smallest random numbers of the positions."""

from alfamix_core.acquisition import noise
from alfamix_core.acquisition.types import Scores


def smallest(scores: Scores, key: int, count: int) -> Scores:
    """Return the rows whose positions have the smallest random numbers.

    Args:
        scores: n rows of one shard or of several merged.
        key: of the numbers.
        count: size of the subset, >= 0.

    Returns:
        min(count, n) rows in position order; taking it of parts and then of their merge gives that of the whole.
    """
    if count >= len(scores):
        return scores
    numbers_n = noise.uniform(key, scores.positions_n)
    return scores.take(numbers_n.sort(stable=True).indices[:count].sort().values)
