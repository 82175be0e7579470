"""A greedy optimal design: rows that lower the variance of a linear model's predictions on the pool.

A row x of weight w adds w x x' to the information M. With F the information of the whole pool, tr(F M⁻¹) is the
remaining variance of a linear model's predictions on the pool; a row lowers it by w x'AFAx / (1 + w x'Ax), A = M⁻¹. Two
numbers per row, x'Ax and x'AFAx, are enough for that, and one product with the rows updates them after each pick.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from alfamix_core.acquisition.blocks import BLOCK_ROWS, map_rows, products

_TILE = 48
"""Among this many rows none falls into an odd tile of a matrix product, see ``blocks``."""


def information(rows_nD: Tensor, weights_n: Tensor) -> Tensor:
    """Return Σ w x x', (D, D) float64, in blocks.

    Args:
        rows_nD: (n, D), any floating dtype.
        weights_n: (n,) float64 >= 0.
    """
    total_DD = torch.zeros(rows_nD.shape[1], rows_nD.shape[1], dtype=torch.float64, device=rows_nD.device)
    for rows_bD, weights_b in zip(torch.split(rows_nD, BLOCK_ROWS), torch.split(weights_n, BLOCK_ROWS), strict=True):
        exact_bD = rows_bD.to(torch.float64)
        total_DD.addmm_(exact_bD.T, exact_bD * weights_b[:, None])
    return total_DD


def inverse(information_DD: Tensor) -> Tensor:
    """Return the inverse, (D, D) float64, of a symmetric matrix with positive eigenvalues."""
    return torch.cholesky_inverse(torch.linalg.cholesky(information_DD))


def _by_row(compute: Callable[[Tensor], Tensor], rows_nD: Tensor) -> Tensor:
    """Apply a function row by row, equal rows to equal bits; few rows are not padded to a whole block."""
    if len(rows_nD) > BLOCK_ROWS:
        return map_rows(compute, rows_nD)
    return compute(pad(rows_nD, (0, 0, 0, -len(rows_nD) % _TILE)))[: len(rows_nD)]


@dataclass
class Design:
    """The state of a greedy search: the inverse, and two numbers per row that follow from it.

    Attributes:
        rows_nD: (n, D) float32, or float64.
        weights_n: (n,) float64 >= 0.
        pool_DD: (D, D) float64, F.
        inverse_DD: (D, D) float64, A.
        spans_n: (n,) float64, x'Ax.
        reaches_n: (n,) float64, x'AFAx.
    """

    rows_nD: Tensor
    weights_n: Tensor
    pool_DD: Tensor
    inverse_DD: Tensor
    spans_n: Tensor
    reaches_n: Tensor

    @staticmethod
    def of(rows_nD: Tensor, weights_n: Tensor, pool_DD: Tensor, inverse_DD: Tensor) -> "Design":
        """Return the design of some rows; 4 n D² operations, in blocks."""

        def numbers(rows_bD: Tensor) -> Tensor:
            exact_bD = rows_bD.to(torch.float64)
            solved_bD = products(exact_bD, inverse_DD)
            span_b = (solved_bD * exact_bD).sum(dim=1)
            return torch.stack([span_b, (products(solved_bD, pool_DD) * solved_bD).sum(dim=1)], dim=1)

        spans_n, reaches_n = _by_row(numbers, rows_nD).unbind(dim=1)
        return Design(rows_nD, weights_n, pool_DD, inverse_DD.clone(), spans_n.clone(), reaches_n.clone())

    def gains(self) -> Tensor:
        """Return the fall of tr(F A) that each row would cause: (n,) float64."""
        return self.weights_n * self.reaches_n / (1 + self.weights_n * self.spans_n)

    def losses(self) -> Tensor:
        """Return the rise of tr(F A) without each row, if all rows are in: (n,) float64."""
        left_n = (1 - self.weights_n * self.spans_n).clamp(min=torch.finfo(torch.float64).tiny)
        return self.weights_n * self.reaches_n / left_n

    def change(self, row: int, sign: int) -> None:
        """Add a row (+1) or remove it (-1) in O(n D + D²), by Sherman and Morrison's formula."""
        row_D = self.rows_nD[row].to(torch.float64)
        weight = sign * float(self.weights_n[row])
        solved_D = self.inverse_DD @ row_D
        share = weight / (1 + weight * float(row_D @ solved_D))
        pulled_D = self.pool_DD @ solved_D
        reached_D = self.inverse_DD @ pulled_D
        kernel_D2 = torch.stack([solved_D, reached_D], dim=1).to(self.rows_nD.dtype)
        both_n2 = _by_row(lambda rows_bD: products(rows_bD, kernel_D2), self.rows_nD).to(torch.float64)
        span_n, reach_n = both_n2.unbind(dim=1)
        self.spans_n -= share * span_n.square()
        self.reaches_n += share * span_n * (share * (solved_D @ pulled_D) * span_n - 2 * reach_n)
        self.inverse_DD.addr_(solved_D, solved_D, alpha=-share)


def forward_backward(
    rows_nD: Tensor, weights_n: Tensor, pool_DD: Tensor, known_DD: Tensor, count: int, ahead: float = 2.0
) -> list[int]:
    """Pick more rows than are wanted, one by one, then drop those whose removal costs least.

    Args:
        rows_nD: (n, D) float32 or float64.
        weights_n: (n,) float64 >= 0.
        pool_DD: (D, D) float64, F.
        known_DD: (D, D) float64, M before the first pick, its ridge included.
        count: Number of rows wanted, <= n.
        ahead: Number of rows picked for each row wanted, >= 1.

    Returns:
        ``count`` rows in the order of the picks; ties go to the lowest row.

    Source:
        Ash, Goel, Krishnamurthy, Kakade, "Gone fishing: neural active learning with Fisher embeddings", NeurIPS 2021,
        algorithm 1; with one row per sample: Huseljic et al., "Fast Fishing: approximating BAIT for efficient and
        scalable deep active image classification", ECML PKDD 2024.
    """
    design = Design.of(rows_nD, weights_n, pool_DD, inverse(known_DD))
    open_n = torch.ones(len(rows_nD), dtype=torch.bool, device=rows_nD.device)
    picks: list[int] = []
    for _ in range(min(len(rows_nD), max(count, int(ahead * count)))):
        best = int(design.gains().masked_fill_(~open_n, -torch.inf).argmax())
        picks.append(best)
        open_n[best] = False
        if len(picks) < len(rows_nD):
            design.change(best, 1)
    if len(picks) <= count:
        return picks
    picked = torch.tensor(picks, device=rows_nD.device)
    rows_mD, weights_m = rows_nD[picked].to(torch.float64), weights_n[picked]
    back = Design.of(rows_mD, weights_m, pool_DD, inverse(known_DD + information(rows_mD, weights_m)))
    stays_m = torch.ones(len(picks), dtype=torch.bool, device=rows_nD.device)
    for _ in range(len(picks) - count):
        least = int(back.losses().masked_fill_(~stays_m, torch.inf).argmin())
        stays_m[least] = False
        back.change(least, -1)
    return picked[stays_m].tolist()
