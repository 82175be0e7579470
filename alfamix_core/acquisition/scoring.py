"""The work of one shard: score it block by block and keep only the rows that the choice can need."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from alfamix_core.acquisition.rows import Column, Rows
from alfamix_core.acquisition.strategy import Strategy
from alfamix_core.acquisition.types import Features, Scores

PREDICTED = "predicted"
"""The row that holds each sample's predicted class; where it is present, rows are kept class by class."""

_LEAST_ROWS = 65_536


def keep(strategy: Strategy, scores: Scores, state: Any, reach: int) -> Scores:
    """Return the rows that are needed to choose up to ``reach`` queries, per predicted class if the scores carry it.

    Args:
        strategy: Strategy that scored.
        scores: n rows of one shard or of several merged.
        state: State of the strategy.
        reach: Number of queries that can be asked for, the result of ``policy.reach``.

    Returns:
        Rows in position order. Keeping the parts of a pool and then their merge gives the same as keeping the pool.
    """
    if PREDICTED not in scores.rows or not len(scores):
        return strategy.keep(scores, state, reach)
    predicted_n = scores.column(PREDICTED)
    classes = [scores.take((predicted_n == k).nonzero()[:, 0]) for k in torch.unique(predicted_n)]
    return Scores.merge([strategy.keep(part, state, reach) for part in classes])


def score_shard(
    strategy: Strategy,
    blocks: Iterable[Features],
    state: Any,
    reach: int,
    *,
    each_class: bool = False,
    embeddings: bool = False,
) -> Scores:
    """Score the blocks of one shard; memory holds about twice the rows that are kept, and one block.

    A block's own wide columns are not copied: rows of mapped files stay in the files.

    Args:
        strategy: Strategy that scores.
        blocks: One or more blocks of any sizes and in any order, no position twice; 0 rows are fine.
        state: Result of ``strategy.prepare``.
        reach: Number of queries that can be asked for, the result of ``policy.reach``.
        each_class: Whether the best of each predicted class are kept, for targets per class; needs the logits.
        embeddings: Whether the scores carry the embeddings even if the strategy does not read them, for a distance
            between queries; needs the embeddings.

    Returns:
        The rows that the shard must send, in position order: the same for any cut into blocks.

    Raises:
        InputError: A value is not finite, or a column is missing.
        ValueError: There is no block.
    """
    kept: list[Scores] = []
    rows, limit = 0, _LEAST_ROWS
    for block in blocks:
        scored = strategy.score(block, state)
        if each_class:
            if block.logits_nK is None:
                raise ValueError("to keep the best of each class, blocks must hold logits")
            predicted_n = block.logits_nK.argmax(dim=1)
            scored = Scores(scored.positions_n, scored.scores_n, {**scored.rows, PREDICTED: predicted_n})
        if embeddings and "embeddings" not in scored.rows:
            if block.embeddings_nD is None:
                raise ValueError("to carry the embeddings, blocks must hold them")
            scored = Scores(scored.positions_n, scored.scores_n, {**scored.rows, "embeddings": block.embeddings_nD})
        kept.append(Scores(scored.positions_n, scored.scores_n, _unread(scored.rows, block)))
        rows += len(scored)
        if rows > limit:
            kept = [_settled(keep(strategy, Scores.merge(kept), state, reach))]
            rows = len(kept[0])
            limit = max(_LEAST_ROWS, 2 * rows)
    return _settled(keep(strategy, Scores.merge(kept), state, reach))


def _settled(scores: Scores) -> Scores:
    """Return the scores with partly kept rows read into memory, so that their blocks can be freed."""
    return Scores(
        scores.positions_n,
        scores.scores_n,
        {
            name: column[:] if isinstance(column, Rows) and len(column) < sum(map(len, column.parts)) else column
            for name, column in scores.rows.items()
        },
    )


def _unread(rows: Mapping[str, Column], block: Features) -> dict[str, Column]:
    """Return the rows, with the block's own columns as parts that are never concatenated."""
    own = {id(column) for column in vars(block).values() if isinstance(column, Tensor) and column.dim() > 1}
    return {name: Rows((row,)) if isinstance(row, Tensor) and id(row) in own else row for name, row in rows.items()}
