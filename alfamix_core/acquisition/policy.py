"""From a strategy's order to a batch of queries: the one way, whatever the strategy."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from alfamix_core.acquisition import scoring
from alfamix_core.acquisition.constraints import Constraint
from alfamix_core.acquisition.strategy import Strategy
from alfamix_core.acquisition.types import Query, Scores
from alfamix_core.errors import InputError

_REACH_IF_SPARSE = 20


@dataclass(frozen=True)
class Choice:
    """A batch of queries.

    Attributes:
        queries: distinct positions, best first, ranks 0, 1, ….
        short_by: how many of the budget are missing.
        reason: why, in one line; empty if none is missing.
    """

    queries: list[Query]
    short_by: int
    reason: str


def reach(budget: int, *, sparse: bool = False) -> int:
    """Return how many queries a shard must be ready for.

    Args:
        budget: queries of the round.
        sparse: whether a constraint may refuse many of the best: a distance, or a limit by group.

    Returns:
        ``budget``, or 20 times as many.
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
    groups_n: Tensor | None = None,
    excluded_groups: Collection[int] = (),
) -> Choice:
    """Choose the queries of a round: exactly ``budget`` distinct samples, fewer only where no more may be asked.

    Excluded groups leave first. Then the strategy is asked for what is missing among the rows left, its answers are
    taken in order as far as the constraints accept them, the others are dropped, until the batch is full or no row
    is left.

    Args:
        strategy: the strategy that scored.
        scores: the merge of what all shards sent.
        state: the strategy's.
        budget: number of queries, >= 0.
        generator: all randomness of the choice.
        reach: what the shards were scored with; the budget if left out.
        constraints: fresh ones: they remember the batch. Their indices are rows of ``scores``.
        groups_n: (n,) int64, the group of each row of ``scores``; needed to exclude groups.
        excluded_groups: groups never asked. Leave them out before scoring too, or they use up the shards' reach.

    Returns:
        The batch, and what is missing.

    Raises:
        InputError: the budget is negative.
    """
    if budget < 0:
        raise InputError(f"budget must be 0 or more, not {budget}")
    allowed = scores
    if excluded_groups:
        assert groups_n is not None, "groups are excluded, but the rows' groups are not given"
        excluded = torch.tensor(sorted(excluded_groups), device=groups_n.device)
        allowed = scores.take((~torch.isin(groups_n, excluded)).nonzero()[:, 0])
    # the cut that one shard with the whole pool would have made: how many shards there were cannot show
    left = scoring.keep(strategy, allowed, state, budget if reach is None else reach)
    queries: list[Query] = []
    refused: Counter[str] = Counter()
    while len(queries) < budget and len(left):
        asked_m = strategy.select(left, state, budget - len(queries), generator)
        rows_m = torch.searchsorted(left.positions_n, asked_m)
        indices_m = torch.searchsorted(scores.positions_n, asked_m)
        for position, row, index in zip(asked_m.tolist(), rows_m.tolist(), indices_m.tolist(), strict=True):
            broken = next((rule.words for rule in constraints if not rule.accepts(index)), None)
            if broken is not None:
                refused[broken] += 1
                continue
            for rule in constraints:
                rule.take(index)
            queries.append(Query(len(queries), position, float(left.scores_n[row])))
        stays_n = torch.ones(len(left), dtype=torch.bool, device=rows_m.device)
        stays_n[rows_m] = False
        assert int(stays_n.sum()) == len(left) - len(rows_m) < len(left), "select must return distinct positions"
        if len(queries) < budget:
            left = left.take(stays_n.nonzero()[:, 0])
    short_by = budget - len(queries)
    if not short_by:
        return Choice(queries, 0, "")
    reasons = [f"the budget is {budget}, samples at hand: {len(allowed)}"]
    if len(allowed) < len(scores):
        reasons.append(f"in excluded groups: {len(scores) - len(allowed)}")
    reasons += [f"refused ({words}): {count}" for words, count in refused.items()]
    return Choice(queries, short_by, "; ".join(reasons))
