"""k-means with a start that belongs to the samples' positions, and the members of each cluster in order.

Rows are in position order, the blocks have one size and every tie goes to the lowest index, so the outcome depends
on the rows and the seed alone. On CUDA the sums of a cluster are only repeatable under
``torch.use_deterministic_algorithms(True)``, a setting of the process.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from alfamix_core.acquisition import noise
from alfamix_core.acquisition.k_means_start import greedy_start, trials
from alfamix_core.acquisition.precision import true_float32
from alfamix_core.acquisition.relocation import relocations
from alfamix_core.acquisition.sketch import sketch
from alfamix_core.acquisition.tunable_types import Effort

_BLOCK_NUMBERS = 1 << 20
"""Approximate number of distances in a block: 4 MiB, which the allocator reuses, as it may not larger blocks."""
_PIECE_ROWS = 1024
"""Rows in a block of elementwise arithmetic, for the same reason."""
_SAME_DISTANCE = 1e-6
_SKETCH_WIDTH = 64
_SAMPLE_PER_CLUSTER = 10
_SMALLEST_SAMPLE = 2048
_RESTARTS = 8
_STARTS = 10


@dataclass(frozen=True)
class Clusters:
    """A partition of n rows into B clusters.

    Attributes:
        owner_n: (n,) int64 in [0, B): the cluster of each row.
        centres_BD: (B, D) float32: the means of the clusters; the last position of an empty one.
        squares_n: (n,) float32: squared distance of each row to its centre.
        inertia: Sum of ``squares_n``, in float64.
    """

    owner_n: Tensor
    centres_BD: Tensor
    squares_n: Tensor
    inertia: float


@dataclass(frozen=True)
class _Search:
    """The limits of the search for a better partition.

    Attributes:
        rounds: Largest number of Lloyd's rounds.
        smallest_gain: Share of the inertia that a round must save for another to follow.
        moves: Largest number of times that centres are moved out of a local minimum.
        smallest_move: Share of the inertia that a move must save for another to follow.
    """

    rounds: int
    smallest_gain: float
    moves: int = 0
    smallest_move: float = 0.0


_FAST = _Search(rounds=30, smallest_gain=1e-4, moves=3, smallest_move=1e-2)
_AFTER_SKETCH = _Search(rounds=5, smallest_gain=1e-3)
_EACH_START = _Search(rounds=300, smallest_gain=1e-4)
_BEST = _Search(rounds=300, smallest_gain=0.0, moves=300)
_ROUNDS_AFTER_MOVE = 3


class _Rows:
    """Rows, and what every round computes from them. Distances are about the mean, so an offset costs no digits."""

    def __init__(self, rows_nD: Tensor, positions_n: Tensor, count: int) -> None:
        self.rows_nD = rows_nD
        self.positions_n = positions_n
        self._block = min(max(_BLOCK_NUMBERS // count, 256), 8192)
        self._mean_D = rows_nD.mean(dim=0)
        pieces = torch.split(rows_nD, _PIECE_ROWS)
        self._squares_n = torch.cat([(piece - self._mean_D).square().sum(dim=1) for piece in pieces])

    def _nearness(self, centres_BD: Tensor) -> Iterator[Tensor]:
        """Yield (‖x‖² - distance²) / 2 of blocks of rows to all centres, x a row about the mean."""
        about_BD = centres_BD - self._mean_D
        offset_B = about_BD.square().sum(dim=1) / 2 + about_BD @ self._mean_D
        return ((block @ about_BD.T).sub_(offset_B) for block in torch.split(self.rows_nD, self._block))

    def nearest(self, centres_BD: Tensor) -> tuple[Tensor, float]:
        """Return the nearest centre of each row, ties to the lowest, and the inertia: (n,) int64, float."""
        nearest = [nearness.max(dim=1) for nearness in self._nearness(centres_BD)]
        nearness_n = torch.cat([best.values for best in nearest])
        inertia = float((self._squares_n - 2 * nearness_n).sum(dtype=torch.float64))
        return torch.cat([best.indices for best in nearest]), max(inertia, 0.0)

    def two_nearest(self, centres_BD: Tensor) -> tuple[Tensor, Tensor]:
        """Return the two nearest centres of each row, ties to the lowest, and the squared distances: (n, 2) each."""
        owners, nearness = [], []
        for block in self._nearness(centres_BD):
            first = block.max(dim=1)
            second = block.scatter_(1, first.indices[:, None], -torch.inf).max(dim=1)
            owners.append(torch.stack([first.indices, second.indices], dim=1))
            nearness.append(torch.stack([first.values, second.values], dim=1))
        return torch.cat(owners), (self._squares_n[:, None] - 2 * torch.cat(nearness)).clamp(min=0)

    def distances(self, centres_BD: Tensor, owner_n: Tensor) -> Tensor:
        """Return the squared distance of each row to its centre by differences: exactly 0 where they are equal."""
        pairs = zip(torch.split(self.rows_nD, _PIECE_ROWS), torch.split(owner_n, _PIECE_ROWS), strict=True)
        return torch.cat([(piece - centres_BD[owner]).square().sum(dim=1) for piece, owner in pairs])

    def means(self, owner_n: Tensor, centres_BD: Tensor) -> Tensor:
        """Return the mean of each cluster; an empty cluster keeps its centre."""
        counts_B = owner_n.bincount(minlength=len(centres_BD))
        sums_BD = torch.zeros_like(centres_BD).index_add_(0, owner_n, self.rows_nD)
        return torch.where(counts_B[:, None] > 0, sums_BD / counts_B[:, None].clamp(min=1), centres_BD)


def _refill(owner_n: Tensor, squares_n: Tensor, count: int) -> Tensor:
    """Give every empty cluster the row farthest from its centre, as long as a row can be spared.

    A row can be spared if it is neither alone in its cluster nor at its centre. With B distinct rows there is always
    such a row, so no cluster stays empty.
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


