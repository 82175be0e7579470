"""DFAL: query samples whose prediction changes with the smallest change of pixels.

Needs ``deepfool``: for each sample a few iterations of as many backward passes through the whole model as classes are
looked at, by far the most expensive column. Scoring costs nothing more. A ranking: a shard sends its B best, exactly.

Choose it where distance to the boundary in the input matters, such as robustness to small changes; otherwise ``margin``
ranks nearly the same for a well-scaled model at a hundredth of the cost. It does not spread the queries.
"""

import torch
from torch import Tensor

from alfamix_core.acquisition.batch import Batch
from alfamix_core.acquisition.probabilities import NoState
from alfamix_core.acquisition.tunables.dfal import Tunables
from alfamix_core.acquisition.types import Features, Head, Labelled, Scores

COLUMNS = frozenset({"deepfool"})
COLUMN_TUNABLES = frozenset({"classes"})
NEEDS_LABELS = False
USES_HEAD = False


def prepare(labelled: Labelled, head: Head, tunables: Tunables, *, seed: int) -> NoState:
    """Return an empty state: a sample's norm is enough, and nothing is random."""
    return NoState()


def score(block: Features, state: NoState) -> Scores:
    """Score each sample by minus the norm of the smallest change that DeepFool found.

    Args:
        block: n pool samples; only positions and deepfool (n,) are read.
        state: Not read.

    Returns:
        scores_n <= 0 in the unit of the input; -inf where the prediction did not change. The row ``travelled`` ranks
        these: the norm that DeepFool went without a change, the largest number if it could not move; 0 for all others.
    """
    assert block.deepfool_n is not None
    changed_n = block.deepfool_n >= 0
    scores_n = torch.where(changed_n, -block.deepfool_n, -torch.inf).to(torch.float32)
    return Scores(block.positions_n, scores_n, {"travelled": torch.where(changed_n, 0.0, -block.deepfool_n)})


def _order(scores: Scores) -> Tensor:
    """Return the indices of the rows from best to worst: score descending, then way ascending, then position."""
    by_way_n = scores.column("travelled").sort(stable=True).indices
    return by_way_n[scores.scores_n[by_way_n].sort(descending=True, stable=True).indices]


def keep(scores: Scores, state: NoState, reach: int) -> Scores:
    """Return the rows that a shard must send: its ``reach`` best, in position order."""
    return scores.take(_order(scores)[:reach].sort().values)


def select(scores: Scores, state: NoState, batch: Batch, generator: torch.Generator) -> None:
    """Offer the rows, best first.

    Args:
        scores: n rows, positions ascending, with ``travelled``.
        state: Not read.
        batch: Batch that receives the queries by score; those without a change come last, the shortest way first; ties
            by position.
        generator: Not read.

    Source:
        Ducoffe, Precioso, "Adversarial active learning for deep networks: a margin based approach", 2018. It also
        trains on the changed samples; this does not.
    """
    batch.offer_all(scores.positions_n[_order(scores)])
