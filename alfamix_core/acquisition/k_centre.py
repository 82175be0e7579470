"""k-centre: always the row farthest from all centres so far, exactly, in a few passes over the rows.

A new centre only ever lowers a row's distance to the nearest centre, so distances that are out of date are upper
bounds: among the rows that were the farthest at the last pass, picks are right until the best of them ranks below
the best of the others.
"""

import torch
from torch import Tensor

from alfamix_core.acquisition import noise, ranking
from alfamix_core.acquisition.points import P, lower

_CANDIDATES = 64


def farthest_first(points: P, nearest_n: Tensor, positions_n: Tensor, count: int, seed: int) -> Tensor:
    """Pick rows one by one, each the farthest from the centres and from the rows picked before it.

    The picks are those of a loop with one pass over the rows a pick; here 300 picks take 5 to 10 passes. Memory: two
    numbers a row, one block of rows and the picks of one pass.

    Args:
        points: n rows, in position order.
        nearest_n: (n,) float64: distance of each row to the nearest centre there is already; all inf if there is
            none. Then the first pick is the row with the smallest random number. Not changed.
        positions_n: (n,) int64, ascending.
        count: number of picks, 0 <= count <= n.
        seed: of the first pick.

    Returns:
        (count,) int64 indices of rows, in the order of the picks; ties go to the lowest row.

    Source:
        Gonzalez, "Clustering to minimize the maximum intercluster distance", Theoretical Computer Science 38, 1985;
        the few passes are ours, see docs.
    """
    nearest_n = nearest_n.clone()
    picks: list[int] = []

    def place(rows: list[int]) -> None:
        rows_m = torch.tensor(rows, device=nearest_n.device)
        lower(points, nearest_n, points.take(rows_m))
        picks.extend(rows)
        # a row that is taken ranks below one at distance 0
        nearest_n[torch.tensor(picks, device=nearest_n.device)] = -1.0

    if count and bool(nearest_n.isinf().all()):
        numbers_n = noise.uniform(noise.fold(seed, noise.K_CENTRE_START), positions_n)
        place([int(numbers_n.argmin())])
    while len(picks) < count:
        place(_ahead(points, nearest_n, count - len(picks)))
    return torch.tensor(picks, dtype=torch.int64, device=nearest_n.device)


def _ahead(points: P, nearest_n: Tensor, count: int) -> list[int]:
    """Return the next picks, at least one and at most ``count``, as far as they are certain without a pass."""
    first_m = ranking.largest(nearest_n, min(_CANDIDATES + 1, len(nearest_n)))
    values_m = nearest_n[first_m]
    limit, limit_row = -1.0, len(nearest_n)
    if len(first_m) > _CANDIDATES:
        # the last of them is the best of all others
        last = len(values_m) - 1 - int(values_m.flip(0).argmin())
        limit, limit_row = float(values_m[last]), int(first_m[last])
        stays_m = torch.arange(len(first_m), device=first_m.device) != last
        first_m, values_m = first_m[stays_m], values_m[stays_m]
    candidates = points.take(first_m)
    distances_mm, values_m, rows = candidates.distances(candidates).cpu(), values_m.cpu(), first_m.tolist()
    picks: list[int] = []
    while len(picks) < count:
        best = int(values_m.argmax())
        value = float(values_m[best])
        if value < limit or (value == limit and rows[best] > limit_row) or value < 0:
            break
        picks.append(rows[best])
        values_m = torch.minimum(values_m, distances_mm[best])
        values_m[best] = -1.0
    return picks