def _lloyd(rows: _Rows, centres_BD: Tensor, rounds: int, smallest_gain: float) -> tuple[Tensor, Tensor, float]:
    """Return owners, their means, and the inertia about the centres before the last means were taken."""
    before, inertia = float("inf"), float("inf")
    owner_n = torch.empty(0)
    for _ in range(rounds):
        owner_n, inertia = rows.nearest(centres_BD)
        if bool((owner_n.bincount(minlength=len(centres_BD)) == 0).any()):
            owner_n = _refill(owner_n, rows.distances(centres_BD, owner_n), len(centres_BD))
        centres_BD = rows.means(owner_n, centres_BD)
        if before - inertia <= smallest_gain * before:
            break
        before = inertia
    return owner_n, centres_BD, inertia


def _improve(rows: _Rows, centres_BD: Tensor, search: _Search, seed: int) -> tuple[Tensor, Tensor, float]:
    """Return owners, their means and the inertia, from a start, by Lloyd's rounds and moves between them."""
    moves = search.moves if len(centres_BD) > 1 else 0
    if moves:
        _, centres_BD, inertia = _lloyd(rows, centres_BD, _ROUNDS_AFTER_MOVE, 0.0)
    for number in range(moves):
        nearest_n2, squares_n2 = rows.two_nearest(centres_BD)
        gumbel_n = noise.gumbel(noise.fold(seed, noise.KMEANS_SPLIT, number), rows.positions_n)
        pairs = relocations(rows.rows_nD, len(centres_BD), nearest_n2, squares_n2, gumbel_n)
        if not pairs:
            break
        moved_BD = centres_BD.clone()
        moved_BD[[centre for centre, _ in pairs]] = rows.rows_nD[[row for _, row in pairs]]
        _, moved_BD, after = _lloyd(rows, moved_BD, _ROUNDS_AFTER_MOVE, 0.0)
        enough = inertia - after > search.smallest_move * inertia
        if after < inertia:
            centres_BD, inertia = moved_BD, after
        if not enough:
            break
    return _lloyd(rows, centres_BD, search.rounds, search.smallest_gain)


def _start(rows_nD: Tensor, sample_m: Tensor, count: int, seed: int) -> Tensor:
    """Return rows of the sample, spread out: (B, D)."""
    few_mD = rows_nD[sample_m]
    T = trials(count)
    draws = torch.arange(count * T, device=rows_nD.device)
    uniform_BT = noise.uniform(noise.fold(seed, noise.KMEANS_DRAW), draws).view(count, T)
    return few_mD[greedy_start(few_mD - few_mD.mean(dim=0), count, uniform_BT)]


def _order(rows: _Rows, seed: int) -> Tensor:
    """Return the rows in random order: (n,) int64 indices."""
    numbers_n = noise.uniform(noise.fold(seed, noise.KMEANS_SAMPLE), rows.positions_n)
    return numbers_n.sort(stable=True).indices


def _search_directly(rows: _Rows, count: int, seed: int) -> tuple[Tensor, Tensor, float]:
    """Return owners, their means and the inertia, from a start among some rows."""
    sample_m = _order(rows, seed)[: max(_SAMPLE_PER_CLUSTER * count, _SMALLEST_SAMPLE)]
    return _improve(rows, _start(rows.rows_nD, sample_m, count, seed), _FAST, seed)


