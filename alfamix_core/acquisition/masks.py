"""Dropout masks that belong to samples: the mask of a position is the same in any shard, block or order."""

import torch
from torch import Tensor

from alfamix_core.acquisition import noise


def kept(noise_key: int, positions_n: Tensor, width: int, dropout: float) -> Tensor:
    """Return a mask of the elements that survive dropout, for each position.

    Args:
        noise_key: Result of ``noise.fold`` for seed, purpose and pass.
        positions_n: (n,) int64, ascending.
        width: Elements per row, D.
        dropout: Probability that an element is dropped, in [0, 1).

    Returns:
        (n, D) bool on the device of the positions, from numbers drawn on the CPU.
    """
    return noise.wide(
        noise_key, positions_n, lambda generator, count: torch.rand(count, width, generator=generator) >= dropout
    )
