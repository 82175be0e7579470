"""MaxHerding: query the samples that cover most of the pool, weighted by nearness.

Needs the embeddings of pool and labelled samples, no head. Scoring costs nothing; the choice works on a random subset
of m samples, m = 35,000, as ``uherding`` does, and costs the same. Exact under sharding: the subset are the m smallest
random numbers of seed and position, so each shard sends its own m smallest.

Choose it while labels are few: it is ``uherding`` without uncertainty, so what the model believes cannot mislead it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from alfamix_core.acquisition import noise, subset
from alfamix_core.acquisition.batch import Batch
from alfamix_core.acquisition.strategies.uherding import bandwidth, herd
from alfamix_core.acquisition.tunables.maxherding import Tunables
from alfamix_core.acquisition.types import Head, Labelled, Scores

COLUMNS = frozenset({"embeddings"})
NEEDS_LABELS = False
USES_HEAD = False

score = subset.unscored


@dataclass(frozen=True)
class State:
    """The labelled samples, which cover from the start, and how far a sample covers.

    Attributes:
        embeddings_LD: (L, D) of the labelled samples; L may be 0.
        tunables: Width of the kernel and size of the subset.
        noise_key: Key of the subset's random numbers.
    """

    embeddings_LD: Tensor
    tunables: Tunables
    noise_key: int


def prepare(labelled: Labelled, head: Head, tunables: Tunables, *, seed: int) -> State:
    """Keep the labelled embeddings.

    Args:
        labelled: L >= 0 labelled samples; only the embeddings are read.
        head: Not read.
        tunables: Width of the kernel and size of the subset.
        seed: Seed of the subset.

    Returns:
        The state.
    """
    return State(labelled.embeddings_LD, tunables, noise.fold(seed, noise.HERD_SUBSET))


def keep(scores: Scores, state: State, reach: int) -> Scores:
    """Return the subset: the max(m, reach) rows with the smallest random numbers, in position order."""
    return subset.smallest(scores, state.noise_key, max(state.tunables.subset, reach))


def select(scores: Scores, state: State, batch: Batch, generator: torch.Generator) -> None:
    """Pick, one by one, the sample of the subset that adds most coverage.

    Args:
        scores: n rows, positions ascending, with ``embeddings``.
        state: Result of ``prepare``.
        batch: Batch that receives the queries in the order of the picks; ties by position. Where all of the subset was
            offered, the choice continues on the next one.
        generator: Not read: the subset belongs to the seed of ``prepare``.

    Source:
        Bae, Noh, Sutherland, "Generalized coverage for more robust low-budget active learning", ECCV 2024,
        algorithm 1.
    """
    labelled_LD = state.embeddings_LD.to(scores.positions_n.device, torch.float64)
    labelled_LD = normalize(labelled_LD, dim=1)
    width = bandwidth(labelled_LD) if state.tunables.width is None else state.tunables.width
    for kept in subset.in_turns(scores, state, batch, keep):
        rows_mD = normalize(kept.column("embeddings").to(torch.float64), dim=1)
        accept, count = batch.by_row(kept.positions_n), min(batch.missing, len(kept))
        picks = herd(rows_mD, rows_mD.new_ones(len(rows_mD)), labelled_LD, width, count, accept)
        labelled_LD = torch.cat([labelled_LD, rows_mD[picks]])