def _from_a_start(rows: _Rows, count: int, seed: int) -> tuple[Tensor, Tensor, float]:
    """Return owners, their means and the inertia, from a start among all rows, by Lloyd's rounds alone."""
    return _improve(rows, _start(rows.rows_nD, _order(rows, seed), count, seed), _EACH_START, seed)


def _search(rows: _Rows, count: int, seed: int) -> tuple[Tensor, Tensor, float]:
    """Return owners, their means and the inertia; for wide rows all but the last rounds run on a sketch."""
    if rows.rows_nD.shape[1] <= 2 * _SKETCH_WIDTH:
        return _search_directly(rows, count, seed)
    order_n = _order(rows, seed)
    generator = noise.generator(noise.fold(seed, noise.KMEANS_SKETCH))
    narrow = _Rows(sketch(rows.rows_nD, order_n, _SKETCH_WIDTH, generator), rows.positions_n, count)
    owner_n, _, _ = _search_directly(narrow, count, seed)
    return _improve(rows, rows.means(owner_n, rows.rows_nD[order_n[:count]]), _AFTER_SKETCH, seed)


def kmeans(rows_nD: Tensor, positions_n: Tensor, count: int, seed: int, effort: Effort = "fast") -> Clusters:
    """Partition rows into clusters with a small sum of squared distances to their means.

    A greedy k-means++ start, Lloyd's rounds, and moves of centres that are hardly needed into clusters that hold more
    than one group. A cluster that becomes empty restarts at the row farthest from its centre; none is empty at the end
    if ``count`` rows are distinct.

    Args:
        rows_nD: (n, D) float32, in position order.
        positions_n: (n,) int64, ascending: the random numbers belong to them.
        count: Number of clusters B, 1 <= B <= n.
        seed: Seed of the start and the moves.
        effort: "fast" looks for the start among 10 rows per cluster (at least 2,048) and, with more than 128 features,
            takes all but the last five rounds on a sketch of 64. "best" takes the best of sixteen searches, eight of
            them without a sketch, and continues until nothing improves: for up to a percent less inertia at twenty
            times the time or more. "ten_starts" takes the best of ten starts followed by Lloyd's rounds alone, as
            scikit-learn did by default.

    Returns:
        The clusters; ties go to the lowest cluster.

    Source:
        Lloyd, "Least squares quantization in PCM", IEEE Transactions on Information Theory 28, 1982. Start and moves:
        see ``greedy_start`` and ``relocations``; the rounds on a sketch are after Boutsidis, Zouzias, Mahoney,
        Drineas, "Randomized dimensionality reduction for k-means clustering", IEEE TIT 61, 2015.
    """
    rows = _Rows(rows_nD, positions_n, count)
    # distances are differences of products
    with true_float32():
        if effort == "fast":
            owner_n, centres_BD, _ = _search(rows, count, seed)
        elif effort == "ten_starts":
            seeds = [noise.fold(seed, number) for number in range(_STARTS)]
            tries = [_from_a_start(rows, count, again) for again in seeds]
            owner_n, centres_BD, _ = min(tries, key=lambda clusters: clusters[2])
        else:
            seeds = [noise.fold(seed, number) for number in range(_RESTARTS)]
            tries = [search(rows, count, again) for again in seeds for search in (_search, _search_directly)]
            _, centres_BD, _ = min(tries, key=lambda clusters: clusters[2])
            owner_n, centres_BD, _ = _improve(rows, centres_BD, _BEST, seed)
    squares_n = rows.distances(centres_BD, owner_n)
    return Clusters(owner_n, centres_BD, squares_n, float(squares_n.sum(dtype=torch.float64)))


def grouped(clusters: Clusters, order_n: Tensor) -> list[Tensor]:
    """Return the members of each cluster, those nearest to its centre first.

    Distances within 1e-6 of the smallest count as equal: rounding alone would decide which of two members is nearer.

    Args:
        clusters: Clusters of n rows of length about 1.
        order_n: (n,) int64 indices of all rows, in the order in which rows at an equal distance come.

    Returns:
        (m,) int64 indices of rows for each cluster; none for an empty one.
    """
    count = len(clusters.centres_BD)
    distances_n = clusters.squares_n.sqrt()
    nearest_B = distances_n.new_full((count,), torch.inf)
    nearest_B.scatter_reduce_(0, clusters.owner_n, distances_n, "amin")
    nearest_n = nearest_B[clusters.owner_n]
    distances_n = torch.where(distances_n <= nearest_n + _SAME_DISTANCE, nearest_n, distances_n)
    order_n = order_n[distances_n[order_n].sort(stable=True).indices]
    order_n = order_n[clusters.owner_n[order_n].sort(stable=True).indices]
    return list(torch.split(order_n, clusters.owner_n.bincount(minlength=count).tolist()))
