"""A batch spread over candidates by k-means: one query per cluster, from the members that may be asked."""

from collections.abc import Callable

import torch
from torch import Tensor

from alfamix_core.acquisition.batch import Batch
from alfamix_core.acquisition.clustering import grouped, kmeans
from alfamix_core.acquisition.rows import unit
from alfamix_core.acquisition.tunable_types import Effort
from alfamix_core.acquisition.types import Scores


def offer_in_rounds(batch: Batch, scores: Scores, choose: Callable[[Scores], None]) -> None:
    """Offer samples as if the refused ones had never been in the pool, as far as possible.

    Args:
        batch: Batch that receives the queries.
        scores: n rows.
        choose: Function that offers some of the rows that it receives, earlier queries included. If some are refused
            and queries are still missing, it is called again, without the refused ones.
    """
    open_scores, refused = scores, -1
    while batch.missing and batch.refused > refused:
        refused = batch.refused
        choose(open_scores)
        open_scores = scores.take(batch.open(scores.positions_n).nonzero()[:, 0])


def offer_clusters(batch: Batch, scores: Scores, order_n: Tensor, seed: int, effort: Effort) -> None:
    """Cluster candidates and offer the one nearest to each centre, or the next nearest that is accepted.

    Earlier queries are clustered too: a cluster that holds one needs no other, and the rows nearest to a query belong
    to its cluster.

    Args:
        batch: Batch that receives the queries.
        scores: n candidates, n > 0, with ``embeddings``, which are scaled to length 1.
        order_n: (n,) int64 indices of all rows, best first: of two rows at an equal distance the better counts as
            nearer, and the clusters come in the order of the rows nearest to their centres.
        seed: Seed of the k-means.
        effort: Effort of the k-means.
    """
    taken_n = ~batch.untouched(scores.positions_n)
    count = min(batch.missing + int(taken_n.sum()), len(scores))
    clusters = kmeans(unit(scores.rows["embeddings"]), scores.positions_n, count, seed, effort)
    served = set(clusters.owner_n[taken_n].tolist())
    ranks_n = torch.empty_like(order_n)
    ranks_n[order_n] = torch.arange(len(order_n), device=order_n.device)
    members = [rows for cluster, rows in enumerate(grouped(clusters, order_n)) if len(rows) and cluster not in served]
    first_m = ranks_n[torch.stack([rows[0] for rows in members])] if members else ranks_n[:0]
    for cluster in first_m.sort().indices.tolist():
        if not batch.missing:
            return
        batch.offer_first(int(scores.positions_n[row]) for row in members[cluster])
