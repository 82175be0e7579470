"""Rows and how far apart they are: what k-centre and the draws of k-means++ need to know of a space.

No matrix of all pairs exists anywhere: a pass over n rows compares one block of them with a few others at a time, and
reads a block only once, so rows may lie in a memory-mapped file.
"""

from dataclasses import dataclass
from typing import Protocol, Self, TypeVar

import torch
from torch import Tensor

from alfamix_core.acquisition.blocks import products
from alfamix_core.acquisition.probabilities import log_probabilities, without_top

BLOCK_ROWS = 4096
"""Rows of a pass that are in memory in float64 at a time."""
_OTHERS = 512
"""Rows that a block is compared with at a time."""
_EQUAL = 1e-12
"""Squared distances below this share of their terms are rounding of 0 in float64."""


class Points(Protocol):
    """Rows of a space with a dissimilarity: symmetric, >= 0, 0 between equal rows."""

    def __len__(self) -> int:
        """Return n."""
        ...

    def take(self, rows: Tensor | slice) -> Self:
        """Return some of the rows."""
        ...

    def distances(self, others: Self) -> Tensor:
        """Return the dissimilarity of each row to each of m others: (n, m) float64."""
        ...


P = TypeVar("P", bound=Points)


@dataclass(frozen=True)
class Euclidean:
    """Rows compared by their squared Euclidean distance, in float64.

    Attributes:
        rows_nD: (n, D), any floating dtype.
    """

    rows_nD: Tensor

    def __len__(self) -> int:
        return len(self.rows_nD)

    def take(self, rows: Tensor | slice) -> "Euclidean":
        """Return some of the rows."""
        return Euclidean(self.rows_nD[rows])

    def distances(self, others: "Euclidean") -> Tensor:
        """Return squared distances (n, m), exactly 0 where they are rounding of 0."""
        rows_nD, others_mD = self.rows_nD.to(torch.float64), others.rows_nD.to(torch.float64)
        sums_nm = rows_nD.square().sum(dim=1)[:, None] + others_mD.square().sum(dim=1)
        return no_less_than_rounding(sums_nm - 2 * products(rows_nD, others_mD.T), sums_nm)


@dataclass(frozen=True)
class Distributions:
    """Class probabilities compared by half the symmetric Kullback-Leibler divergence.

    Attributes:
        logits_nK: (n, K).
    """

    logits_nK: Tensor

    def __len__(self) -> int:
        return len(self.logits_nK)

    def take(self, rows: Tensor | slice) -> "Distributions":
        """Return some of the rows."""
        return Distributions(self.logits_nK[rows])

    def distances(self, others: "Distributions") -> Tensor:
        """Return ½ Σ_k (p_ik - p_jk)(ln p_ik - ln p_jk), (n, m): no term is below 0, so none cancels another."""
        log_probs_nK, others_mK = log_probabilities(self.logits_nK), log_probabilities(others.logits_nK)
        probs_nK = log_probs_nK.exp()
        distances_nm = probs_nK.new_empty(len(self), len(others))
        for column, log_probs_K in enumerate(others_mK):
            terms_nK = (probs_nK - log_probs_K.exp()) * (log_probs_nK - log_probs_K)
            distances_nm[:, column] = terms_nK.sum(dim=1) / 2
        return distances_nm

    def from_each(self, others: "Distributions") -> Tensor:
        """Return the divergence of each row from the one at its place among n others: (n,)."""
        log_probs_nK, others_nK = log_probabilities(self.logits_nK), log_probabilities(others.logits_nK)
        return ((log_probs_nK.exp() - others_nK.exp()) * (log_probs_nK - others_nK)).sum(dim=1) / 2


@dataclass(frozen=True)
class Gradients:
    """Gradients of the loss of the predicted class with respect to the head's weight: outer products, never formed.

    The gradient of a sample is (p - e_y) zᵀ, K D numbers; two of them have the product (q_i·q_j)(z_i·z_j).

    Attributes:
        logits_nK: (n, K).
        embeddings_nD: (n, D), any floating dtype.
    """

    logits_nK: Tensor
    embeddings_nD: Tensor

    def __len__(self) -> int:
        return len(self.logits_nK)

    def take(self, rows: Tensor | slice) -> "Gradients":
        """Return some of the rows."""
        return Gradients(self.logits_nK[rows], self.embeddings_nD[rows])

    def _factors(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return q (n, K), z (n, D) and ‖q‖² ‖z‖² (n,), in float64."""
        log_probs_nK = log_probabilities(self.logits_nK)
        predicted_n1 = log_probs_nK.argmax(dim=1, keepdim=True)
        # not p_y - 1, which is 0 for every confident sample
        pull_nK = log_probs_nK.exp().scatter(1, predicted_n1, -without_top(log_probs_nK)[:, None])
        rows_nD = self.embeddings_nD.to(torch.float64)
        return pull_nK, rows_nD, pull_nK.square().sum(dim=1) * rows_nD.square().sum(dim=1)

    def squares(self) -> Tensor:
        """Return the squared norm of each gradient, (n,) float64."""
        return self._factors()[2]

    def distances(self, others: "Gradients") -> Tensor:
        """Return squared distances of the gradients (n, m), exactly 0 where they are rounding of 0."""
        pull_nK, rows_nD, squares_n = self._factors()
        pull_mK, others_mD, squares_m = others._factors()
        sums_nm = squares_n[:, None] + squares_m
        return no_less_than_rounding(
            sums_nm - 2 * products(pull_nK, pull_mK.T) * products(rows_nD, others_mD.T), sums_nm
        )


def no_less_than_rounding(squares_nm: Tensor, sums_nm: Tensor) -> Tensor:
    """Return squares that are differences of larger terms, 0 where they are only those terms' rounding."""
    return torch.where(squares_nm <= _EQUAL * sums_nm, 0.0, squares_nm)


def to_nearest(points: P, others: P) -> Tensor:
    """Return the distance of each row of one block to the nearest of the others.

    Args:
        points: n rows, all in memory at once.
        others: m rows.

    Returns:
        (n,) float64; inf where there are no others.
    """
    nearest = None
    for start in range(0, len(others), _OTHERS):
        part_n = points.distances(others.take(slice(start, start + _OTHERS))).amin(dim=1)
        nearest = part_n if nearest is None else torch.minimum(nearest, part_n)
    return points.distances(others).new_full((len(points),), torch.inf) if nearest is None else nearest


def lower(points: P, nearest_n: Tensor, others: P) -> None:
    """Lower each row's distance to the nearest, in place, where one of the others is nearer: one pass over the rows.

    Args:
        points: n rows.
        nearest_n: (n,) float64.
        others: m >= 1 rows.
    """
    for start in range(0, len(points), BLOCK_ROWS):
        part = slice(start, start + BLOCK_ROWS)
        nearest_n[part] = torch.minimum(nearest_n[part], to_nearest(points.take(part), others))
