"""Dropout masks that belong to samples: the mask of a position is the same in any shard, block or order.

Hashing every element would be twenty times too slow, so a generator draws whole blocks of positions that start at
multiples of ``BLOCK_POSITIONS``, and the rows at hand are kept.
"""

import torch
from torch import Tensor

from alfamix_core.acquisition import noise

BLOCK_POSITIONS = 256
"""Positions whose masks are drawn together. Part of the numbers' definition: changing it changes queries."""

_LARGEST_SEED = 1 << 63


def kept(key: int, positions_n: Tensor, width: int, dropout: float) -> Tensor:
    """Return for each position which of its elements survive dropout.

    Args:
        key: from ``noise.fold``: seed, purpose, pass.
        positions_n: (n,) int64, ascending.
        width: elements a row, D.
        dropout: probability that an element is dropped, in [0, 1).

    Returns:
        (n, D) bool on the device of the positions, from numbers drawn on the CPU.
    """
    mask_nD = torch.empty((len(positions_n), width), dtype=torch.bool)
    blocks, counts = torch.unique_consecutive(positions_n.cpu() // BLOCK_POSITIONS, return_counts=True)
    start = 0
    for block, count in zip(blocks.tolist(), counts.tolist(), strict=True):
        rows_m = positions_n[start : start + count].cpu() - block * BLOCK_POSITIONS
        generator = torch.Generator().manual_seed(noise.fold(key, block) % _LARGEST_SEED)
        numbers = torch.rand((BLOCK_POSITIONS, width), generator=generator)
        mask_nD[start : start + count] = numbers[rows_m] >= dropout
        start += count
    return mask_nD.to(positions_n.device)
