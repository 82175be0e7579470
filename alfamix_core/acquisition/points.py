"""Rows and the distances between them, as k-centre and the draws of k-means++ need them.

No matrix of all pairs exists anywhere: a pass over n rows compares one block of them with a few others at a time, and
reads a block only once, so rows may lie in memory-mapped files: only the rows taken are in memory.
"""

import math
from dataclasses import dataclass
from typing import Protocol, Self, TypeVar

import torch
from torch import Tensor

from alfamix_core.acquisition.blocks import products
from alfamix_core.acquisition.precision import true_float32
from alfamix_core.acquisition.probabilities import log_probabilities, without_top
from alfamix_core.acquisition.rows import Column, whole

BLOCK_ROWS = 2048
"""Rows of a pass that are in memory at a time."""
_OTHERS = 512
"""Rows that a block is compared with at a time."""
_PAIRS = 1024
"""Pairs of rows whose distance is computed at a time."""
_EQUAL = 1e-12
"""Squared distances below this share of their terms are rounding of 0 in float64."""
_LARGEST = 1e37
"""Squared norms up to this have products, and sums of them, within float32."""


class Points(Protocol):
    """Rows of a space with a dissimilarity: symmetric, >= 0, 0 between equal rows."""

    def __len__(self) -> int:
        """Return n."""
        ...

    def take(self, rows: Tensor | slice) -> Self:
        """Return some of the rows."""
        ...

    def for_passes(self) -> Self:
        """Return the same rows with numbers that are worth storing for several passes, a few per row."""
        return self

    def distances(self, others: Self) -> Tensor:
        """Return the dissimilarity of each row to each of m others: (n, m) float64."""
        ...

    def nearest(self, others: Self, within_n: Tensor) -> Tensor:
        """Return the distance to the nearest of m others, ``within_n`` where none is nearer: (n,) float64."""
        for start in range(0, len(others), _OTHERS):
            part_n = self.distances(others.take(slice(start, start + _OTHERS))).amin(dim=1)
            within_n = torch.minimum(within_n, part_n)
        return within_n

    def at_most(self, others: Self) -> Tensor:
        """Return upper bounds of the distance to the nearest of m >= 1 others, at the lowest cost: (n,)."""
        return to_nearest(self, others)


P = TypeVar("P", bound=Points)


def coarse_mean(rows_nD: Tensor) -> Tensor:
    """Return the mean row rounded to a grid of 8 to 16 times the spread of the rows: (D,) float64.

    An offset much larger than the spread would lose products in the rounding of float32, so it is removed; an ordinary
    one rounds to 0, so that equal rows stay exactly equal.
    """
    blocks, zeros_D = torch.split(rows_nD, BLOCK_ROWS), torch.zeros_like(rows_nD[0], dtype=torch.float64)
    mean_D = sum((block.sum(dim=0, dtype=torch.float64) for block in blocks), zeros_D) / len(rows_nD)
    squares_D = sum(((block.to(torch.float64) - mean_D).square_().sum(dim=0) for block in blocks), zeros_D)
    spread = float((squares_D.mean() / len(rows_nD)).sqrt())
    if spread == 0:
        return zeros_D
    grid = 2.0 ** math.ceil(math.log2(8 * spread))
    return (mean_D / grid).round() * grid


