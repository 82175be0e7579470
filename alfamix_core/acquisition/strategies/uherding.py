"""Uncertainty herding: query what covers most of the pool's uncertainty, weighted by nearness to it.

Needs embeddings, logits and the labelled embeddings. Scoring costs N K; the choice works on a random subset of m
samples, m = 35,000: m L D for the labelled samples, m² D for the first gains, then between B m D and some m² D ln B for
the picks, in memory m (D + a block). Exact under sharding: the subset are the m smallest random numbers of seed and
position, so each shard sends its own m smallest.

Choose it where the budget grows from a handful to many over the rounds: with few labels it covers like
``typiclust``, with many it asks the uncertain like ``margin``, without a switch to be set.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from alfamix_core.acquisition import noise
from alfamix_core.acquisition.batch import Batch
from alfamix_core.acquisition.probabilities import score_logits, without_top
from alfamix_core.acquisition.strategies.entropy import entropies
from alfamix_core.acquisition.strategies.margin import margins
from alfamix_core.acquisition.tunables.uherding import Tunables
from alfamix_core.acquisition.types import Features, Head, Labelled, Scores

COLUMNS = frozenset({"embeddings", "logits"})
NEEDS_LABELS = False
USES_HEAD = False

_BLOCK_ROWS = 256
_STALE_ROWS = 16
_EQUAL = 1e-12
"""Squared distances of unit vectors up to this are rounding of 0 in float64."""
_UNCERTAINTIES = {"margin": margins, "entropy": entropies, "least_confidence": without_top}


@dataclass(frozen=True)
class State:
    """What covers already, and how uncertainty is read.

    Attributes:
        embeddings_LD: (L, D) of the labelled samples; L may be 0.
        tunables: temperature, kind of uncertainty and size of the subset.
        key: key of the subset's random numbers.
    """

    embeddings_LD: Tensor
    tunables: Tunables
    key: int


def prepare(labelled: Labelled, head: Head, tunables: Tunables, *, seed: int) -> State:
    """Keep the labelled embeddings.

    Args:
        labelled: L >= 0 labelled samples; only the embeddings are read.
        head: not read.
        tunables: temperature, kind of uncertainty and size of the subset.
        seed: seed of the subset.

    Returns:
        The state.
    """
    return State(labelled.embeddings_LD, tunables, noise.fold(seed, noise.HERD_SUBSET))


def score(block: Features, state: State) -> Scores:
    """Score each sample by its uncertainty at the temperature; 1 for all while nothing is labelled.

    Args:
        block: n pool samples; positions, logits (n, K) and embeddings (n, D) are read.
        state: from ``prepare``.

    Returns:
        scores_n >= 0, the uncertainty; the choice weighs it. The row ``embeddings`` is what is covered.

    Raises:
        InputError: there are fewer than two classes.
    """
    assert block.embeddings_nD is not None
    measure, divisor = _UNCERTAINTIES[state.tunables.uncertainty], state.tunables.temperature
    scores = score_logits(block, lambda log_probs_nK: measure((log_probs_nK / divisor).log_softmax(dim=1)))
    scores_n = scores.scores_n if len(state.embeddings_LD) else torch.ones_like(scores.scores_n)
    return Scores(block.positions_n, scores_n, {"embeddings": block.embeddings_nD})


def keep(scores: Scores, state: State, reach: int) -> Scores:
    """Return the subset: the rows with the smallest random numbers.

    Args:
        scores: n rows of one shard or of several merged.
        state: from ``prepare``.
        reach: the greatest number of queries that can still be asked for.

    Returns:
        min(max(subset, reach), n) rows in position order.
    """
    count = max(state.tunables.subset, reach)
    if count >= len(scores):
        return scores
    numbers_n = noise.uniform(state.key, scores.positions_n)
    return scores.take(numbers_n.sort(stable=True).indices[:count].sort().values)


def bandwidth(rows_LD: Tensor) -> float:
    """Return the smallest distance between two rows that differ, 1 if there are none.

    Args:
        rows_LD: (L, D) float64 of norm 1 (or 0).

    Returns:
        The distance, > 0.
    """
    smallest = math.inf
    for start in range(0, len(rows_LD), _BLOCK_ROWS):
        squares_mL = _squares(rows_LD[start : start + _BLOCK_ROWS], rows_LD[start:])
        smallest = min(smallest, float(torch.where(squares_mL > 0, squares_mL, torch.inf).min()))
    return math.sqrt(smallest) if smallest < math.inf else 1.0


def _squares(rows_aD: Tensor, rows_bD: Tensor) -> Tensor:
    """Return the squared distances of all pairs, (a, b): exactly 0 for equal rows."""
    sums_ab = rows_aD.square().sum(dim=1)[:, None] + rows_bD.square().sum(dim=1)
    squares_ab = torch.addmm(sums_ab, rows_aD, rows_bD.T, alpha=-2)
    return squares_ab.masked_fill_(squares_ab <= _EQUAL, 0.0)


def herd(
    rows_mD: Tensor,
    weights_m: Tensor,
    labelled_LD: Tensor,
    width: float,
    need: int,
    accept: Callable[[int], bool] = lambda row: True,
) -> Tensor:
    """Pick rows one by one, each time the one that adds most coverage.

    With k(i, j) = exp(-(‖x_i - x_j‖ / width)²), the coverage of a set S is Σ_j w_j max_{i in S} k(i, j). What a row
    adds can only fall as others are picked, so what it added earlier bounds it from above: only the rows that lead
    by their bound are computed again; if that becomes more than a pick can have changed, all are updated together.
    The picks are those of the loop that computes all, at worst at some ln ``need`` times the first pass.

    Args:
        rows_mD: (m, D) float64.
        weights_m: (m,) float64 >= 0.
        labelled_LD: (L, D) float64: what covers from the start; L may be 0.
        width: of the kernel, > 0.
        need: number of picks, <= m.
        accept: asked once for each row that is to be picked; a row that is not accepted covers nothing.

    Returns:
        (need,) int64 indices of rows in the order of the picks; exact ties to the lowest row, as far as rounding shows
        them as such. Fewer if too few are accepted.

    Source:
        Bae, Noh, Sutherland, "Uncertainty herding: one active learning method for all label budgets", ICLR 2025,
        algorithm 1; the lazy evaluation is Minoux, "Accelerated greedy algorithms", 1978.
    """
    m = len(rows_mD)
    everyone_m = torch.arange(m, device=rows_mD.device)
    covered_m = rows_mD.new_zeros(m)
    if len(labelled_LD):
        blocks = torch.split(rows_mD, _BLOCK_ROWS)
        nearest_m = torch.cat([_squares(block, labelled_LD).amin(dim=1) for block in blocks])
        covered_m = (nearest_m / -(width**2)).exp()

    def kernel(index_a: Tensor, others_mD: Tensor) -> Tensor:
        return _squares(rows_mD[index_a], others_mD).div_(-(width**2)).exp_()

    def gains(index_a: Tensor) -> Tensor:
        return (kernel(index_a, rows_mD) - covered_m).clamp_(min=0) @ weights_m

    def losses(before_m: Tensor) -> Tensor:
        """Return what the picks since then have taken from each row's gain: only what they cover can have changed."""
        changed_c = (covered_m > before_m).nonzero()[:, 0]
        others_cD, weights_c = rows_mD[changed_c], weights_m[changed_c]
        parts = []
        for index_a in torch.split(everyone_m, _BLOCK_ROWS):
            kernel_ac = kernel(index_a, others_cD)
            old_ac = (kernel_ac - before_m[changed_c]).clamp_(min=0)
            parts.append((old_ac - kernel_ac.sub_(covered_m[changed_c]).clamp_(min=0)) @ weights_c)
        return torch.cat(parts)

    # gains of all rows when the coverage was base_m; bounds_m are these, or fresher ones
    base_m, base_gains_m = covered_m, torch.cat([gains(index_a) for index_a in torch.split(everyone_m, _BLOCK_ROWS)])
    bounds_m, fresh_m = base_gains_m.clone(), torch.ones(m, dtype=torch.bool, device=rows_mD.device)
    picks: list[int] = []
    evaluated = 0
    while len(picks) < need:
        best = int(bounds_m.argmax())
        while not fresh_m[best]:
            if evaluated > int((covered_m > base_m).sum()):
                # bringing all rows up to date costs no more than what was spent on single ones
                base_gains_m = (base_gains_m - losses(base_m)).clamp_(min=0)
                base_m, evaluated = covered_m, 0
                bounds_m = torch.where(bounds_m == -torch.inf, -torch.inf, base_gains_m)
                fresh_m.fill_(True)
            else:
                stale_m = torch.where(fresh_m, -torch.inf, bounds_m)
                index_a = stale_m.topk(min(_STALE_ROWS, m)).indices
                index_a = index_a[~fresh_m[index_a]]
                bounds_m[index_a] = gains(index_a)
                fresh_m[index_a] = True
                evaluated += len(index_a)
            best = int(bounds_m.argmax())
        if bounds_m[best] == -torch.inf:
            break
        if not accept(best):
            bounds_m[best], fresh_m[best] = -torch.inf, True
            continue
        picks.append(best)
        covered_m = torch.maximum(covered_m, kernel(everyone_m[best : best + 1], rows_mD)[0])
        bounds_m[best] = -torch.inf
        # what adds nothing now never will: nothing is to be computed for it any more
        fresh_m = bounds_m <= 0
    return torch.tensor(picks, dtype=torch.int64, device=rows_mD.device)


