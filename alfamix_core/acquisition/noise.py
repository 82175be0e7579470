"""Random numbers that belong to a sample: made from (seed, purpose, position), so no shard, block or order shows.

A noise key is ``fold(seed, purpose, …)``; the numbers of a key are a hash of the position. Every purpose has its own
constant here, so that two uses of one seed never meet.
"""

from collections.abc import Callable

import torch
from torch import Tensor

RANDOM_ORDER = 1
"""The ranking of the strategy ``random``."""
KMEANS_SAMPLE = 2
"""The rows among which k-means looks for its start."""
KMEANS_DRAW = 3
"""The draws of greedy k-means++."""
UNIFORM_CHOICE = 4
"""A uniform choice among candidates."""
RANDOM_FILL = 5
"""The order in which a short batch is filled at random."""
K_CENTRE_START = 6
"""The first centre where nothing is labelled."""
BADGE_DRAW = 7
"""The draws of badge, one key per draw."""
GCN_SUBSET = 8
"""The subset of the pool from which gcnal chooses."""
GCN_TRAINING = 9
"""Weights and dropout of gcnal's network."""
MIXING_RATIOS = 10
"""The mixing ratios of ALFA-Mix that are drawn, one key for each cap and anchor."""
DROPOUT_MASKS = 11
"""The masks of the Monte-Carlo passes, one key for each pass and layer."""
POWER_DRAW = 21
"""The numbers that power_margin adds to the logarithm of the margin."""
HEAD_DROPOUT = 22
"""The masks of dropquery's passes, one key per pass."""
FLIPS_FILL = 23
"""The order among samples with equally many flips in dropquery."""
CLUSTER_MEMBER_ORDER = 24
"""The order within a cluster of cluster_margin."""
HERD_SUBSET = 25
"""The subset of the pool from which uherding and maxherding choose."""
KMEANS_SKETCH = 26
"""The start of the search for the directions of k-means' sketch."""
KMEANS_SPLIT = 27
"""The rows at which k-means tries a moved centre, one key per attempt."""
DESIGN_SUBSET = 41
"""The subset of the pool from which bait chooses."""
COVER_SUBSET = 42
"""The subset of the pool from which probcover chooses."""
COVER_CLUSTERS = 43
"""The clusters that probcover takes for classes."""
JOINT_DRAW = 44
"""The joint outcomes that batchbald draws."""
ROW_MARK = 28
"""The factors of the marks by which copies of a row are found."""

_WIDE_ROWS = 256
"""Part of the numbers' definition: changing it changes queries."""

_WRAP = 1 << 64
_GOLDEN = 0x9E3779B97F4A7C15
_FIRST = 0xBF58476D1CE4E5B9
_SECOND = 0x94D049BB133111EB


def _signed(unsigned: int) -> int:
    """Return the int64 whose bits are those of a number in [0, 2^64): torch has no arithmetic on uint64."""
    return unsigned - _WRAP if unsigned >= _WRAP // 2 else unsigned


def _mix(x: int) -> int:
    x = ((x ^ (x >> 30)) * _FIRST) % _WRAP
    x = ((x ^ (x >> 27)) * _SECOND) % _WRAP
    return x ^ (x >> 31)


def _shift(x_n: Tensor, by: int) -> Tensor:
    """Shift right and fill with zeros: ``>>`` on int64 copies the sign."""
    return (x_n >> by) & ((1 << (64 - by)) - 1)


def _mix_all(x_n: Tensor) -> Tensor:
    x_n = (x_n ^ _shift(x_n, 30)) * _signed(_FIRST)
    x_n = (x_n ^ _shift(x_n, 27)) * _signed(_SECOND)
    return x_n ^ _shift(x_n, 31)


def fold(*parts: int) -> int:
    """Return a noise key from integers, such as a seed, a purpose and the number of a draw.

    Args:
        parts: Integers of any size and sign; their order matters.

    Returns:
        A key in [0, 2^64).

    Source:
        The finaliser is that of Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
    """
    noise_key = 0
    for part in parts:
        noise_key = _mix((noise_key + _GOLDEN + part) % _WRAP)
    return noise_key


def bits(noise_key: int, positions_n: Tensor) -> Tensor:
    """Return 64 random bits for each position, as int64 (the bits of an unsigned number).

    Args:
        noise_key: Result of ``fold``.
        positions_n: (n,) int64.

    Returns:
        (n,) int64 on the device of the positions.
    """
    return _mix_all(_mix_all(positions_n * _signed(_GOLDEN) + _signed(noise_key)))


def uniform(noise_key: int, positions_n: Tensor) -> Tensor:
    """Return a uniform number for each position.

    Args:
        noise_key: Result of ``fold``.
        positions_n: (n,) int64.

    Returns:
        (n,) float64 in (0, 1), never 0 or 1: multiples of 2^-53.
    """
    return (_shift(bits(noise_key, positions_n), 12).to(torch.float64) + 0.5) * 2.0**-52


def gumbel(noise_key: int, positions_n: Tensor) -> Tensor:
    """Return a standard Gumbel number for each position: argmax of ln w + gumbel draws with probability w / Σw.

    Args:
        noise_key: Result of ``fold``.
        positions_n: (n,) int64.

    Returns:
        (n,) float64, finite.
    """
    return -torch.log(-torch.log(uniform(noise_key, positions_n)))


def generator(noise_key: int) -> torch.Generator:
    """Return a generator on the CPU for random numbers that belong to no sample.

    Args:
        noise_key: Result of ``fold``.
    """
    return torch.Generator().manual_seed(_signed(noise_key))


def wide(noise_key: int, positions_n: Tensor, draw: Callable[[torch.Generator, int], Tensor]) -> Tensor:
    """Return a row of random numbers for each position, the same whatever other positions are passed.

    Hashing every number would be twenty times slower: a generator draws the rows of 256 positions at a time, in blocks
    that start at multiples of 256, and the rows of the given positions are kept.

    Args:
        noise_key: Result of ``fold``.
        positions_n: (n,) int64 >= 0, ascending.
        draw: Function from a generator and a number of rows to a tensor of that many rows, on the CPU.

    Returns:
        (n, …), the row that ``draw`` returns for each position, on the device of the positions.
    """
    on_cpu_n = positions_n.cpu()
    starts, counts = torch.unique_consecutive(on_cpu_n // _WIDE_ROWS, return_counts=True)
    rows = [draw(torch.Generator(), 0)]
    for block, part_m in zip(starts.tolist(), torch.split(on_cpu_n, counts.tolist()), strict=True):
        rows.append(draw(generator(fold(noise_key, block)), _WIDE_ROWS)[part_m % _WIDE_ROWS])
    return torch.cat(rows).to(positions_n.device)


def normals(noise_key: int, positions_n: Tensor, width: int) -> Tensor:
    """Return a row of standard normal numbers for each position.

    Args:
        noise_key: Result of ``fold``.
        positions_n: (n,) int64 >= 0, ascending.
        width: Numbers per row.

    Returns:
        (n, width) float32 on the device of the positions; drawn on the CPU.
    """
    return wide(noise_key, positions_n, lambda generator, count: torch.randn(count, width, generator=generator))


def draw_seed(generator: torch.Generator) -> int:
    """Draw a seed for ``fold`` from a generator.

    Args:
        generator: Generator on any device; one number is taken from it.

    Returns:
        A seed in [0, 2^63 - 1).
    """
    drawn = torch.randint(2**63 - 1, (1,), generator=generator, device=generator.device, dtype=torch.int64)
    return int(drawn.item())