@dataclass(frozen=True)
class Euclidean(Points):
    """Rows compared by their squared Euclidean distance, the float64 sum of the squares of their differences.

    The bits of a distance depend on its two rows alone. Products in float32 bound it; it is computed only where the
    bounds do not decide.

    Attributes:
        rows_nD: (n, D), any floating dtype, in memory or not.
        centre_D: (D,) row that is subtracted before the products; None to make it from the other rows.
        squares_n: (n,) float32, squared norms of the rows minus the centre; None until ``for_passes`` stores them.
    """

    rows_nD: Column
    centre_D: Tensor | None = None
    squares_n: Tensor | None = None

    def __len__(self) -> int:
        return len(self.rows_nD)

    def take(self, rows: Tensor | slice) -> "Euclidean":
        """Return some of the rows."""
        squares_n = self.squares_n
        return Euclidean(self.rows_nD[rows], self.centre_D, None if squares_n is None else squares_n[rows])

    def for_passes(self) -> "Euclidean":
        """Return the same rows with their squared norms: one pass now saves computing them in every later pass."""
        D, device = self.rows_nD.shape[1], self.rows_nD.device
        centre_D = coarse_mean(self.rows_nD[:_OTHERS]) if len(self) else torch.zeros(D, device=device)
        squares_n = torch.empty(len(self), dtype=torch.float32, device=device)
        for start in range(0, len(self), BLOCK_ROWS):
            part = slice(start, start + BLOCK_ROWS)
            squares_n[part] = _squares(_centred(self.rows_nD[part], centre_D))
        return Euclidean(self.rows_nD, centre_D, squares_n)

    def distances(self, others: "Euclidean") -> Tensor:
        """Return squared distances (n, m)."""
        distances_nm = torch.empty(len(self), len(others), dtype=torch.float64, device=self.rows_nD.device)
        for start in range(0, len(self), _PAIRS):
            rows_nD = self.rows_nD[start : start + _PAIRS].to(torch.float64)
            for column, other_D in enumerate(whole(others.rows_nD).to(torch.float64)):
                distances_nm[start : start + _PAIRS, column] = (rows_nD - other_D).square_().sum(dim=1)
        return distances_nm

    def nearest(self, others: "Euclidean", within_n: Tensor) -> Tensor:
        """Return the squared distance to the nearest of m others, or ``within_n``, computed for a few pairs only."""
        within_n = within_n.clone()
        for start in range(0, len(others), _OTHERS):
            part = others.take(slice(start, start + _OTHERS))
            least_mn, slack_n = self._least(part)
            most_n = torch.minimum(within_n, least_mn.amin(dim=0) + slack_n).to(torch.float32)
            # NaN, products beyond float32, is not above anything
            others_p, rows_p = (~(least_mn > most_n)).nonzero().unbind(dim=1)
            for some_p, of_p in zip(torch.split(rows_p, _PAIRS), torch.split(others_p, _PAIRS), strict=True):
                # many copies of one row are at 0 already
                apart_p = within_n[some_p] > 0
                some_p, of_p = some_p[apart_p], of_p[apart_p]
                differences_pD = self.rows_nD[some_p].to(torch.float64) - part.rows_nD[of_p]
                within_n.scatter_reduce_(0, some_p, differences_pD.square_().sum(dim=1), "amin")
        return within_n

    def at_most(self, others: "Euclidean") -> Tensor:
        """Return upper bounds of the squared distance to the nearest of m >= 1 others, float64, from float32."""
        most_n = _inf(self)
        for start in range(0, len(others), _OTHERS):
            least_mn, slack_n = self._least(others.take(slice(start, start + _OTHERS)))
            most_n = torch.minimum(most_n, (least_mn.amin(dim=0) + slack_n).nan_to_num(nan=torch.inf))
        return most_n.clamp(min=0)

    def _least(self, others: "Euclidean") -> tuple[Tensor, Tensor]:
        """Return lower bounds of the squared distances, (m, n) float32, and the most that one exceeds its bound, (n,).

        A product of float32 differs from the exact one by at most D u/(1 - D u) ‖z‖‖c‖ in any order of its terms,
        u = 2⁻²⁴: Higham, "Accuracy and stability of numerical algorithms", 2002, section 3.1. As 2‖z‖‖c‖ <= ‖z‖² +
        ‖c‖², this and the rounding of norms and sums stay below (2 D + 32) u (‖z‖² + ‖c‖²); products that underflow
        are added. NaN where values exceed float32.
        """
        D = self.rows_nD.shape[1]
        share, lost = (2 * D + 32) * 2.0**-24, D * 1e-36
        own_nD, other_mD = whole(self.rows_nD), whole(others.rows_nD)
        centre_D = coarse_mean(other_mD) if self.centre_D is None else self.centre_D
        rows_nD, others_mD = _centred(own_nD, centre_D), _centred(other_mD, centre_D)
        squares_n = _squares(rows_nD) if self.squares_n is None else self.squares_n
        squares_m = _squares(others_mD)
        with true_float32():
            least_mn = (-2 * others_mD) @ rows_nD.T
        least_mn += ((1 - share) * squares_m)[:, None]
        least_mn += (1 - share) * squares_n - lost
        return least_mn, 2 * (share * (squares_n.to(torch.float64) + squares_m.max()) + lost)


def _inf(points: P) -> Tensor:
    return points.distances(points.take(slice(0, 0))).new_full((len(points),), torch.inf)


