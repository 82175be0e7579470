"""The draws of k-means++: rows at random, each in proportion to its distance from those drawn before, exactly.

A draw is argmax of ln m + gumbel, m a row's distance to the nearest centre, with numbers that belong to the draw and
the row's position: no sum over the rows. A new centre only ever lowers m, so for each of the next draws the few rows
that were best at the last pass hold the winner, until the best of them falls below what the others had then.
"""

import torch
from torch import Tensor

from alfamix_core.acquisition import noise, ranking
from alfamix_core.acquisition.points import P, lower

_AHEAD = 32
"""Draws between two passes, at most."""
_CANDIDATES = 8
"""Rows that are looked at for each of these draws."""


def draw(points: P, nearest_n: Tensor, positions_n: Tensor, start: int, count: int, key: int) -> Tensor:
    """Draw rows one by one with probability in proportion to the distance to the nearest centre or drawn row.

    The rows are those of a loop with one pass over the rows a draw; here a pass serves up to 32 draws.

    Args:
        points: n rows, in position order.
        nearest_n: (n,) float64: distance of each row to the nearest centre there is already. Not changed.
        positions_n: (n,) int64: the random numbers belong to them.
        start: number of the first draw: draw t has the numbers of ``fold(key, t)``.
        count: number of draws, >= 0.
        key: of the random numbers.

    Returns:
        (m,) int64 indices of rows, distinct, in the order of the draws; m is below ``count`` only if every row
        coincides with a centre or drawn row before.

    Source:
        Arthur, Vassilvitskii, "k-means++: the advantages of careful seeding", SODA 2007; the few passes are ours.
    """
    points, nearest_n = points.for_passes(), nearest_n.clone()
    drawn: list[int] = []
    while len(drawn) < count and bool((nearest_n > 0).any()):
        certain = _ahead(
            points, nearest_n, positions_n, range(start + len(drawn), start + min(count, len(drawn) + _AHEAD)), key
        )
        drawn += certain
        rows_m = torch.tensor(certain, device=nearest_n.device)
        lower(points, nearest_n, points.take(rows_m))
        nearest_n[rows_m] = 0.0
    return torch.tensor(drawn, dtype=torch.int64, device=nearest_n.device)


def _ahead(points: P, nearest_n: Tensor, positions_n: Tensor, draws: range, key: int) -> list[int]:
    """Return the rows of the next draws, at least one, as far as they are certain without a pass."""
    logs_n = nearest_n.log()
    width = min(_CANDIDATES + 1, len(nearest_n))
    lists, gumbels, bounds = [], [], []
    for number in draws:
        gumbel_n = noise.gumbel(noise.fold(key, number), positions_n)
        chances_n = logs_n + gumbel_n
        first_m = ranking.largest(chances_n, width)
        lists.append(first_m)
        gumbels.append(gumbel_n[first_m])
        # what no other row exceeds; with few rows there is no other
        bounds.append(chances_n[first_m].min() if width > _CANDIDATES else chances_n.new_tensor(-torch.inf))
    rows_u, places = torch.unique(torch.stack(lists), return_inverse=True)
    few = points.take(rows_u)
    pairs_uu = few.distances(few)
    logs_u, few_nearest_u = logs_n[rows_u], nearest_n[rows_u]
    certain: list[int] = []
    for place_m, gumbel_m, bound in zip(places, gumbels, bounds, strict=True):
        chances_m = logs_u[place_m] + gumbel_m
        best = int(chances_m.argmax())
        value = float(chances_m[best])
        if value < float(bound) or value == -torch.inf:
            break
        winner_1 = place_m[best : best + 1]
        certain.append(int(rows_u[winner_1]))
        few_nearest_u = torch.minimum(few_nearest_u, pairs_uu[:, winner_1[0]])
        few_nearest_u[winner_1] = 0.0
        logs_u = few_nearest_u.log()
    return certain
