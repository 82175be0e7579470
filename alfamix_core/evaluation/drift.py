"""The distance between the embeddings of new samples and those of the labelled ones, from sums over shards.

The distance is the maximum mean discrepancy with the linear kernel, which is the distance between the two means. Its
unbiased form keeps a small number of samples from looking like drift. Its unit is the spread of the labelled samples.

Source:
    Gretton, Borgwardt, Rasch, Schölkopf, Smola, "A Kernel Two-Sample Test", JMLR 13 (2012), Lemma 6, equation 3.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Moments:
    """Sums over embeddings.

    Attributes:
        count: Number of embeddings.
        sum_D: (D,) float64, sum of the embeddings.
        squares: Sum of their squared lengths.
    """

    count: int
    sum_D: Tensor
    squares: float

    @staticmethod
    def of(embeddings_nD: Tensor) -> "Moments":
        """Return the moments of embeddings (n, D), any floating dtype; n may be 0."""
        rows_nD = embeddings_nD.to(torch.float64)
        return Moments(len(rows_nD), rows_nD.sum(dim=0), float(rows_nD.square().sum()))

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(self.count + other.count, self.sum_D + other.sum_D, self.squares + other.squares)

    @property
    def variance(self) -> float:
        """Unbiased mean squared distance from the mean; needs at least two samples."""
        return max(0.0, self.squares - float(self.sum_D.square().sum()) / self.count) / (self.count - 1)


@dataclass(frozen=True)
class ShardSums:
    """Sums over the samples of a shard.

    Attributes:
        new: Moments of the embeddings of the new samples.
        predicted_K: (K,) int64, number of all samples by predicted class.
    """

    new: Moments
    predicted_K: Tensor

    @staticmethod
    def empty(size: int, classes: int) -> "ShardSums":
        """Return the sums over no samples, for embeddings of the given size."""
        return ShardSums(Moments.of(torch.zeros(0, size)), torch.zeros(classes, dtype=torch.int64))

    @staticmethod
    def of(embeddings_nD: Tensor, logits_nK: Tensor, new_n: Tensor) -> "ShardSums":
        """Return the sums over a block of embeddings (n, D) and logits (n, K); new_n (n,) bool marks new samples."""
        predicted_K = torch.bincount(logits_nK.argmax(dim=1), minlength=logits_nK.shape[1])
        return ShardSums(Moments.of(embeddings_nD[new_n]), predicted_K)

    def __add__(self, other: "ShardSums") -> "ShardSums":
        return ShardSums(self.new + other.new, self.predicted_K + other.predicted_K)

    def to_tensors(self) -> dict[str, Tensor]:
        """Return the sums as named tensors, for a file."""
        count, squares = torch.tensor(self.new.count), torch.tensor(self.new.squares, dtype=torch.float64)
        return {"count": count, "sum": self.new.sum_D, "squares": squares, "predicted": self.predicted_K}

    @staticmethod
    def from_tensors(tensors: dict[str, Tensor]) -> "ShardSums":
        """Return the sums from the tensors of ``to_tensors``."""
        moments = Moments(int(tensors["count"]), tensors["sum"], float(tensors["squares"]))
        return ShardSums(moments, tensors["predicted"])


def total(parts: Iterable[ShardSums]) -> ShardSums:
    """Return the sums over all shards, at least one."""
    first, *others = parts
    for other in others:
        first = first + other
    return first


def distance(new: Moments, labelled: Moments) -> float | None:
    """Return the distance between new and labelled samples, in units of the labelled samples' spread.

    Args:
        new: Moments of the new samples.
        labelled: Moments of the labelled samples.

    Returns:
        sqrt(max(0, unbiased squared distance of the means) / variance of the labelled samples), to six decimals; None
        with fewer than two samples of either kind, or if all labelled samples are equal.
    """
    if new.count < 2 or labelled.count < 2:
        return None
    spread = labelled.variance
    if spread <= 0:
        return None
    squared_distance = float((new.sum_D / new.count - labelled.sum_D / labelled.count).square().sum())
    squared_distance -= new.variance / new.count + spread / labelled.count
    return round(math.sqrt(max(0.0, squared_distance) / spread), 6)


def shares(predicted_K: Tensor) -> list[float]:
    """Return the share of each class, to six decimals; an empty list without samples."""
    total_count = int(predicted_K.sum())
    return [round(int(count) / total_count, 6) for count in predicted_K] if total_count else []
