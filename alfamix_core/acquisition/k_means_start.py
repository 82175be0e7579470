"""Greedy k-means++: of a few rows drawn in proportion to their distance, keep the one that leaves the smallest sum."""

import math

import torch
from torch import Tensor

_SAME = 8 * torch.finfo(torch.float32).eps
"""Distances below this share of the squares that they are computed from are rounding."""


def greedy_start(rows_mD: Tensor, count: int, uniform_BT: Tensor) -> Tensor:
    """Choose rows one by one, far from each other.

    Each time T rows are drawn with probability proportional to the squared distance to the nearest chosen row, and the
    row that makes the sum of these distances smallest is kept. The first row of the input is the first chosen. Once
    every row coincides with a chosen one, the rest are the first rows not yet chosen. Distances are differences of
    products: call this within ``true_float32``.

    Args:
        rows_mD: (m, D) float32 about a point near their mean, in random order.
        count: Number of rows B to choose, 1 <= B <= m.
        uniform_BT: (B, T) float64 in (0, 1), the draws. The first row is not used.

    Returns:
        (B,) int64 indices of rows, distinct, in the order of the choice.

    Source:
        Arthur, Vassilvitskii, "k-means++: the advantages of careful seeding", SODA 2007, the greedy form of section 5.
    """
    squares_m = rows_mD.square().sum(dim=1)
    uniform_BT = uniform_BT.cpu()
    chosen = [0]
    nearest_m = _distances(rows_mD, squares_m, torch.zeros(1, dtype=torch.int64, device=rows_mD.device))[0]
    while len(chosen) < count:
        # CUDA adds up running sums in no defined order
        sums_m = nearest_m.cpu().cumsum(dim=0, dtype=torch.float64)
        if sums_m[-1] == 0:
            break
        drawn_T = torch.searchsorted(sums_m, uniform_BT[len(chosen)] * sums_m[-1]).clamp_(max=len(rows_mD) - 1)
        drawn_T = drawn_T.to(rows_mD.device)
        after_Tm = torch.minimum(_distances(rows_mD, squares_m, drawn_T), nearest_m)
        best = int(after_Tm.sum(dim=1).argmin())
        nearest_m = after_Tm[best]
        chosen.append(int(drawn_T[best]))
    left_m = torch.ones(len(rows_mD), dtype=torch.bool, device=rows_mD.device)
    start_m = torch.tensor(chosen, device=rows_mD.device)
    left_m[start_m] = False
    return torch.cat([start_m, left_m.nonzero()[:, 0]])[:count]


def trials(count: int) -> int:
    """Return the number of rows drawn for each of ``count`` choices: 2 + ln B, the usual number."""
    return 2 + int(math.log(count))


def _distances(rows_mD: Tensor, squares_m: Tensor, chosen_T: Tensor) -> Tensor:
    """Return the squared distances of the chosen rows to all: (T, m); 0 to itself and to rows that equal it."""
    about_Tm = squares_m[chosen_T, None] + squares_m
    squares_Tm = torch.addmm(about_Tm, rows_mD[chosen_T], rows_mD.T, alpha=-2)
    squares_Tm.masked_fill_(squares_Tm <= _SAME * about_Tm, 0.0)
    return squares_Tm
