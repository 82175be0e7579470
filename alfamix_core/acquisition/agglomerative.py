"""Average-linkage clustering of a few thousand rows, exact, by the nearest-neighbour chain."""

import torch
from torch import Tensor

_BLOCK_ROWS = 1024
_EQUAL = 1e-12
"""Squared distances below this share of their terms are rounding of 0 in float64."""


def distances(rows_nD: Tensor) -> Tensor:
    """Return the Euclidean distances of all pairs, the only matrix of n² numbers: n must be bounded.

    Args:
        rows_nD: (n, D), any floating dtype.

    Returns:
        (n, n) float64, symmetric to the bit; 0 for equal rows, inf on the diagonal.
    """
    rows_nD = rows_nD.to(torch.float64)
    rows_nD = rows_nD - rows_nD.mean(dim=0)
    squares_n = rows_nD.square().sum(dim=1)
    n = len(rows_nD)
    pairs_nn = rows_nD.new_empty((n, n))
    for start in range(0, n, _BLOCK_ROWS):
        stop = min(start + _BLOCK_ROWS, n)
        sums_mx = squares_n[start:stop, None] + squares_n[start:]
        block_mx = torch.addmm(sums_mx, rows_nD[start:stop], rows_nD[start:].T, alpha=-2)
        block_mx.masked_fill_(block_mx <= _EQUAL * sums_mx, 0.0).sqrt_()
        corner_mm = block_mx[:, : stop - start].triu(diagonal=1)
        block_mx[:, : stop - start] = corner_mm + corner_mm.T
        pairs_nn[start:stop, start:] = block_mx
        pairs_nn[start:, start:stop] = block_mx.T
    return pairs_nn.fill_diagonal_(torch.inf)


def average_linkage(pairs_nn: Tensor) -> tuple[Tensor, Tensor]:
    """Merge the two nearest clusters again and again; the distance of two clusters is the mean over their pairs.

    Follows nearest neighbours until two clusters are each other's nearest, and merges these: for the mean, the same
    tree as the search for the nearest pair of all, in O(n²) in place of O(n³).

    Args:
        pairs_nn: (n, n) float64 distances, symmetric, inf on the diagonal; used up as working memory.

    Returns:
        The merges as pairs of rows, one row from each of the two clusters, (n - 1, 2) int64, and their distances
        (n - 1,), ascending. The first n - c of them leave c clusters. Ties go to the lowest rows.

    Source:
        Murtagh, "A survey of recent advances in hierarchical clustering algorithms", The Computer Journal 26, 1983.
    """
    n = len(pairs_nn)
    gone_n = torch.zeros(n, dtype=torch.float64, device=pairs_nn.device)
    sizes = [1] * n
    merges: list[tuple[int, int]] = []
    heights: list[float] = []
    chain: list[int] = []
    first = 0
    while len(merges) < n - 1:
        if not chain:
            while not sizes[first]:
                first += 1
            chain.append(first)
        last = chain[-1]
        nearest_n = pairs_nn[last] + gone_n
        best = int(nearest_n.argmin())
        height = float(nearest_n[best])
        # if the previous cluster is as near as any, the two are each other's nearest: without this a tie might cycle
        if len(chain) < 2 or float(nearest_n[chain[-2]]) != height:
            chain.append(best)
            continue
        before = chain[-2]
        del chain[-2:]
        merges.append((min(before, last), max(before, last)))
        heights.append(height)
        stays, goes = merges[-1]
        # sums, not differences: the distances of merged clusters are inf
        merged_n = (sizes[stays] * pairs_nn[stays] + sizes[goes] * pairs_nn[goes]) / (sizes[stays] + sizes[goes])
        merged_n[stays] = torch.inf
        pairs_nn[stays] = merged_n
        pairs_nn[:, stays] = merged_n
        gone_n[goes] = torch.inf
        sizes[stays] += sizes[goes]
        sizes[goes] = 0
    heights_m = torch.tensor(heights, dtype=torch.float64).sort(stable=True)
    return torch.tensor(merges, dtype=torch.int64).reshape(-1, 2)[heights_m.indices], heights_m.values


def cut(merges_m2: Tensor, rows: int, count: int) -> Tensor:
    """Return the clusters that the nearest merges leave.

    Args:
        merges_m2: (n - 1, 2) int64, the merges that ``average_linkage`` returns.
        rows: n.
        count: Number of clusters, 1 <= count <= n.

    Returns:
        (n,) int64: the cluster of each row. Clusters are numbered 0, 1, … in the order of their lowest rows.
    """
    parents = list(range(rows))

    def root(row: int) -> int:
        while parents[row] != row:
            parents[row] = parents[parents[row]]
            row = parents[row]
        return row

    for one, other in merges_m2[: rows - count].tolist():
        low, high = sorted((root(one), root(other)))
        parents[high] = low
    lowest_n = torch.tensor([root(row) for row in range(rows)], dtype=torch.int64)
    owner_n: Tensor = torch.unique(lowest_n, return_inverse=True)[1]
    return owner_n


def clusters(rows_nD: Tensor, count: int) -> Tensor:
    """Return the average-linkage clusters of rows.

    Args:
        rows_nD: (n, D), n >= 1; memory is 8 n² bytes.
        count: Number of clusters, 1 <= count <= n.

    Returns:
        (n,) int64 on the device of the rows, in [0, count): numbered in the order of their lowest rows.
    """
    merges_m2, _ = average_linkage(distances(rows_nD))
    return cut(merges_m2, len(rows_nD), count).to(rows_nD.device)
