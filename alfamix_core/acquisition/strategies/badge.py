"""BADGE: query samples with large gradients that point in different directions.

Needs embeddings and logits. Scoring costs N (K + D), the choice N (K + D) per draw in about B/20 passes over the rows,
which all shards send. The gradients of K D numbers per sample are never formed: they are outer products, and their
distances need the factors alone. Exact for any number of shards; beside embeddings and logits, memory holds a few
numbers per sample and one block.

Choose it as the strong all-round choice where B is large: it weighs uncertainty against diversity without a tunable.
It costs more than a ranking and needs all rows in one place.
"""

import torch

from alfamix_core.acquisition import k_means_pp, noise, subset
from alfamix_core.acquisition.batch import Batch
from alfamix_core.acquisition.blocks import map_rows
from alfamix_core.acquisition.points import Gradients, lower
from alfamix_core.acquisition.probabilities import NoState
from alfamix_core.acquisition.tunable_types import NoTunables
from alfamix_core.acquisition.types import Features, Head, Labelled, Scores
from alfamix_core.errors import InputError

COLUMNS = frozenset({"embeddings", "logits"})
NEEDS_LABELS = False
USES_HEAD = False

keep = subset.whole_pool


def prepare(labelled: Labelled, head: Head, tunables: NoTunables, *, seed: int) -> NoState:
    """Return an empty state: embeddings and logits are enough, and nothing is random before ``select``."""
    return NoState()


def score(block: Features, state: NoState) -> Scores:
    """Score each sample by the squared norm of the loss's gradient if its prediction were its label.

    Args:
        block: n pool samples; positions, embeddings (n, D) and logits (n, K), K >= 2, are read.
        state: Not read.

    Returns:
        scores_n = ‖p - e_y‖² ‖z‖² >= 0. The rows are ``embeddings``, ``logits`` and ``squares``, the score in float64.

    Raises:
        InputError: There are fewer than two classes.
    """
    assert block.embeddings_nD is not None
    assert block.logits_nK is not None
    K = block.logits_nK.shape[1]
    if K < 2:
        raise InputError(f"two classes are needed to compare, the logits have {K}")
    squares_n = map_rows(
        lambda logits_nK, rows_nD: Gradients(logits_nK, rows_nD).squares(), block.logits_nK, block.embeddings_nD
    )
    rows = {"embeddings": block.embeddings_nD, "logits": block.logits_nK, "squares": squares_n}
    return Scores(block.positions_n, squares_n.to(torch.float32), rows)


def select(scores: Scores, state: NoState, batch: Batch, generator: torch.Generator) -> None:
    """Choose the largest gradient, then draw by squared distance to the gradients chosen before.

    Args:
        scores: n rows, positions ascending, with ``embeddings``, ``logits`` and ``squares``.
        state: Not read.
        batch: Batch that receives the queries in the order of the draws. What is left when every gradient coincides
            with a chosen one comes last, by score, ties by position.
        generator: Source of the seed of the draws.

    Source:
        Ash, Zhang, Krishnamurthy, Langford, Agarwal, "Deep batch active learning by diverse, uncertain gradient lower
        bounds", ICLR 2020, algorithm 1. As in its code the first is the largest gradient, and biases are left out.

    scikit-activeml's ``Badge`` counts the zero gradient as a centre, so that no distance exceeds the squared norm; the
    authors' code and this do not. It draws from a random state of its own, and what is left when every gradient
    coincides with a chosen one uniformly.
    """
    seed, accept = noise.draw_seed(generator), batch.by_row(scores.positions_n)
    squares_n, positions_n = scores.column("squares"), scores.positions_n
    by_score_n = squares_n.sort(descending=True, stable=True).indices
    for tried, first in enumerate(by_score_n.tolist() if batch.missing else []):
        if not accept(first):
            continue
        points = Gradients(scores.rows["logits"], scores.rows["embeddings"])
        nearest_n = torch.full_like(squares_n, torch.inf)
        lower(points, nearest_n, points.take(slice(first, first + 1)))
        nearest_n[by_score_n[: tried + 1]] = 0.0
        noise_key = noise.fold(seed, noise.BADGE_DRAW)
        k_means_pp.draw(points, nearest_n, positions_n, 1, batch.missing, noise_key, accept)
        break
    batch.offer_all(positions_n[by_score_n])