def _centred(rows_nD: Tensor, centre_D: Tensor) -> Tensor:
    """Return float32 rows, each element rounded once or twice."""
    if bool(centre_D.any()):
        rows_nD = rows_nD.to(torch.promote_types(rows_nD.dtype, torch.float32))
        rows_nD = rows_nD - centre_D.to(rows_nD.dtype)
    return rows_nD.to(torch.float32)


def _squares(rows_nD: Tensor) -> Tensor:
    """Return squared norms, NaN where products of such rows could overflow."""
    squares_n = torch.linalg.vector_norm(rows_nD, dim=1).square()
    return torch.where(squares_n < _LARGEST, squares_n, torch.nan)


@dataclass(frozen=True)
class Distributions(Points):
    """Class probabilities compared by half the symmetric Kullback-Leibler divergence.

    Attributes:
        logits_nK: (n, K), in memory or not.
    """

    logits_nK: Column

    def __len__(self) -> int:
        return len(self.logits_nK)

    def take(self, rows: Tensor | slice) -> "Distributions":
        """Return some of the rows."""
        return Distributions(self.logits_nK[rows])

    def _log_probs(self) -> Tensor:
        return log_probabilities(whole(self.logits_nK))

    def distances(self, others: "Distributions") -> Tensor:
        """Return ½ Σ_k (p_ik - p_jk)(ln p_ik - ln p_jk), (n, m): no term is below 0, so none cancels another."""
        log_probs_nK, others_mK = self._log_probs(), others._log_probs()
        probs_nK = log_probs_nK.exp()
        distances_nm = probs_nK.new_empty(len(self), len(others))
        for column, log_probs_K in enumerate(others_mK):
            terms_nK = (probs_nK - log_probs_K.exp()) * (log_probs_nK - log_probs_K)
            distances_nm[:, column] = terms_nK.sum(dim=1) / 2
        return distances_nm

    def from_each(self, others: "Distributions") -> Tensor:
        """Return the divergence of each row from the row with the same index among n others: (n,)."""
        log_probs_nK, others_nK = self._log_probs(), others._log_probs()
        return ((log_probs_nK.exp() - others_nK.exp()) * (log_probs_nK - others_nK)).sum(dim=1) / 2


@dataclass(frozen=True)
class _Pulls:
    """Numbers of each row that passes over gradients need beside its factors, all (n,).

    Attributes:
        norms_n: Log-sum-exp of the logits, float64.
        predicted_n: Predicted class y, int64.
        rests_n: Sum of the other classes' probabilities, float64.
        squares_n: Squared norm of the gradient, float64.
    """

    norms_n: Tensor
    predicted_n: Tensor
    rests_n: Tensor
    squares_n: Tensor

    def take(self, rows: Tensor | slice) -> "_Pulls":
        """Return some of the rows."""
        return _Pulls(self.norms_n[rows], self.predicted_n[rows], self.rests_n[rows], self.squares_n[rows])

    @staticmethod
    def join(parts: "list[_Pulls]") -> "_Pulls":
        """Return the rows of all parts."""
        return _Pulls(
            torch.cat([part.norms_n for part in parts]),
            torch.cat([part.predicted_n for part in parts]),
            torch.cat([part.rests_n for part in parts]),
            torch.cat([part.squares_n for part in parts]),
        )


