"""k-centre: always the row farthest from all centres so far, exactly, in a few passes over the rows.

A new centre can only lower a row's distance to the nearest centre, so an outdated distance is an upper bound, and so
is the result of a pass with cheap arithmetic. Exact distances are computed for the rows with the largest bounds alone:
picks among these are right until the best of them ranks below the bounds of the other rows.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from alfamix_core.acquisition import noise, ranking
from alfamix_core.acquisition.points import P, lower_bounds

_CANDIDATES = 256
"""Rows whose distances are computed after a pass."""


def farthest_first(
    points: P,
    nearest_n: Tensor,
    positions_n: Tensor,
    count: int,
    seed: int,
    accept: Callable[[int], bool] = lambda row: True,
) -> Tensor:
    """Pick rows one by one, each the farthest from the centres and from the rows picked before it.

    A row that is not accepted is no pick and no centre: the picks are those of the rows without it.

    The picks are those of a loop with one pass over the rows per pick; here 300 picks take 3 to 5 passes. Memory: a few
    numbers per row, one block of rows and the picks.

    Args:
        points: n rows, in position order.
        nearest_n: (n,) float64, distance of each row to the nearest existing centre; all inf if there is none, and then
            the first pick is the row with the smallest random number. Not changed.
        positions_n: (n,) int64, ascending.
        count: Number of picks, 0 <= count <= n.
        seed: Seed of the first pick.
        accept: Answer for each row that is to be picked, asked once, in the order of the picks.

    Returns:
        (count,) int64 indices of rows, in the order of the picks; ties go to the lowest row. Fewer if too few are
        accepted.

    Source:
        Gonzalez, "Clustering to minimize the maximum intercluster distance", Theoretical Computer Science 38, 1985;
        the small number of passes is ours, see the top of this file.
    """
    points, bounds_n = points.for_passes(), nearest_n.clone()
    picks: list[int] = []
    refused: list[int] = []

    def add(rows: list[int]) -> None:
        picks.extend(rows)
        if rows and len(picks) < count:
            lower_bounds(points, bounds_n, points.take(torch.tensor(rows, device=bounds_n.device)))
        # a row that is out of the choice ranks below one at distance 0
        bounds_n[torch.tensor(picks + refused, dtype=torch.int64, device=bounds_n.device)] = -1.0

    if count and bool(nearest_n.isinf().all()):
        add(_first(noise.uniform(noise.fold(seed, noise.K_CENTRE_START), positions_n), accept, refused))
    width = _CANDIDATES
    while len(picks) < count:
        rows_m, limit, limit_row = _leaders(bounds_n, width)
        if not len(rows_m):
            break
        picked_m = torch.tensor(picks, dtype=torch.int64, device=rows_m.device)
        candidates = points.take(rows_m)
        bounds_n[rows_m] = candidates.nearest(points.take(picked_m), nearest_n[rows_m])
        refused_before = len(refused)
        certain = _ahead(candidates, rows_m, bounds_n[rows_m], limit, limit_row, count - len(picks), accept, refused)
        settled = bool(certain) or len(refused) > refused_before
        if settled:
            add(certain)
        # without a decision some more bounds are now distances, so the best row of all is among them in the end
        width = _CANDIDATES if settled else 2 * width
    return torch.tensor(picks, dtype=torch.int64, device=nearest_n.device)


def _first(numbers_n: Tensor, accept: Callable[[int], bool], refused: list[int]) -> list[int]:
    """Return the row with the smallest number that is accepted, none if no row is; ``refused`` receives the others."""
    while len(refused) < len(numbers_n):
        row = int(numbers_n.argmin())
        if accept(row):
            return [row]
        refused.append(row)
        numbers_n[row] = torch.inf
    return []


def _leaders(bounds_n: Tensor, width: int) -> tuple[Tensor, float, int]:
    """Return the rows with the largest bounds, and how far any other row may lie.

    Args:
        bounds_n: (n,) float64, upper bounds of the rows' distances; below 0 for a row that is out of the choice.
        width: Largest number of rows.

    Returns:
        The rows (m,) int64, ascending; the largest bound of all others, -1 if there are none; the lowest of the others
        with that bound.
    """
    rows_m = ranking.largest(bounds_n, min(width + 1, len(bounds_n)))
    limit, limit_row = -1.0, len(bounds_n)
    if len(rows_m) > width:
        # the last of them is the best of all others
        last = len(rows_m) - 1 - int(bounds_n[rows_m].flip(0).argmin())
        limit, limit_row = float(bounds_n[rows_m[last]]), int(rows_m[last])
        rows_m = torch.cat([rows_m[:last], rows_m[last + 1 :]])
    return rows_m[bounds_n[rows_m] >= 0], limit, limit_row


def _ahead(
    candidates: P,
    rows_m: Tensor,
    nearest_m: Tensor,
    limit: float,
    limit_row: int,
    count: int,
    accept: Callable[[int], bool],
    refused: list[int],
) -> list[int]:
    """Return the next picks, at most ``count``, as far as they are certain without a pass.

    Args:
        candidates: m rows.
        rows_m: (m,) int64, ascending, indices of the candidates.
        nearest_m: (m,) float64, their distances to the nearest centre.
        limit: Upper bound of the other rows' distances.
        limit_row: Lowest of the other rows at the limit.
        count: Largest number of picks, >= 1.
        accept: Answer for each row that is to be picked.
        refused: Rows that were not accepted; more are appended.

    Returns:
        Rows in the order of the picks.
    """
    rows = rows_m.tolist()
    picks: list[int] = []
    while len(picks) < count:
        best = int(nearest_m.argmax())
        value = float(nearest_m[best])
        if value < max(limit, 0.0) or (value == limit and rows[best] > limit_row):
            break
        if not accept(rows[best]):
            refused.append(rows[best])
            nearest_m[best] = -1.0
            continue
        picks.append(rows[best])
        nearest_m = torch.minimum(nearest_m, candidates.distances(candidates.take(slice(best, best + 1)))[:, 0])
        nearest_m[best] = -1.0
    return picks
