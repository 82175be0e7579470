"""The choice of a round's queries, the same for every strategy and every rule."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from alfamix_core.acquisition import scoring
from alfamix_core.acquisition.batch import Batch
from alfamix_core.acquisition.constraints import Constraint
from alfamix_core.acquisition.strategy import Strategy
from alfamix_core.acquisition.types import Query, Scores
from alfamix_core.errors import InputError

_REACH_IF_SPARSE = 20


@dataclass(frozen=True)
class Choice:
    """A batch of queries.

    Attributes:
        queries: Distinct positions, best first, ranks 0, 1, ….
        short_by: Number of queries of the budget that are missing.
        reason: Reason why they are missing, in one line; empty if none is.
    """

    queries: list[Query]
    short_by: int
    reason: str


def reach(budget: int, *, sparse: bool = False) -> int:
    """Return the number of queries that a shard must be ready for.

    Args:
        budget: Queries of the round.
        sparse: Whether a constraint may refuse many of the best: a distance, or a limit by group.

    Returns:
        ``budget``, or 20 times the budget.
    """
    return budget * (_REACH_IF_SPARSE if sparse else 1)


def choose(
    strategy: Strategy,
    scores: Scores,
    state: Any,
    budget: int,
    generator: torch.Generator,
    *,
    reach: int | None = None,
    constraints: Sequence[Constraint] = (),
) -> Choice:
    """Choose the queries of a round: exactly ``budget`` distinct samples, fewer only if the rules allow no more.

    Samples that a constraint refuses in any case are removed first: the batch is that of the pool without them. Then
    the strategy offers one sample after another, and each joins the batch if all constraints accept it. A refused
    sample is refused permanently; the strategy learns that immediately and continues without it.

    Args:
        strategy: Strategy that scored.
        scores: Merge of the rows that all shards sent.
        state: State of the strategy.
        budget: Number of queries, >= 0.
        generator: Source of all randomness of the choice.
        reach: Reach with which the shards were scored; None for the budget.
        constraints: Constraints that no sample joined yet. Their indices are rows of ``scores``.

    Returns:
        The batch, and the number of missing queries with the reason.

    Raises:
        InputError: The budget is negative.
    """
    if budget < 0:
        raise InputError(f"budget must be 0 or more, not {budget}")
    allowed_n = torch.ones(len(scores), dtype=torch.bool, device=scores.positions_n.device)
    refused: Counter[str] = Counter()
    for rule in constraints:
        barred_n = rule.barred()
        if barred_n is not None:
            before = int(allowed_n.sum())
            allowed_n &= ~barred_n.to(allowed_n.device)
            refused[rule.words] += before - int(allowed_n.sum())
    left = scores if bool(allowed_n.all()) else scores.take(allowed_n.nonzero()[:, 0])
    # the cut that a single shard with the whole pool makes, so the number of shards does not matter
    left = scoring.keep(strategy, left, state, budget if reach is None else reach)
    indices_n = None if left is scores else torch.searchsorted(scores.positions_n, left.positions_n)
    batch = Batch(budget, left.positions_n, constraints, indices_n)
    strategy.fill(batch, left, state, generator)
    refused.update(batch.refusals())
    taken_m = torch.tensor(batch.taken, dtype=torch.int64, device=left.positions_n.device)
    values = left.scores_n[torch.searchsorted(left.positions_n, taken_m)].tolist()
    queries = [Query(rank, *pair) for rank, pair in enumerate(zip(batch.taken, values, strict=True))]
    short_by = budget - len(queries)
    if not short_by:
        return Choice(queries, 0, "")
    reasons = [f"the budget is {budget}, available samples: {len(scores)}"]
    reasons += [f"refused ({words}): {count}" for words, count in refused.items() if count]
    return Choice(queries, short_by, "; ".join(reasons))
