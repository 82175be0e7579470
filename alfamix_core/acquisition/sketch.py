"""A narrow sketch of wide rows: their coordinates in the few directions in which they vary most.

It only gives k-means a start; the rows themselves decide in the end. Still, products of fewer bits would lead to other
starts and other queries: call it within ``true_float32``.
"""

import torch
from torch import Tensor

_SAMPLE_ROWS = 4096
_POWER_STEPS = 2
_BLOCK_ROWS = 8192


def sketch(rows_nD: Tensor, sample_m: Tensor, width: int, generator: torch.Generator) -> Tensor:
    """Return the coordinates of rows in the leading directions of a sample of them.

    Args:
        rows_nD: (n, D) float32.
        sample_m: (m,) int64 indices of rows in random order; the first 4,096 are used.
        width: Number of directions d, 1 <= d <= D.
        generator: Generator on the CPU, which draws where the search for the directions begins.

    Returns:
        (n, d) float32, about the mean of the sample.

    Source:
        Halko, Martinsson, Tropp, "Finding structure with randomness", SIAM Review 53, 2011: subspace iteration.
    """
    few_mD = rows_nD[sample_m[:_SAMPLE_ROWS]]
    mean_D = few_mD.mean(dim=0)
    few_mD -= mean_D
    axes_Dd = torch.randn(rows_nD.shape[1], width, generator=generator).to(rows_nD.device)
    for _ in range(_POWER_STEPS):
        axes_Dd = torch.linalg.qr(few_mD.T @ (few_mD @ axes_Dd)).Q
    offset_d = mean_D @ axes_Dd
    return torch.cat([block @ axes_Dd - offset_d for block in torch.split(rows_nD, _BLOCK_ROWS)])
