"""CDAL: query samples whose predicted class probabilities are unlike those of every labelled sample.

Needs logits, of pool and labelled samples. Scoring costs N L K, the choice N B K in about B/40 passes over the
logits, which all shards send. Exact for any number of shards; beside the logits, memory holds two numbers per sample
and one block.

Choose it to spread queries over what the model confuses with what, at a cost without D. It knows nothing of how
samples look: two samples that are confused in the same way count as one.
"""

from dataclasses import dataclass

import torch

from alfamix_core.acquisition import noise, subset
from alfamix_core.acquisition.batch import Batch
from alfamix_core.acquisition.blocks import map_rows
from alfamix_core.acquisition.k_centre import farthest_first
from alfamix_core.acquisition.points import Distributions, to_nearest
from alfamix_core.acquisition.tunable_types import NoTunables
from alfamix_core.acquisition.types import Features, Head, Labelled, Scores
from alfamix_core.errors import InputError

COLUMNS = frozenset({"logits"})
NEEDS_LABELS = False
USES_HEAD = False

keep = subset.whole_pool


@dataclass(frozen=True)
class State:
    """The predictions for the labelled samples, (L, K)."""

    labelled: Distributions


def prepare(labelled: Labelled, head: Head, tunables: NoTunables, *, seed: int) -> State:
    """Keep the labelled logits; the head is not read, and nothing is random before ``select``."""
    return State(Distributions(labelled.logits_LK))


def score(block: Features, state: State) -> Scores:
    """Score each sample by its divergence from the nearest labelled sample.

    Args:
        block: n pool samples; only positions and logits (n, K), K >= 2, are read.
        state: Result of ``prepare``.

    Returns:
        scores_n >= 0 in nats: half the symmetric Kullback-Leibler divergence; 0 for all if nothing is labelled. The
        rows are ``logits`` and ``nearest``, the score in float64, inf if nothing is labelled.

    Raises:
        InputError: There are fewer than two classes.
    """
    assert block.logits_nK is not None
    if block.logits_nK.shape[1] < 2:
        raise InputError(f"two classes are needed to compare, the logits have {block.logits_nK.shape[1]}")
    nearest_n = map_rows(lambda logits_nK: to_nearest(Distributions(logits_nK), state.labelled), block.logits_nK)
    scores_n = nearest_n if len(state.labelled) else torch.zeros_like(nearest_n)
    scores_n = scores_n.clamp(max=torch.finfo(torch.float32).max).to(torch.float32)
    return Scores(block.positions_n, scores_n, {"logits": block.logits_nK, "nearest": nearest_n})


def select(scores: Scores, state: State, batch: Batch, generator: torch.Generator) -> None:
    """Choose one by one the sample whose probabilities are farthest from those of the labelled and chosen ones.

    Args:
        scores: n rows, positions ascending, with ``logits`` and ``nearest``.
        state: Not read: the divergences are in the rows.
        batch: Batch that receives the queries, best first; ties by position.
        generator: Source of the seed of the first query where nothing is labelled.

    Source:
        Agarwal, Arora, Anand, Arora, "Contextual diversity for active learning", ECCV 2020: CDAL-CS. For a whole image
        the class-wise mixture of the paper has one region and is p itself. The released code of ALFA-Mix takes
        Euclidean distances of a softmax of a softmax instead.
    """
    points, seed = Distributions(scores.rows["logits"]), noise.draw_seed(generator)
    count, accept = min(batch.missing, len(scores)), batch.by_row(scores.positions_n)
    farthest_first(points, scores.column("nearest"), scores.positions_n, count, seed, accept)
