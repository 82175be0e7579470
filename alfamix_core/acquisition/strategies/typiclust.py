"""TypiClust: query the most typical sample of each cluster; the start when no label exists yet.

Needs embeddings, of pool and labelled samples, and no head. The choice costs a k-means of the N + L rows into L + B
clusters, and u² D for each visit of a cluster of u rows, u at most 8,192. Every shard sends its embeddings, so it is
exact for any number of shards. A k-means goes over its rows again and again, so unlike the mapped rows that it comes
from, one matrix of 4 (N + L) D bytes is in memory; beside it blocks, some numbers per sample and, where D is above 128,
a sketch of 256 bytes per sample, twice that while it is made.

Choose it for the first rounds, before a model's uncertainty can be trusted. Later it keeps asking for typical samples
while the errors are elsewhere. It does not look at predictions.

scikit-activeml's ``TypiClust`` visits each cluster without a label once, the largest first. So does this, but then it
continues with the clusters that hold the fewest labels and begins again, where scikit-activeml's draws at random from
all samples. It takes the rows as they are, here they have length 1; it looks at 5 neighbours by default, here at 20 but
at most half of the cluster; it has no ``max_clusters`` and no ``min_size``; and it breaks ties at random.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from alfamix_core.acquisition import noise, subset
from alfamix_core.acquisition.batch import Batch
from alfamix_core.acquisition.clustering import kmeans
from alfamix_core.acquisition.rows import Column, Rows, unit
from alfamix_core.acquisition.tunables.typiclust import Tunables
from alfamix_core.acquisition.types import Head, Labelled, Scores

COLUMNS = frozenset({"embeddings"})
NEEDS_LABELS = False
USES_HEAD = False

score = subset.unscored
keep = subset.whole_pool

_BLOCK_ROWS = 1024


@dataclass(frozen=True)
class State:
    """The labelled samples, which are clustered with the pool, and how.

    Attributes:
        embeddings_LD: (L, D) of the labelled samples; L may be 0.
        tunables: Sizes and number of clusters, neighbours, and effort of the k-means.
    """

    embeddings_LD: Tensor
    tunables: Tunables


def prepare(labelled: Labelled, head: Head, tunables: Tunables, *, seed: int) -> State:
    """Keep the labelled embeddings, as clusters that hold few of them come first; nothing is random yet."""
    return State(labelled.embeddings_LD, tunables)


def typicalities(rows_uD: Column, neighbours: int) -> Tensor:
    """Return the typicality of each row, its closeness to its nearest others.

    The distance is Euclidean, as in the paper; the reference code averages squared distances. A block of rows is
    compared with a block of others at a time, so memory does not grow with D u or u².

    Args:
        rows_uD: (u, D), u >= 2.
        neighbours: Number of nearest others, 1 <= neighbours < u.

    Returns:
        (u,) float64: 1 / (mean distance to the nearest others + 1e-5).

    Source:
        Hacohen, Dekel, Weinshall, "Active learning on a budget: opposite strategies suit high and low budgets",
        ICML 2022, equation 1.
    """
    means_u = torch.empty(len(rows_uD), dtype=torch.float64, device=rows_uD.device)
    for start in range(0, len(rows_uD), _BLOCK_ROWS):
        block_mD = rows_uD[start : start + _BLOCK_ROWS].to(torch.float64)
        squares_m1 = block_mD.square().sum(dim=1, keepdim=True)
        nearest_mk = block_mD.new_empty((len(block_mD), 0))
        for other in range(0, len(rows_uD), _BLOCK_ROWS):
            others_pD = block_mD if other == start else rows_uD[other : other + _BLOCK_ROWS].to(torch.float64)
            distances_mp = squares_m1 + others_pD.square().sum(dim=1) - 2 * block_mD @ others_pD.T
            if other == start:
                distances_mp.fill_diagonal_(torch.inf)
            nearest_mk = torch.cat([nearest_mk, distances_mp], dim=1)
            nearest_mk = nearest_mk.topk(min(neighbours, nearest_mk.shape[1]), dim=1, largest=False).values
        means_u[start : start + _BLOCK_ROWS] = nearest_mk.clamp(min=0).sqrt().mean(dim=1)
    return 1 / (means_u + 1e-5)


def select(scores: Scores, state: State, batch: Batch, generator: torch.Generator) -> None:
    """Take the most typical sample of each cluster in turn, cyclically.

    The clusters with the fewest labelled members come first, and among these the largest.

    Args:
        scores: n rows, positions ascending, with ``embeddings``.
        state: Result of ``prepare``.
        batch: Batch that receives the queries in the order of the visits; where a sample is refused, the next most
            typical of its cluster. Rows of clusters too small to be visited come last, by position.
        generator: Source of the seed of the k-means.

    Source:
        Hacohen, Dekel, Weinshall, ICML 2022, algorithm 1.
    """
    seed = noise.draw_seed(generator)
    n, need, accept = len(scores), min(batch.missing, len(scores)), batch.by_row(scores.positions_n)
    if not need:
        return
    pool_nD = scores.rows["embeddings"]
    rows_mD = unit(pool_nD, state.embeddings_LD.to(pool_nD.device, pool_nD.dtype))
    # a labelled sample has no position: -1, -2, … keep its noise apart from the pool's
    below_L = -1 - torch.arange(len(rows_mD) - n, device=rows_mD.device)
    count = min(len(rows_mD) - n + need, state.tunables.max_clusters)
    clusters = kmeans(rows_mD, torch.cat([scores.positions_n, below_L]), count, seed, state.tunables.clustering)
    owner_m = clusters.owner_n

    sizes_B = owner_m.bincount(minlength=count)
    labelled_B = owner_m[n:].bincount(minlength=count).tolist()
    pool_sizes = owner_m[:n].bincount(minlength=count).tolist()
    members = dict(enumerate(torch.split(owner_m[:n].sort(stable=True).indices, pool_sizes)))
    sizes = sizes_B.tolist()
    least = state.tunables.min_size if max(sizes) >= state.tunables.min_size else 1
    visited = [cluster for cluster, left_u in members.items() if sizes[cluster] >= least and len(left_u)]
    visited.sort(key=lambda cluster: (labelled_B[cluster], -sizes[cluster], int(members[cluster][0])))

    while batch.missing and visited:
        for cluster in visited:
            if not batch.missing:
                return
            left_u = _innermost(members[cluster], clusters.squares_n, state.tunables.max_compared)
            neighbours = max(1, min(state.tunables.neighbours, len(left_u) // 2))
            typical_u = typicalities(Rows((rows_mD,), left_u), neighbours) if len(left_u) > 1 else left_u
            offered = _until_accepted(left_u, typical_u, accept)
            offered_m = torch.tensor(offered, device=left_u.device)
            members[cluster] = members[cluster][~torch.isin(members[cluster], offered_m)]
        visited = [cluster for cluster in visited if len(members[cluster])]
    batch.offer_all(scores.positions_n)


def _innermost(rows_u: Tensor, squares_m: Tensor, count: int) -> Tensor:
    """Return the rows nearest to their centre, at most ``count``, ascending; ties to the lowest row."""
    if len(rows_u) <= count:
        return rows_u
    return rows_u[squares_m[rows_u].sort(stable=True).indices[:count]].sort().values


def _until_accepted(rows_u: Tensor, typical_u: Tensor, accept: Callable[[int], bool]) -> list[int]:
    """Return the rows that were offered, the most typical first: all but the last of them were refused."""
    best = int(rows_u[typical_u.argmax()])
    if accept(best):
        return [best]
    offered = [best]
    for row in rows_u[typical_u.sort(descending=True, stable=True).indices].tolist():
        if row != best:
            offered.append(row)
            if accept(row):
                break
    return offered
