"""Dropout masks that belong to samples: the mask of a position is the same in any shard, block or order."""

import torch
from torch import Tensor

from alfamix_core.acquisition import noise


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
    return noise.wide(
        key, positions_n, lambda generator, count: torch.rand(count, width, generator=generator) >= dropout
    )