@dataclass(frozen=True)
class Gradients(Points):
    """Gradients of the loss of the predicted class with respect to the head's weight: outer products, never formed.

    The gradient of a sample is (p - e_y) zᵀ, K D numbers; two of them have the product (q_i·q_j)(z_i·z_j).

    Attributes:
        logits_nK: (n, K), in memory or not.
        embeddings_nD: (n, D), any floating dtype, in memory or not.
        known: Numbers that passes need besides; None until ``for_passes`` stores them.
    """

    logits_nK: Column
    embeddings_nD: Column
    known: "_Pulls | None" = None

    def __len__(self) -> int:
        return len(self.logits_nK)

    def take(self, rows: Tensor | slice) -> "Gradients":
        """Return some of the rows."""
        known = None if self.known is None else self.known.take(rows)
        return Gradients(self.logits_nK[rows], self.embeddings_nD[rows], known)

    def for_passes(self) -> "Gradients":
        """Return the same rows with their norms and softmax sums: one pass now saves time in later ones."""
        starts = range(0, max(len(self), 1), BLOCK_ROWS)
        pulls = [self.take(slice(start, start + BLOCK_ROWS))._pulls() for start in starts]
        return Gradients(self.logits_nK, self.embeddings_nD, _Pulls.join(pulls))

    def _pulls(self) -> "_Pulls":
        if self.known is not None:
            return self.known
        logits_nK, rows_nD = whole(self.logits_nK), whole(self.embeddings_nD)
        log_probs_nK = log_probabilities(logits_nK)
        predicted_n = log_probs_nK.argmax(dim=1)
        rest_n = without_top(log_probs_nK)
        norm_n = logits_nK.to(torch.float64).logsumexp(dim=1)
        # not p_y - 1, which is 0 for every confident sample
        pull_nK = log_probs_nK.exp_().scatter_(1, predicted_n[:, None], -rest_n[:, None])
        lengths_n = torch.linalg.vector_norm(rows_nD, dim=1, dtype=torch.float64)
        squares_n = torch.linalg.vector_norm(pull_nK, dim=1).square() * lengths_n.square()
        return _Pulls(norm_n, predicted_n, rest_n, squares_n)

    def _factors(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return q (n, K), z (n, D) and ‖q‖² ‖z‖² (n,), in float64."""
        pulls = self._pulls()
        pull_nK = (whole(self.logits_nK) - pulls.norms_n[:, None]).exp_()
        pull_nK.scatter_(1, pulls.predicted_n[:, None], -pulls.rests_n[:, None])
        return pull_nK, whole(self.embeddings_nD).to(torch.float64), pulls.squares_n

    def squares(self) -> Tensor:
        """Return the squared norm of each gradient, (n,) float64."""
        return self._pulls().squares_n

    def distances(self, others: "Gradients") -> Tensor:
        """Return squared distances of the gradients (n, m), exactly 0 where they are rounding of 0."""
        pull_nK, rows_nD, squares_n = self._factors()
        pull_mK, others_mD, squares_m = others._factors()
        sums_nm = squares_n[:, None] + squares_m
        return no_less_than_rounding(
            sums_nm - 2 * products(pull_nK, pull_mK.T) * products(rows_nD, others_mD.T), sums_nm
        )


def pair_squares(rows_aD: Tensor, rows_bD: Tensor, rounding: float = 0.0) -> Tensor:
    """Return the squared distances of all pairs of rows, from products.

    Args:
        rows_aD: (a, D) float64 of length about 1, or 0.
        rows_bD: (b, D) float64, likewise.
        rounding: Largest square that counts as rounding of 0, >= 0.

    Returns:
        (a, b) float64 >= 0.
    """
    sums_ab = rows_aD.square().sum(dim=1)[:, None] + rows_bD.square().sum(dim=1)
    squares_ab = torch.addmm(sums_ab, rows_aD, rows_bD.T, alpha=-2)
    return torch.threshold_(squares_ab, rounding, 0.0)


def no_less_than_rounding(squares_nm: Tensor, sums_nm: Tensor) -> Tensor:
    """Return squares that are differences of larger terms; 0 where only the rounding of these is left."""
    return torch.where(squares_nm <= _EQUAL * sums_nm, 0.0, squares_nm)


def to_nearest(points: P, others: P) -> Tensor:
    """Return the distance of each row of one block to the nearest of the others: (n,) float64, inf without others."""
    return points.nearest(others, _inf(points))


def lower(points: P, nearest_n: Tensor, others: P) -> None:
    """Lower each row's distance to the nearest, in place, where one of the others is nearer, in one pass over the rows.

    Args:
        points: n rows.
        nearest_n: (n,) float64.
        others: m rows.
    """
    for start in range(0, len(points), BLOCK_ROWS):
        part = slice(start, start + BLOCK_ROWS)
        nearest_n[part] = points.take(part).nearest(others, nearest_n[part])


def lower_bounds(points: P, bounds_n: Tensor, others: P) -> None:
    """Lower upper bounds of each row's distance to the nearest, in place, in one pass that is cheaper than ``lower``.

    Args:
        points: n rows.
        bounds_n: (n,) float64.
        others: m >= 1 rows.
    """
    for start in range(0, len(points), BLOCK_ROWS):
        part = slice(start, start + BLOCK_ROWS)
        bounds_n[part] = torch.minimum(bounds_n[part], points.take(part).at_most(others))
