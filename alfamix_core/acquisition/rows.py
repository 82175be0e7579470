"""Rows of a wide column that lie in several places, such as memory-mapped files, and are read when they are taken."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

_BLOCK_ROWS = 2048


@dataclass(frozen=True)
class Rows:
    """The rows of several tensors, one after another, or some of them in any order; never concatenated.

    Taking rows by index or slice copies those rows alone, so a pass in blocks holds one block in memory, and 8 bytes
    per row if only some of the rows count.

    Attributes:
        parts: One or more tensors (n_i, X) of one dtype and device.
        index_n: (n,) int64, indices of the rows that count, with the rows of all parts numbered consecutively; None for
            all rows in order.
        target: Device that rows are moved to when they are taken; None for the device of the parts.
    """

    parts: tuple[Tensor, ...]
    index_n: Tensor | None = None
    target: torch.device | None = None

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts) if self.index_n is None else len(self.index_n)

    @property
    def shape(self) -> torch.Size:
        """Shape (n, X) of all rows."""
        return torch.Size((len(self), *self.parts[0].shape[1:]))

    @property
    def dtype(self) -> torch.dtype:
        """Type of every part."""
        return self.parts[0].dtype

    @property
    def device(self) -> torch.device:
        """Device of the rows that are taken."""
        return self.parts[0].device if self.target is None else self.target

    def on(self, device: torch.device) -> "Rows":
        """Return the same rows, which move to a device when they are taken."""
        return Rows(self.parts, self.index_n, device)

    def __getitem__(self, rows: Tensor | slice) -> Tensor:
        """Return rows by (m,) indices, or a slice with step 1, as one tensor (m, X)."""
        return self._here(rows).to(self.device)

    def _here(self, rows: Tensor | slice) -> Tensor:
        if isinstance(rows, Tensor):
            rows = rows.to(self.parts[0].device)
            return self._gather(rows if self.index_n is None else self.index_n[rows])
        if self.index_n is not None:
            return self._gather(self.index_n[rows])
        first, last, _ = rows.indices(len(self))
        pieces, start = [], 0
        for part in self.parts:
            stop = start + len(part)
            if first < stop and last > start:
                pieces.append(part[max(first - start, 0) : last - start])
            start = stop
        if not pieces:
            return self.parts[0][:0]
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces)

    def _gather(self, index_m: Tensor) -> Tensor:
        if len(self.parts) == 1:
            return self.parts[0][index_m]
        gathered_mX = self.parts[0].new_empty((len(index_m), *self.shape[1:]))
        start = 0
        for part in self.parts:
            here_m = ((index_m >= start) & (index_m < start + len(part))).nonzero()[:, 0]
            gathered_mX[here_m] = part[index_m[here_m] - start]
            start += len(part)
        return gathered_mX

    def only(self, index_m: Tensor) -> "Rows":
        """Return some of the rows, by (m,) indices in that order, without reading them."""
        index_m = index_m.to(self.parts[0].device)
        return Rows(self.parts, index_m if self.index_n is None else self.index_n[index_m], self.target)

    @staticmethod
    def join(columns: Sequence["Rows"]) -> "Rows":
        """Return the rows of several columns, one after another, without reading them; a shared part is listed once."""
        if all(column.index_n is None for column in columns):
            return Rows(tuple(part for column in columns for part in column.parts), None, columns[0].target)
        starts: dict[int, int] = {}
        parts: list[Tensor] = []
        total, indices = 0, []
        for column in columns:
            own = []
            for part in column.parts:
                if id(part) not in starts:
                    starts[id(part)] = total
                    parts.append(part)
                    total += len(part)
                own.append(torch.arange(len(part), device=part.device) + starts[id(part)])
            numbers = torch.cat(own)
            indices.append(numbers if column.index_n is None else numbers[column.index_n])
        return Rows(tuple(parts), torch.cat(indices), columns[0].target)


Column = Tensor | Rows
"""One value or vector per row: in memory, or read when it is taken."""


def whole(column: Column) -> Tensor:
    """Return a column as one tensor, all of which is then in memory.

    Args:
        column: (n, …).
    """
    return column if isinstance(column, Tensor) else column[:]


def unit(*columns: Column) -> Tensor:
    """Return the rows of columns, one after another and each scaled to length 1, in one new matrix.

    The columns are read a block at a time: nothing but the matrix is as large as they are.

    Args:
        columns: One or more columns (n_i, D) of any floating dtype, on one device.

    Returns:
        (n, D) float32; rows of zeros stay.
    """
    rows_nD = torch.empty((sum(map(len, columns)), columns[0].shape[1]), dtype=torch.float32, device=columns[0].device)
    row = 0
    for column in columns:
        for start in range(0, len(column), _BLOCK_ROWS):
            block_mD = normalize(column[start : start + _BLOCK_ROWS].to(torch.float32), dim=1)
            rows_nD[row : row + len(block_mD)] = block_mD
            row += len(block_mD)
    return rows_nD
