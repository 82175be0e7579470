"""ProbCover: query the samples that cover most of the pool within a radius at which balls are nearly pure.

Needs the embeddings of pool and labelled samples, no head. Scoring costs nothing; the choice works on a random subset
of m samples, m = 20,000: a k-means for the radius, and up to 3 m² D for the neighbours, in memory m (2 D + a block).
Exact under sharding: the subset are the m smallest random numbers of seed and position, so each shard sends its own m
smallest.

Choose it for the first tens of labels on good self-supervised features. Later, when all is covered, it does not prefer
any sample; ``maxherding`` covers by nearness instead and needs no radius.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from alfamix_core.acquisition import noise, subset
from alfamix_core.acquisition.batch import Batch
from alfamix_core.acquisition.clustering import kmeans
from alfamix_core.acquisition.points import pair_squares
from alfamix_core.acquisition.tunables.probcover import Tunables
from alfamix_core.acquisition.types import Head, Labelled, Scores

COLUMNS = frozenset({"embeddings"})
NEEDS_LABELS = False
USES_HEAD = False

score = subset.unscored

_BLOCK_ROWS = 256
_SLACK = 1e-9
"""Share by which the radius is shorter than a distance that must stay outside, however that is rounded."""


@dataclass(frozen=True)
class State:
    """The labelled samples, which cover from the start, and how far a sample covers.

    Attributes:
        embeddings_LD: (L, D) float64 of the labelled samples, of length 1; L may be 0.
        clusters: Number of clusters that stand for classes.
        tunables: Radius or purity, and size of the subset.
        seed: Seed of the subset and of the clusters.
    """

    embeddings_LD: Tensor
    clusters: int
    tunables: Tunables
    seed: int


def prepare(labelled: Labelled, head: Head, tunables: Tunables, *, seed: int) -> State:
    """Keep the labelled embeddings.

    Args:
        labelled: L >= 0 labelled samples; of labels and logits only the number of classes is read.
        head: Not read.
        tunables: Radius or purity, number of clusters and size of the subset.
        seed: Seed of the subset and of the clusters.

    Returns:
        The state.
    """
    seen = int(labelled.labels_L.max()) + 1 if len(labelled) else 0
    clusters = tunables.clusters or max(2, labelled.logits_LK.shape[1], seen)
    return State(_unit(labelled.embeddings_LD), clusters, tunables, seed)


def _unit(rows_nD: Tensor) -> Tensor:
    return normalize(rows_nD.to(torch.float64), dim=1)


def keep(scores: Scores, state: State, reach: int) -> Scores:
    """Return the subset: the max(m, reach) rows with the smallest random numbers, in position order."""
    return subset.smallest(scores, noise.fold(state.seed, noise.COVER_SUBSET), max(state.tunables.subset, reach))


def pure_radius(rows_mD: Tensor, owner_m: Tensor, purity: float) -> float:
    """Return the largest radius at which enough open balls hold rows of one cluster alone.

    A ball is pure up to the distance of the nearest row of another cluster, so the radius is one of these distances.

    Args:
        rows_mD: (m, D) float64 of length 1.
        owner_m: (m,) int64, the cluster of each row.
        purity: Share of the balls, in (0, 1].

    Returns:
        The radius, inf if there is one cluster.
    """
    nearest = []
    for rows_bD, owner_b in zip(torch.split(rows_mD, _BLOCK_ROWS), torch.split(owner_m, _BLOCK_ROWS), strict=True):
        others_bm = pair_squares(rows_bD, rows_mD).masked_fill_(owner_b[:, None] == owner_m, torch.inf)
        nearest.append(others_bm.amin(dim=1))
    nearest_m = torch.cat(nearest).sort().values
    return math.sqrt(float(nearest_m[math.floor((1 - purity) * len(nearest_m) + 1e-9)]))


def cover(
    rows_mD: Tensor, covered_m: Tensor, radius: float, count: int, accept: Callable[[int], bool] = lambda row: True
) -> list[int]:
    """Pick rows one by one, each time the one with most rows in its ball that no ball covers yet.

    A row is covered once, so all updates together cost what counting costs.

    Args:
        rows_mD: (m, D) float64 of length 1.
        covered_m: (m,) bool, rows that are covered from the start; not changed.
        radius: Radius of the open balls; a row covers itself.
        count: Largest number of picks.
        accept: Answer for each row that is to be picked, asked once; a row that is not accepted covers nothing.

    Returns:
        At most ``count`` rows in the order of the picks, ties to the lowest; fewer once all is covered.
    """
    limit = radius**2 * (1 - _SLACK)
    covered_m = covered_m.clone()

    def counts(others_cD: Tensor) -> Tensor:
        """Return the number of the others in the ball of each row."""
        blocks = [
            (pair_squares(rows_bD, others_cD) < limit).sum(dim=1) for rows_bD in torch.split(rows_mD, _BLOCK_ROWS)
        ]
        return torch.cat(blocks)

    left_m = counts(rows_mD[~covered_m])
    open_m = torch.ones_like(covered_m)
    picks: list[int] = []
    while len(picks) < count:
        best = int(left_m.masked_fill(~open_m, -1).argmax())
        if left_m[best] <= 0 or not open_m[best]:
            break
        open_m[best] = False
        if not accept(best):
            continue
        picks.append(best)
        fresh_m = (pair_squares(rows_mD[best : best + 1], rows_mD)[0] < limit) & ~covered_m
        left_m -= counts(rows_mD[fresh_m])
        covered_m |= fresh_m
    return picks


def select(scores: Scores, state: State, batch: Batch, generator: torch.Generator) -> None:
    """Pick, one by one, the sample of the subset whose ball covers most.

    Args:
        scores: n rows, positions ascending, with ``embeddings``.
        state: Result of ``prepare``.
        batch: Batch that receives the queries in the order of the picks, and once all is covered the other samples, by
            position.
        generator: Not read: subset and clusters belong to the seed of ``prepare``.

    Source:
        Yehuda, Dekel, Hacohen, Weinshall, "Active learning through a covering lens", NeurIPS 2022, algorithm 1 and
        section 3.2; the radius without a grid is ours.
    """
    labelled_LD = state.embeddings_LD.to(scores.positions_n.device)
    for kept in subset.in_turns(scores, state, batch, keep):
        rows_mD = _unit(kept.column("embeddings"))
        radius = state.tunables.radius
        if radius is None:
            clusters, noise_key = min(state.clusters, len(kept)), noise.fold(state.seed, noise.COVER_CLUSTERS)
            owner_m = kmeans(rows_mD.to(torch.float32), kept.positions_n, clusters, noise_key).owner_n
            # longer than any distance where there is one cluster
            radius = min(pure_radius(rows_mD, owner_m, state.tunables.purity), 3.0)
        covered_m = torch.zeros(len(kept), dtype=torch.bool, device=rows_mD.device)
        for start in range(0, len(kept) if len(labelled_LD) else 0, _BLOCK_ROWS):
            nearest_b = pair_squares(rows_mD[start : start + _BLOCK_ROWS], labelled_LD).amin(dim=1)
            covered_m[start : start + _BLOCK_ROWS] = nearest_b < radius**2 * (1 - _SLACK)
        picks = cover(rows_mD, covered_m, radius, batch.missing, batch.by_row(kept.positions_n))
        labelled_LD = torch.cat([labelled_LD, rows_mD[picks]])
        batch.offer_all(kept.positions_n)
