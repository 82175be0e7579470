"""The features folder: what ``embed`` computed, as parts that are read memory-mapped.

    part-00000.safetensors …   positions (n,) int64 ascending; columns by name: embeddings (n, D), logits (n, K)
    slice.safetensors          the shard's rows of the map: positions, embeddings
    sums.safetensors           the shard's sums for ``evaluation.drift``
    stage.json

The labelled samples' features are one such folder whose parts have ``labels`` in place of positions.
"""

from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

PART_BYTES = 256 * 2**20
SLICE_FILE = "slice.safetensors"
SUMS_FILE = "sums.safetensors"


class FeatureWriter:
    """Writes blocks of columns as parts of at most ``PART_BYTES``, in the order in which they come."""

    def __init__(self, folder: Path, part_bytes: int = PART_BYTES) -> None:
        self._folder = folder
        self._part_bytes = part_bytes
        self._blocks: list[dict[str, Tensor]] = []
        self._bytes = 0
        self._parts = 0

    def add(self, block: dict[str, Tensor]) -> None:
        """Add rows; every block has the same columns."""
        size = sum(column.nbytes for column in block.values())
        if self._blocks and self._bytes + size > self._part_bytes:
            self._flush()
        self._blocks.append(block)
        self._bytes += size

    def close(self) -> None:
        """Write the remaining rows. A folder to which nothing was added has no part."""
        if self._blocks:
            self._flush()

    def _flush(self) -> None:
        columns = {name: torch.cat([block[name] for block in self._blocks]).contiguous() for name in self._blocks[0]}
        save_file(columns, self._folder / f"part-{self._parts:05d}.safetensors")
        self._parts += 1
        self._blocks, self._bytes = [], 0


def read_blocks(folder: Path, rows: int) -> Iterator[dict[str, Tensor]]:
    """Yield the columns of a features folder in order, at most ``rows`` rows at a time, never a whole part."""
    for path in sorted(folder.glob("part-*.safetensors")):
        with safe_open(path, framework="pt") as part:
            columns = {name: part.get_slice(name) for name in part.keys()}  # noqa: SIM118
            total = next(iter(columns.values())).get_shape()[0]
            for start in range(0, total, rows):
                yield {name: column[start : start + rows] for name, column in columns.items()}


def read_all(folder: Path) -> dict[str, Tensor]:
    """Return the columns of a small features folder whole; empty when it has no part."""
    blocks = list(read_blocks(folder, rows=1 << 62))
    return {name: torch.cat([block[name] for block in blocks]) for name in blocks[0]} if blocks else {}
