"""The values that flow through acquisition, and the letters of their shapes.

N pool samples, L labelled samples, n rows of a block or shard, D embedding size, K classes, C classes that have a
label, B budget of a round or number of clusters, T Monte-Carlo passes or draws per choice. A suffix names the shape:
``logits_nK`` is (n, K). Other letters are local: m rows that were chosen out of n, M joint outcomes or rows that are
drawn, a and b rows of two blocks, c rows or classes out of others, l and u members of a run or a cluster, p pairs or
rows of another block, k classes or neighbours of which only some are in memory, d directions of a sketch, q rows that
are clustered, X any further sizes. A digit is itself: ``row_1D`` is (1, D).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from alfamix_core.acquisition.rows import Column, Rows, whole

COLUMNS = frozenset({"embeddings", "logits", "mc_logits", "deepfool"})
"""The columns of ``Features``, as strategies and files name them."""


@dataclass(frozen=True)
class Features:
    """The columns that ``embed`` computed for n pool samples: only those that the strategy declares.

    Attributes:
        positions_n: (n,) int64, ascending and distinct, indices into one snapshot's pool.
        embeddings_nD: (n, D) float16 or float32, or None.
        logits_nK: (n, K) float32, computed from the stored (rounded) embedding, or None.
        mc_logits_nTK: (n, T, K) float32, logits of T passes with dropout, each with masks of its own that all samples
            share; or None.
        deepfool_n: (n,) float32, or None. A number >= 0 is the norm of DeepFool's step, after which the prediction
            changes. Below 0 the prediction did not change within the iterations, and minus the number is the norm of
            the way so far; the lowest finite float32 if no gradient led anywhere.
    """

    positions_n: Tensor
    embeddings_nD: Tensor | None = None
    logits_nK: Tensor | None = None
    mc_logits_nTK: Tensor | None = None
    deepfool_n: Tensor | None = None

    def __len__(self) -> int:
        return len(self.positions_n)

    def column(self, name: str) -> Tensor | None:
        """Return a column by the name that strategies and files give it, or None if it was not computed."""
        return {
            "embeddings": self.embeddings_nD,
            "logits": self.logits_nK,
            "mc_logits": self.mc_logits_nTK,
            "deepfool": self.deepfool_n,
        }[name]


@dataclass(frozen=True)
class Labelled:
    """The features of the labelled samples: the record of a pool shard plus the label.

    Attributes:
        embeddings_LD: (L, D) float16 or float32; L may be 0.
        logits_LK: (L, K) float32.
        labels_L: (L,) int64 in [0, K).
    """

    embeddings_LD: Tensor
    logits_LK: Tensor
    labels_L: Tensor

    def __len__(self) -> int:
        return len(self.labels_L)


@dataclass(frozen=True)
class LinearHead:
    """The last layer of the model: logits = embedding @ weight_KD.T + bias_K.

    Attributes:
        weight_KD: (K, D) float32 or float64.
        bias_K: (K,) of the same dtype.
    """

    weight_KD: Tensor
    bias_K: Tensor

    def __call__(self, embeddings_nD: Tensor) -> Tensor:
        """Return the logits (n, K) of (n, D) embeddings, in the dtype of the embeddings."""
        weight_KD = self.weight_KD.to(embeddings_nD.dtype)
        return embeddings_nD @ weight_KD.T + self.bias_K.to(embeddings_nD.dtype)


Head = LinearHead | Callable[[Tensor], Tensor]
"""A linear head, or any differentiable function from (n, D) embeddings to (n, K) logits."""


@dataclass(frozen=True)
class Scores:
    """One score per sample, and the rows that a later choice may need.

    Attributes:
        positions_n: (n,) int64, ascending and distinct.
        scores_n: (n,) float32; higher is more informative; -inf is legal, NaN and +inf are not.
        rows: More columns by name, each (n, …), such as ``embeddings`` for a clustering; ``Rows`` are left where they
            are until they are needed.
    """

    positions_n: Tensor
    scores_n: Tensor
    rows: Mapping[str, Column] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.positions_n)

    def column(self, name: str) -> Tensor:
        """Return a column of ``rows`` as a tensor; all of it is then in memory."""
        return whole(self.rows[name])

    def take(self, index_m: Tensor) -> "Scores":
        """Return the rows at the given indices (not positions), in that order."""
        return Scores(
            self.positions_n[index_m],
            self.scores_n[index_m],
            {
                name: column.only(index_m) if isinstance(column, Rows) else column[index_m]
                for name, column in self.rows.items()
            },
        )

    @staticmethod
    def merge(parts: list["Scores"]) -> "Scores":
        """Return the rows of all parts in position order; the parts' order does not matter. ``Rows`` are not read.

        Raises:
            ValueError: There is no part, or the parts carry different columns.
        """
        if not parts:
            raise ValueError("merge needs at least one part")
        names = set(parts[0].rows)
        if any(set(part.rows) != names for part in parts):
            raise ValueError("the parts to be merged carry different columns")
        parts = sorted(parts, key=lambda part: int(part.positions_n[0]) if len(part) else -1)
        positions_n = torch.cat([part.positions_n for part in parts])
        order_n = None
        if not bool((positions_n[1:] >= positions_n[:-1]).all()):
            order_n = positions_n.argsort(stable=True)

        def joined(columns: list[Column]) -> Column:
            if all(isinstance(column, Rows) for column in columns):
                rows = Rows.join([column for column in columns if isinstance(column, Rows)])
                return rows if order_n is None else rows.only(order_n)
            column_nX = torch.cat([whole(column) for column in columns])
            return column_nX if order_n is None else column_nX[order_n]

        scores_n = torch.cat([part.scores_n for part in parts])
        return Scores(
            positions_n if order_n is None else positions_n[order_n],
            scores_n if order_n is None else scores_n[order_n],
            {name: joined([part.rows[name] for part in parts]) for name in sorted(names)},
        )


@dataclass(frozen=True)
class Query:
    """A sample chosen for labelling: its rank in the batch (0 is best), position and score."""

    rank: int
    position: int
    score: float
