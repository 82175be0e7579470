"""k-means with a start that belongs to the samples' positions, and the row that stands for each cluster.

Rows are in position order, the blocks have one size and every tie goes to the lowest index, so the outcome depends
on the rows and the seed alone. On CUDA the sums of a cluster are only repeatable under
``torch.use_deterministic_algorithms(True)``, which is the process's to set.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from alfamix_core.acquisition import k_means_pp, noise
from alfamix_core.acquisition.points import Euclidean, lower

Init = Literal["random", "k-means++"]

_BLOCK_ROWS = 8192
_MAX_ROUNDS = 30
_SMALLEST_GAIN = 1e-4


@dataclass(frozen=True)
class Clusters:
    """A partition of n rows into B clusters.

    Attributes:
        owner_n: (n,) int64 in [0, B): the cluster of each row.
        centres_BD: (B, D) float32: the means of the clusters; of an empty one, where it last stood.
        squares_n: (n,) float32: squared distance of each row to its centre.
        inertia: the sum of ``squares_n``, in float64.
    """

    owner_n: Tensor
    centres_BD: Tensor
    squares_n: Tensor
    inertia: float


def _random_start(rows_nD: Tensor, positions_n: Tensor, count: int, seed: int) -> Tensor:
    """Return the rows with the smallest uniform numbers, ties by position: (B, D)."""
    numbers_n = noise.uniform(noise.fold(seed, noise.KMEANS_START), positions_n)
    return rows_nD[numbers_n.sort(stable=True).indices[:count].sort().values]


def _spread_start(rows_nD: Tensor, positions_n: Tensor, count: int, seed: int) -> Tensor:
    """Return rows drawn one by one with probability proportional to the squared distance to those already drawn.

    The first is drawn uniformly. Once every row coincides with a drawn one, the rest are the lowest positions not yet
    drawn.
    """
    key, points = noise.fold(seed, noise.KMEANS_DRAW), Euclidean(rows_nD)
    first_1 = noise.gumbel(noise.fold(key, 0), positions_n).argmax(dim=0, keepdim=True)
    nearest_n = torch.full((len(rows_nD),), torch.inf, dtype=torch.float64, device=rows_nD.device)
    lower(points, nearest_n, points.take(first_1))
    drawn_m = torch.cat([first_1, k_means_pp.draw(points, nearest_n, positions_n, 1, count - 1, key)])
    left_n = torch.ones(len(rows_nD), dtype=torch.bool, device=rows_nD.device)
    left_n[drawn_m] = False
    return rows_nD[torch.cat([drawn_m, left_n.nonzero()[:, 0]])[:count]]


def _nearest_centres(rows_nD: Tensor, centres_BD: Tensor) -> Tensor:
    """Return the nearest centre of each row, ties to the lowest: (n,) int64."""
    squares_B = centres_BD.square().sum(dim=1)
    return torch.cat(
        [(squares_B - 2 * (block @ centres_BD.T)).argmin(dim=1) for block in torch.split(rows_nD, _BLOCK_ROWS)]
    )


def _squares(rows_nD: Tensor, centres_BD: Tensor, owner_n: Tensor) -> Tensor:
    """Return the squared distance of each row to its centre by differences: exactly 0 where they are equal."""
    pairs = zip(torch.split(rows_nD, _BLOCK_ROWS), torch.split(owner_n, _BLOCK_ROWS), strict=True)
    return torch.cat([(block - centres_BD[owner]).square().sum(dim=1) for block, owner in pairs])


def _refill(owner_n: Tensor, squares_n: Tensor, count: int) -> Tensor:
    """Give every empty cluster the row farthest from its centre, as long as one can be spared.

    A row can be spared that is not alone in its cluster and not at its centre. With B distinct rows there always is
    one, so then no cluster stays empty.
    """
    sizes = owner_n.bincount(minlength=count).tolist()
    empty = [cluster for cluster in range(count) if not sizes[cluster]]
    if not empty:
        return owner_n
    owners = owner_n.tolist()
    farthest_first = squares_n.sort(descending=True, stable=True)
    for row, square in zip(farthest_first.indices.tolist(), farthest_first.values.tolist(), strict=True):
        if not empty or square == 0:
            break
        if sizes[owners[row]] > 1:
            sizes[owners[row]] -= 1
            owners[row] = empty.pop(0)
    return torch.tensor(owners, device=owner_n.device)


def _means(rows_nD: Tensor, owner_n: Tensor, centres_BD: Tensor) -> Tensor:
    """Return the mean of each cluster; an empty one stays where it is."""
    counts_B = owner_n.bincount(minlength=len(centres_BD))
    sums_BD = torch.zeros_like(centres_BD).index_add_(0, owner_n, rows_nD)
    return torch.where(counts_B[:, None] > 0, sums_BD / counts_B[:, None], centres_BD)


def kmeans(rows_nD: Tensor, positions_n: Tensor, count: int, seed: int, init: Init = "random") -> Clusters:
    """Partition rows into clusters by Lloyd's rounds.

    Stops when the inertia falls by less than 1e-4 of itself, or after 30 rounds. A cluster that becomes empty
    restarts at the row farthest from its centre; none is empty at the end if ``count`` rows are distinct.

    Args:
        rows_nD: (n, D) float32, in position order.
        positions_n: (n,) int64, ascending: the random start belongs to them.
        count: number of clusters B, 1 <= B <= n.
        seed: of the start.
        init: "random" starts at the rows with the smallest random numbers; "k-means++" spreads them, at three to
            ten times the time for up to 3 % less inertia.

    Returns:
        The clusters; ties go to the lowest cluster.

    Source:
        Lloyd, "Least squares quantization in PCM", IEEE Transactions on Information Theory 28, 1982.
    """
    start = _random_start if init == "random" else _spread_start
    centres_BD = start(rows_nD, positions_n, count, seed)
    before = float("inf")
    for _ in range(_MAX_ROUNDS):
        owner_n = _nearest_centres(rows_nD, centres_BD)
        owner_n = _refill(owner_n, _squares(rows_nD, centres_BD, owner_n), count)
        centres_BD = _means(rows_nD, owner_n, centres_BD)
        squares_n = _squares(rows_nD, centres_BD, owner_n)
        inertia = float(squares_n.sum(dtype=torch.float64))
        if before - inertia < _SMALLEST_GAIN * before:
            break
        before = inertia
    return Clusters(owner_n, centres_BD, squares_n, inertia)


def representatives(clusters: Clusters) -> Tensor:
    """Return the member of each cluster that is nearest to its centre.

    Args:
        clusters: of n rows.

    Returns:
        (m,) int64 indices of rows, ascending and distinct: one for each cluster that is not empty, ties to the
        lowest row.
    """
    by_distance_n = clusters.squares_n.sort(stable=True).indices
    grouped_n = by_distance_n[clusters.owner_n[by_distance_n].sort(stable=True).indices]
    owners_n = clusters.owner_n[grouped_n]
    first_n = torch.ones_like(owners_n, dtype=torch.bool)
    first_n[1:] = owners_n[1:] != owners_n[:-1]
    return grouped_n[first_n].sort().values
