"""Cluster-Margin: query the smallest margins, taken in turn from clusters of similar samples, the smallest first.

Needs logits and embeddings. Scoring costs N K; the choice clusters the Q = 10 B smallest margins, Q at most 20,000: up
to 4,096 of them exactly, Q² D for their distances, Q² for the tree and 8 Q² bytes; of more, k-means makes 4,096
micro-clusters, whose centres are clustered instead, so that memory is Q D numbers and never Q². Exact under
sharding: a shard sends its Q best rows.

Choose it for large batches where ``margin`` would ask many near-copies of one hard case, as in video or bursts.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from alfamix_core.acquisition import agglomerative, noise, ranking
from alfamix_core.acquisition.batch import Batch
from alfamix_core.acquisition.clustering import kmeans
from alfamix_core.acquisition.probabilities import score_logits
from alfamix_core.acquisition.strategies.margin import margins
from alfamix_core.acquisition.tunables.cluster_margin import Tunables
from alfamix_core.acquisition.types import Features, Head, Labelled, Scores

COLUMNS = frozenset({"embeddings", "logits"})
NEEDS_LABELS = False
USES_HEAD = False

_EXACT_ROWS = 4_096
"""Largest number of samples that are clustered themselves: 128 MiB of distances."""


@dataclass(frozen=True)
class State:
    """The number of samples to cluster, and the size of the clusters."""

    tunables: Tunables


def prepare(labelled: Labelled, head: Head, tunables: Tunables, *, seed: int) -> State:
    """Keep how many samples are clustered; labelled samples and head are not read, and nothing is random yet."""
    return State(tunables)


def score(block: Features, state: State) -> Scores:
    """Score each sample by one minus its margin.

    Args:
        block: n pool samples; positions, logits (n, K) and embeddings (n, D) are read.
        state: Result of ``prepare``.

    Returns:
        scores_n in [0, 1]; 1 is a tie of two classes. ``select`` reads the row ``embeddings``.

    Raises:
        InputError: There are fewer than two classes.
    """
    assert block.embeddings_nD is not None
    scores = score_logits(block, margins)
    return Scores(scores.positions_n, scores.scores_n, {"embeddings": block.embeddings_nD})


def _clustered(state: State, need: int) -> int:
    return min(state.tunables.factor * need, state.tunables.max_clustered)


def keep(scores: Scores, state: State, reach: int) -> Scores:
    """Return the best rows: those clustered for ``reach`` queries, and never fewer than ``reach``.

    Args:
        scores: n rows of one shard or of several merged.
        state: Result of ``prepare``.
        reach: Largest number of queries that can still be asked for.

    Returns:
        Rows in position order.
    """
    return ranking.best(scores, max(_clustered(state, reach), reach))


def clusters_by_size(owner_n: Tensor, numbers_n: Tensor) -> list[Tensor]:
    """Return the members of each cluster, the smallest cluster first.

    Args:
        owner_n: (n,) int64 cluster of each row, numbered in the order of their lowest rows.
        numbers_n: (n,) orders the members of a cluster, ascending; ties by row.

    Returns:
        (m,) int64 indices of rows for each. Clusters of one size come in the order of their lowest rows.
    """
    sizes_c = owner_n.bincount()
    by_number_n = numbers_n.sort(stable=True).indices
    grouped_n = by_number_n[owner_n[by_number_n].sort(stable=True).indices]
    members = torch.split(grouped_n, sizes_c.tolist())
    return [members[cluster] for cluster in sizes_c.sort(stable=True).indices.tolist() if len(members[cluster])]


def offer_in_turn(clusters: list[Tensor], batch: Batch) -> None:
    """Take one sample from each cluster, repeatedly, until the batch is full or all were offered.

    Where a sample is refused, the next of its cluster is offered in its turn; an empty cluster is skipped.

    Args:
        clusters: Positions of the members of each cluster, in the order of the turns.
        batch: Batch that receives the queries.
    """
    left = [iter(members.tolist()) for members in clusters]
    while left and batch.missing:
        served = []
        for members in left:
            if not batch.missing:
                return
            if batch.offer_first(members) is not None:
                served.append(members)
        left = served


def similar(rows_qD: Tensor, positions_q: Tensor, count: int, seed: int) -> Tensor:
    """Return clusters of rows by average linkage, through micro-clusters if there are more than 4,096 rows.

    The micro-clusters are those of k-means. Their centres are clustered without regard to how many rows each holds, so
    that 4,096 distances squared are the largest matrix; clusters that are apart by much more than their width come out
    as they do of the rows themselves.

    Args:
        rows_qD: (q, D), q >= 1, in position order.
        positions_q: (q,) int64, ascending.
        count: Number of clusters, 1 <= count <= q; with more than 4,096 rows at most 4,096 result.
        seed: Seed of the k-means.

    Returns:
        (q,) int64: the cluster of each row, numbered in the order of their lowest rows.
    """
    if len(rows_qD) <= _EXACT_ROWS:
        return agglomerative.clusters(rows_qD, count)
    micro = kmeans(rows_qD.to(torch.float32), positions_q, _EXACT_ROWS, seed)
    # with fewer distinct rows than centres some centres own nothing
    used_m, micro_q = torch.unique(micro.owner_n, return_inverse=True)
    owner_m = agglomerative.clusters(micro.centres_BD[used_m], min(count, len(used_m)))
    owner_q = owner_m[micro_q]
    lowest_c = torch.full((len(owner_m),), len(owner_q), dtype=torch.int64, device=owner_q.device)
    lowest_c.scatter_reduce_(0, owner_q, torch.arange(len(owner_q), device=owner_q.device), "amin")
    ranks_c = lowest_c.sort().indices.argsort()
    return ranks_c[owner_q]


def select(scores: Scores, state: State, batch: Batch, generator: torch.Generator) -> None:
    """Cluster the smallest margins by average linkage and take one of each cluster in turn, the smallest first.

    The paper clusters the whole pool once, with the first round's embeddings, and cuts the tree at a distance. Here
    only the smallest margins are clustered, again in each round, into one cluster for each ``cluster_size`` of them: no
    memory grows with the pool, and the embeddings are today's. Up to 4,096 samples are clustered themselves, exactly;
    more of them as the paper's scale demands, by the centres of 4,096 k-means micro-clusters.

    Args:
        scores: n rows, positions ascending, with ``embeddings``.
        state: Result of ``prepare``.
        batch: Batch that receives the queries in the order of the turns. Where fewer are clustered than needed, the
            smallest margins of the rest follow; where rules refuse some of the turns, these are clustered first.
        generator: Source of the seed of the order within a cluster.

    Source:
        Citovsky et al., "Batch active learning at scale", NeurIPS 2021, algorithm 2.
    """
    seed = noise.draw_seed(generator)
    order_n = ranking.order(scores)
    while batch.missing and len(order_n):
        split = _clustered(state, min(batch.missing, len(scores)))
        rows_q, order_n = order_n[:split].sort().values, order_n[split:]
        positions_q = scores.positions_n[rows_q]
        count = -(-len(rows_q) // state.tunables.cluster_size)
        owner_q = similar(scores.rows["embeddings"][rows_q], positions_q, count, seed)
        numbers_q = noise.uniform(noise.fold(seed, noise.CLUSTER_MEMBER_ORDER), positions_q)
        refused = batch.refused
        offer_in_turn([positions_q[members] for members in clusters_by_size(owner_q, numbers_q)], batch)
        if batch.refused == refused:
            break
    batch.offer_all(scores.positions_n[ranking.order(scores)])
