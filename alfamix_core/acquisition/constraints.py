"""The rules that a batch of queries must respect. A refused sample is refused permanently."""

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from alfamix_core.acquisition.rows import Column

_BLOCK_ROWS = 2048


class Constraint(Protocol):
    """A rule that judges one sample after another and remembers those that joined the batch."""

    @property
    def words(self) -> str:
        """The rule in a user's words, such as "at most 3 of a group"."""

    def barred(self) -> Tensor | None:
        """Return the rows that the rule refuses whatever the batch holds, (n,) bool; None if they are not known."""

    def accepts(self, index: int) -> bool:
        """Tell whether the sample in that row may join the batch as it stands."""

    def take(self, index: int) -> None:
        """Count the sample in that row as part of the batch."""


class AtMost:
    """A limit on the number of samples with one code, such as a group or a predicted class."""

    def __init__(self, codes_n: Tensor, limits: Mapping[int, int], what: str):
        """Limit the samples of a code.

        Args:
            codes_n: (n,) int64, the code of each row of the scores.
            limits: Largest number of samples by code; a code that is not listed has no limit.
            what: Name of such a code in the singular: "group", "class".
        """
        self._codes_n = codes_n.cpu()
        self._limits = limits
        self._taken: dict[int, int] = {}
        different = set(limits.values())
        self.words = f"at most {min(different)} of a {what}" if len(different) == 1 else f"the limits of each {what}"

    def barred(self) -> Tensor:
        """Return the rows whose codes admit no sample at all."""
        closed = [code for code, limit in self._limits.items() if limit <= 0]
        return torch.isin(self._codes_n, torch.tensor(closed, dtype=torch.int64))

    def accepts(self, index: int) -> bool:
        """Tell whether the sample's code has room."""
        code = int(self._codes_n[index])
        limit = self._limits.get(code)
        return limit is None or self._taken.get(code, 0) < limit

    def take(self, index: int) -> None:
        """Count the sample under its code."""
        code = int(self._codes_n[index])
        self._taken[code] = self._taken.get(code, 0) + 1


class Apart:
    """A minimum distance between the samples of a batch, and from each of them to every labelled sample."""

    def __init__(self, embeddings_nD: Column, distance: float, labelled_LD: Tensor | None = None):
        """Demand a Euclidean distance.

        Args:
            embeddings_nD: (n, D), the embedding of each row of the scores.
            distance: Smallest distance, in the unit of the embeddings, > 0.
            labelled_LD: (L, D) of the labelled samples; None if they do not count.
        """
        self._embeddings_nD = embeddings_nD
        self._distance = distance
        self._labelled_LD = labelled_LD
        # grows by doubling, so that a query copies no other
        self._batch_mD = embeddings_nD[:0].to(torch.float32)
        self._taken = 0
        self.words = f"at least {distance:g} apart"

    def barred(self) -> None:
        """Return None: distances to labelled samples are computed only for rows that are offered."""

    def accepts(self, index: int) -> bool:
        """Tell whether the sample is far enough from all samples of the batch and all labelled ones."""
        row_1D = self._embeddings_nD[index : index + 1].to(torch.float32)
        known = [self._batch_mD[: self._taken]] + ([] if self._labelled_LD is None else [self._labelled_LD])
        blocks = (block for rows_mD in known for block in torch.split(rows_mD, _BLOCK_ROWS))
        # differences, not products: an offset costs no digits
        mode = "donot_use_mm_for_euclid_dist"
        gaps = (torch.cdist(row_1D, block.to(torch.float32), compute_mode=mode) for block in blocks)
        return all(bool((gap_1m >= self._distance).all()) for gap_1m in gaps)

    def take(self, index: int) -> None:
        """Keep the sample's embedding."""
        if self._taken == len(self._batch_mD):
            longer_mD = self._batch_mD.new_empty((max(2 * self._taken, 64), self._batch_mD.shape[1]))
            longer_mD[: self._taken] = self._batch_mD
            self._batch_mD = longer_mD
        self._batch_mD[self._taken] = self._embeddings_nD[index : index + 1][0].to(torch.float32)
        self._taken += 1
