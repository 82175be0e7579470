"""The draws of k-means++: rows at random, each in proportion to its distance from those drawn before, exactly.

A draw is argmax of ln m + gumbel, m a row's distance to the nearest centre, with numbers that belong to the draw and
the row's position: no sum over the rows. A new centre only ever lowers m, so for each of the next draws the winner
is among the few rows that were best at the last pass, until the best of them falls below the others' value at that
pass.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from alfamix_core.acquisition import noise, ranking
from alfamix_core.acquisition.points import P, lower

_AHEAD = 32
"""Largest number of draws between two passes."""
_CANDIDATES = 8
"""Rows that are considered for each of these draws."""


def draw(
    points: P,
    nearest_n: Tensor,
    positions_n: Tensor,
    start: int,
    count: int,
    noise_key: int,
    accept: Callable[[int], bool] = lambda row: True,
) -> Tensor:
    """Draw rows one by one with probability in proportion to the distance to the nearest centre or drawn row.

    The rows are those of a loop with one pass over the rows per draw; here a pass serves up to 32 draws. A row that is
    not accepted is neither drawn nor a centre: the draw is repeated, with its numbers, among the others.

    Args:
        points: n rows, in position order.
        nearest_n: (n,) float64, distance of each row to the nearest existing centre. Not changed.
        positions_n: (n,) int64, to which the random numbers belong.
        start: Number of the first draw; draw t has the numbers of ``fold(noise_key, t)``.
        count: Number of draws, >= 0.
        noise_key: Key of the random numbers.
        accept: Answer for each row that is drawn, asked once.

    Returns:
        (m,) int64 indices of rows, distinct, in the order of the draws; m is below ``count`` only if every row
        coincides with a centre or an earlier drawn row, or is not accepted.

    Source:
        Arthur, Vassilvitskii, "k-means++: the advantages of careful seeding", SODA 2007; the small number of passes is
        ours.
    """
    points, nearest_n = points.for_passes(), nearest_n.clone()
    drawn: list[int] = []
    while len(drawn) < count and bool((nearest_n > 0).any()):
        draws = range(start + len(drawn), start + min(count, len(drawn) + _AHEAD))
        certain, refused = _ahead(points, nearest_n, positions_n, draws, noise_key, accept)
        drawn += certain
        lower(points, nearest_n, points.take(torch.tensor(certain, dtype=torch.int64, device=nearest_n.device)))
        nearest_n[torch.tensor(certain + refused, device=nearest_n.device)] = 0.0
    return torch.tensor(drawn, dtype=torch.int64, device=nearest_n.device)


def _ahead(
    points: P, nearest_n: Tensor, positions_n: Tensor, draws: range, noise_key: int, accept: Callable[[int], bool]
) -> tuple[list[int], list[int]]:
    """Return the rows of the next draws as far as they are certain without a pass, and rows that were not accepted:
    at least one row in all.
    """  # noqa: D205
    logs_n = nearest_n.log()
    width = min(_CANDIDATES + 1, len(nearest_n))
    lists, gumbels, bounds = [], [], []
    for number in draws:
        gumbel_n = noise.gumbel(noise.fold(noise_key, number), positions_n)
        chances_n = logs_n + gumbel_n
        first_m = ranking.largest(chances_n, width)
        lists.append(first_m)
        gumbels.append(gumbel_n[first_m])
        # an upper bound of the other rows; with few rows there are no others
        bounds.append(chances_n[first_m].min() if width > _CANDIDATES else chances_n.new_tensor(-torch.inf))
    rows_u, indices = torch.unique(torch.stack(lists), return_inverse=True)
    few = points.take(rows_u)
    pairs_uu = few.distances(few)
    logs_u, few_nearest_u = logs_n[rows_u], nearest_n[rows_u]
    certain: list[int] = []
    refused: list[int] = []
    for index_m, gumbel_m, bound in zip(indices, gumbels, bounds, strict=True):
        winner_1 = None
        while winner_1 is None:
            chances_m = logs_u[index_m] + gumbel_m
            best = int(chances_m.argmax())
            value = float(chances_m[best])
            if value < float(bound) or value == -torch.inf:
                return certain, refused
            winner_1 = index_m[best : best + 1]
            if not accept(int(rows_u[winner_1])):
                refused.append(int(rows_u[winner_1]))
                few_nearest_u[winner_1], logs_u[winner_1] = 0.0, -torch.inf
                winner_1 = None
        certain.append(int(rows_u[winner_1]))
        few_nearest_u = torch.minimum(few_nearest_u, pairs_uu[:, winner_1[0]])
        few_nearest_u[winner_1] = 0.0
        logs_u = few_nearest_u.log()
    return certain, refused
