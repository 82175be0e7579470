"""Random sampling: the baseline of every other strategy.

Needs no column. Costs one hash per sample, of the round's seed and its position. A ranking: a shard sends its B best,
exactly.

Choose it for the first round if the pool is balanced, for a baseline, and where the labelled set itself must stay an
unbiased sample of the pool.
"""

from dataclasses import dataclass

import torch

from alfamix_core.acquisition import noise, ranking
from alfamix_core.acquisition.tunable_types import NoTunables
from alfamix_core.acquisition.types import Features, Head, Labelled, Scores

COLUMNS: frozenset[str] = frozenset()
NEEDS_LABELS = False
USES_HEAD = False

keep = ranking.keep
select = ranking.select


@dataclass(frozen=True)
class State:
    """The key of the ranking's noise."""

    noise_key: int


def prepare(labelled: Labelled, head: Head, tunables: NoTunables, *, seed: int) -> State:
    """Return the key; labelled samples and head are not read."""
    return State(noise.fold(seed, noise.RANDOM_ORDER))


def score(block: Features, state: State) -> Scores:
    """Score each sample by a random number of its own.

    Args:
        block: n pool samples; only the positions are read.
        state: Result of ``prepare``.

    Returns:
        scores_n in [-1, 0): minus a uniform number of seed and position.
    """
    return Scores(block.positions_n, -noise.uniform(state.noise_key, block.positions_n).to(torch.float32))