def select(scores: Scores, state: State, batch: Batch, generator: torch.Generator) -> None:
    """Pick, one by one, the sample of the subset that adds most coverage of uncertainty.

    Embeddings are scaled to norm 1; the width of the kernel is the smallest distance between labelled samples that
    differ. Near-copies among them make it tiny, and the choice one by uncertainty alone.

    Args:
        scores: n rows, positions ascending, with ``embeddings``.
        state: from ``prepare``.
        batch: takes the queries in the order of the picks; ties by position. Where all of the subset was offered, the
            choice continues on the next one.
        generator: not read: the subset belongs to the seed of ``prepare``.

    Source:
        Bae, Noh, Sutherland, ICLR 2025, algorithm 1 and section 4, with the subset of the released code.
    """
    rest, labelled_LD = scores, state.embeddings_LD.to(scores.positions_n.device, torch.float64)
    labelled_LD = torch.nn.functional.normalize(labelled_LD, dim=1)
    width = bandwidth(labelled_LD)
    while batch.missing and len(rest):
        kept = keep(rest, state, batch.missing)
        rows_mD = torch.nn.functional.normalize(kept.column("embeddings").to(torch.float64), dim=1)
        weights_m = kept.scores_n.to(torch.float64)
        accept, count = batch.by_row(kept.positions_n), min(batch.missing, len(kept))
        picks = herd(rows_mD, weights_m, labelled_LD, width, count, accept)
        labelled_LD = torch.cat([labelled_LD, rows_mD[picks]])
        rest = rest.take(batch.untouched(rest.positions_n).nonzero()[:, 0])
