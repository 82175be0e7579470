"""Uncertainty herding: query the samples that cover most of the pool's uncertainty, weighted by nearness.

Needs embeddings, logits and the labelled embeddings. Scoring costs N K; the choice works on a random subset of m
samples, m = 35,000: m L D for the labelled samples, m² D for the first gains, then between B m D and some m² D ln B for
the picks, in memory m (D + a block). Exact under sharding: the subset are the m smallest random numbers of seed and
position, so each shard sends its own m smallest.

Choose it where the budget grows from a handful to many over the rounds: with few labels it covers like
``typiclust``, with many it asks the uncertain like ``margin``, without a switch to set.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from alfamix_core.acquisition import noise, subset
from alfamix_core.acquisition.batch import Batch
from alfamix_core.acquisition.points import pair_squares
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
    """The labelled samples, which cover from the start, and how uncertainty is measured.

    Attributes:
        embeddings_LD: (L, D) of the labelled samples; L may be 0.
        tunables: Temperature, kind of uncertainty and size of the subset.
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
        tunables: Temperature, kind of uncertainty and size of the subset.
        seed: Seed of the subset.

    Returns:
        The state.
    """
    return State(labelled.embeddings_LD, tunables, noise.fold(seed, noise.HERD_SUBSET))


def score(block: Features, state: State) -> Scores:
    """Score each sample by its uncertainty at the temperature; 1 for all while nothing is labelled.

    Args:
        block: n pool samples; positions, logits (n, K) and embeddings (n, D) are read.
        state: Result of ``prepare``.

    Returns:
        scores_n >= 0, the uncertainty; the choice weighs it. ``select`` reads the row ``embeddings``.

    Raises:
        InputError: There are fewer than two classes.
    """
    assert block.embeddings_nD is not None
    measure, divisor = _UNCERTAINTIES[state.tunables.uncertainty], state.tunables.temperature
    scores = score_logits(block, lambda log_probs_nK: measure((log_probs_nK / divisor).log_softmax(dim=1)))
    scores_n = scores.scores_n if len(state.embeddings_LD) else torch.ones_like(scores.scores_n)
    return Scores(block.positions_n, scores_n, {"embeddings": block.embeddings_nD})


def keep(scores: Scores, state: State, reach: int) -> Scores:
    """Return the subset: the max(m, reach) rows with the smallest random numbers, in position order."""
    return subset.smallest(scores, state.noise_key, max(state.tunables.subset, reach))


def bandwidth(rows_LD: Tensor) -> float:
    """Return the smallest distance between two rows that differ, 1 if there are none.

    Args:
        rows_LD: (L, D) float64 of norm 1 (or 0).

    Returns:
        The distance, > 0.
    """
    smallest = math.inf
    for start in range(0, len(rows_LD), _BLOCK_ROWS):
        squares_mL = pair_squares(rows_LD[start : start + _BLOCK_ROWS], rows_LD[start:], _EQUAL)
        smallest = min(smallest, float(torch.where(squares_mL > 0, squares_mL, torch.inf).min()))
    return math.sqrt(smallest) if smallest < math.inf else 1.0


class _Coverage:
    """The coverage of the pool, and the gain of each further row.

    Attributes:
        bounds_m: (m,) float64, upper bounds of what each row adds; -inf for a row that is out of the choice.
        fresh_m: (m,) bool, rows whose bound is what they add.
    """

    def __init__(self, rows_mD: Tensor, weights_m: Tensor, labelled_LD: Tensor, width: float):
        """Cover what the labelled samples cover; see ``herd``."""
        self._rows_mD, self._weights_m, self._width = rows_mD, weights_m, width
        self._blocks = torch.split(torch.arange(len(rows_mD), device=rows_mD.device), _BLOCK_ROWS)
        self._covered_m = rows_mD.new_zeros(len(rows_mD))
        if len(labelled_LD):
            nearest = [pair_squares(rows_mD[index_a], labelled_LD, _EQUAL).amin(dim=1) for index_a in self._blocks]
            self._covered_m = (torch.cat(nearest) / -(width**2)).exp()
        # the gains of all rows at the coverage base_m; bounds_m are these, or fresher ones
        self._base_m, self._base_gains_m = self._covered_m, torch.cat([self._gains(part) for part in self._blocks])
        self.bounds_m, self.fresh_m = self._base_gains_m.clone(), torch.ones_like(weights_m, dtype=torch.bool)
        self._evaluated = 0

    def _kernel(self, index_a: Tensor | slice, others_mD: Tensor) -> Tensor:
        return pair_squares(self._rows_mD[index_a], others_mD, _EQUAL).div_(-(self._width**2)).exp_()

    def _gains(self, index_a: Tensor) -> Tensor:
        return (self._kernel(index_a, self._rows_mD) - self._covered_m).clamp_(min=0) @ self._weights_m

    def _losses(self) -> Tensor:
        """Return the loss of each row's gain since the base, from the rows whose coverage changed."""
        changed_c = (self._covered_m > self._base_m).nonzero()[:, 0]
        others_cD, weights_c = self._rows_mD[changed_c], self._weights_m[changed_c]
        before_c, after_c = self._base_m[changed_c], self._covered_m[changed_c]
        parts = []
        for index_a in self._blocks:
            kernel_ac = self._kernel(index_a, others_cD)
            old_ac = (kernel_ac - before_c).clamp_(min=0)
            parts.append((old_ac - kernel_ac.sub_(after_c).clamp_(min=0)) @ weights_c)
        return torch.cat(parts)

    def leader(self) -> int:
        """Return the row that adds most, ties to the lowest."""
        best = int(self.bounds_m.argmax())
        while not self.fresh_m[best]:
            if self._evaluated > int((self._covered_m > self._base_m).sum()):
                # bringing all rows up to date costs no more than what was spent on single ones
                self._base_gains_m = (self._base_gains_m - self._losses()).clamp_(min=0)
                self._base_m, self._evaluated = self._covered_m, 0
                self.bounds_m = torch.where(self.bounds_m == -torch.inf, -torch.inf, self._base_gains_m)
                self.fresh_m.fill_(True)
            else:
                stale_m = torch.where(self.fresh_m, -torch.inf, self.bounds_m)
                index_a = stale_m.topk(min(_STALE_ROWS, len(stale_m))).indices
                index_a = index_a[~self.fresh_m[index_a]]
                self.bounds_m[index_a] = self._gains(index_a)
                self.fresh_m[index_a] = True
                self._evaluated += len(index_a)
            best = int(self.bounds_m.argmax())
        return best

    def leave_out(self, row: int) -> None:
        """Take a row out of the choice."""
        self.bounds_m[row], self.fresh_m[row] = -torch.inf, True

    def add(self, row: int) -> None:
        """Cover what a row covers, and take it out of the choice."""
        kernel_m = self._kernel(slice(row, row + 1), self._rows_mD)[0]
        self._covered_m = torch.maximum(self._covered_m, kernel_m)
        self.leave_out(row)
        # a row that adds nothing now never will: nothing is computed for it any more
        self.fresh_m = self.bounds_m <= 0


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
    The picks are those of the loop that computes all, at no more than about ln ``need`` times the cost of the first
    pass.

    Args:
        rows_mD: (m, D) float64.
        weights_m: (m,) float64 >= 0.
        labelled_LD: (L, D) float64, rows that cover from the start; L may be 0.
        width: Width of the kernel, > 0.
        need: Number of picks, <= m.
        accept: Answer for each row that is to be picked, asked once; a row that is not accepted covers nothing.

    Returns:
        (need,) int64 indices of rows in the order of the picks; exact ties to the lowest row, as far as rounding shows
        them as such. Fewer if too few are accepted.

    Source:
        Bae, Noh, Sutherland, "Uncertainty herding: one active learning method for all label budgets", ICLR 2025,
        algorithm 1; the lazy evaluation is Minoux, "Accelerated greedy algorithms", 1978.
    """
    coverage = _Coverage(rows_mD, weights_m, labelled_LD, width)
    picks: list[int] = []
    while len(picks) < need:
        best = coverage.leader()
        if coverage.bounds_m[best] == -torch.inf:
            break
        if accept(best):
            picks.append(best)
            coverage.add(best)
        else:
            coverage.leave_out(best)
    return torch.tensor(picks, dtype=torch.int64, device=rows_mD.device)


def select(scores: Scores, state: State, batch: Batch, generator: torch.Generator) -> None:
    """Pick, one by one, the sample of the subset that adds most coverage of uncertainty.

    Embeddings are scaled to norm 1; the width of the kernel is the smallest distance between labelled samples that
    differ. Near-copies among them make it tiny, and the choice is then by uncertainty alone.

    Args:
        scores: n rows, positions ascending, with ``embeddings``.
        state: Result of ``prepare``.
        batch: Batch that receives the queries in the order of the picks; ties by position. Where all of the subset was
            offered, the choice continues on the next one.
        generator: Not read: the subset belongs to the seed of ``prepare``.

    Source:
        Bae, Noh, Sutherland, ICLR 2025, algorithm 1 and section 4, with the subset of the released code.
    """
    labelled_LD = state.embeddings_LD.to(scores.positions_n.device, torch.float64)
    labelled_LD = torch.nn.functional.normalize(labelled_LD, dim=1)
    width = bandwidth(labelled_LD)
    for kept in subset.in_turns(scores, state, batch, keep):
        rows_mD = torch.nn.functional.normalize(kept.column("embeddings").to(torch.float64), dim=1)
        weights_m = kept.scores_n.to(torch.float64)
        accept, count = batch.by_row(kept.positions_n), min(batch.missing, len(kept))
        picks = herd(rows_mD, weights_m, labelled_LD, width, count, accept)
        labelled_LD = torch.cat([labelled_LD, rows_mD[picks]])
