"""Core-set: query the samples farthest from all labelled ones, so that every sample is near to a labelled one.

Needs embeddings, of pool and labelled samples, and no head. Scoring costs N L D; the choice N B D in about B/80
passes over the embeddings, which all shards send: any of them can be the farthest. Both are products in float32 that
bound the distances, and float64 where the bounds do not decide, so the choice is that of float64. Exact for any number
of shards; beside the embeddings, memory holds a few numbers per sample and one block.

Choose it where the embedding space is known to be good and outliers are wanted, such as rare conditions. It does not
look at predictions, and on noisy pools it queries odd samples rather than useful ones.

scikit-activeml's ``CoreSet`` differs in that it breaks ties at random, copies of chosen samples too, and draws the
first query from a random state of its own where nothing is labelled.
"""

from dataclasses import dataclass

import torch

from alfamix_core.acquisition import noise, subset
from alfamix_core.acquisition.batch import Batch
from alfamix_core.acquisition.k_centre import farthest_first
from alfamix_core.acquisition.points import Euclidean, lower
from alfamix_core.acquisition.tunable_types import NoTunables
from alfamix_core.acquisition.types import Features, Head, Labelled, Scores

COLUMNS = frozenset({"embeddings"})
NEEDS_LABELS = False
USES_HEAD = False

keep = subset.whole_pool


@dataclass(frozen=True)
class State:
    """The embeddings of the labelled samples, (L, D)."""

    labelled: Euclidean


def prepare(labelled: Labelled, head: Head, tunables: NoTunables, *, seed: int) -> State:
    """Keep the labelled embeddings; the head is not read, and nothing is random before ``select``."""
    return State(Euclidean(labelled.embeddings_LD))


def score(block: Features, state: State) -> Scores:
    """Score each sample by its distance to the nearest labelled sample.

    Args:
        block: n pool samples; only positions and embeddings (n, D) are read.
        state: Result of ``prepare``.

    Returns:
        scores_n >= 0 in the unit of the embeddings, 0 for all if nothing is labelled. The rows are ``embeddings`` and
        ``nearest``, the squared distance in float64, inf if nothing is labelled.
    """
    assert block.embeddings_nD is not None
    nearest_n = torch.full_like(block.positions_n, torch.inf, dtype=torch.float64)
    lower(Euclidean(block.embeddings_nD), nearest_n, state.labelled)
    scores_n = nearest_n.sqrt() if len(state.labelled) else torch.zeros_like(nearest_n)
    rows = {"embeddings": block.embeddings_nD, "nearest": nearest_n}
    return Scores(block.positions_n, scores_n.to(torch.float32), rows)


def select(scores: Scores, state: State, batch: Batch, generator: torch.Generator) -> None:
    """Choose one by one the sample farthest from the labelled and the chosen ones.

    Args:
        scores: n rows, positions ascending, with ``embeddings`` and ``nearest``.
        state: Not read: the distances are in the rows.
        batch: Batch that receives the queries, best first; ties by position. Copies of a labelled or chosen sample come
            last.
        generator: Source of the seed of the first query where nothing is labelled.

    Source:
        Sener, Savarese, "Active learning for convolutional neural networks: a core-set approach", ICLR 2018,
        algorithm 1 (k-Center-Greedy), on raw embeddings with the Euclidean distance.
    """
    points, seed = Euclidean(scores.rows["embeddings"]), noise.draw_seed(generator)
    count, accept = min(batch.missing, len(scores)), batch.by_row(scores.positions_n)
    farthest_first(points, scores.column("nearest"), scores.positions_n, count, seed, accept)
