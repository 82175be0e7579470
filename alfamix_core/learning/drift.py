"""How far the embeddings of new samples are from those of the labelled ones, from sums that shards add up.

The distance is the maximum mean discrepancy with the linear kernel, that is the distance between the two means, in its
unbiased form, so that few samples do not look like drift; its unit is the spread of the labelled samples.

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
        count: of them.
        sum_D: (D,) float64, their sum.
        squares: sum of their squared lengths.
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
        """Mean squared distance from the mean, unbiased; needs two samples."""
        return max(0.0, self.squares - float(self.sum_D.square().sum()) / self.count) / (self.count - 1)


@dataclass(frozen=True)
class ShardSums:
    """What a shard tells of its samples.

    Attributes:
        new: moments of the embeddings of the new ones.
        predicted_K: (K,) int64, samples by predicted class, of all.
    """

    new: Moments
    predicted_K: Tensor

    @staticmethod
    def empty(size: int, classes: int) -> "ShardSums":
        """Return those of no samples, with embeddings of a size."""
        return ShardSums(Moments.of(torch.zeros(0, size)), torch.zeros(classes, dtype=torch.int64))

    @staticmethod
    def of(embeddings_nD: Tensor, logits_nK: Tensor, new_n: Tensor) -> "ShardSums":
        """Return those of a block: embeddings (n, D), logits (n, K), and which are new (n,) bool."""
        predicted_K = torch.bincount(logits_nK.argmax(dim=1), minlength=logits_nK.shape[1])
        return ShardSums(Moments.of(embeddings_nD[new_n]), predicted_K)

    def __add__(self, other: "ShardSums") -> "ShardSums":
        return ShardSums(self.new + other.new, self.predicted_K + other.predicted_K)

    def to_tensors(self) -> dict[str, Tensor]:
        """Return them as named tensors, for a file."""
        count, squares = torch.tensor(self.new.count), torch.tensor(self.new.squares, dtype=torch.float64)
        return {"count": count, "sum": self.new.sum_D, "squares": squares, "predicted": self.predicted_K}

    @staticmethod
    def from_tensors(tensors: dict[str, Tensor]) -> "ShardSums":
        """Return what ``to_tensors`` gave."""
        moments = Moments(int(tensors["count"]), tensors["sum"], float(tensors["squares"]))
        return ShardSums(moments, tensors["predicted"])


def total(parts: Iterable[ShardSums]) -> ShardSums:
    """Return the sums of all shards; there is at least one."""
    first, *others = parts
    for other in others:
        first = first + other
    return first


def distance(new: Moments, labelled: Moments) -> float | None:
    """Return the distance of new samples from labelled ones in units of the labelled ones' spread.

    Args:
        new: of the new samples.
        labelled: of the labelled samples.

    Returns:
        sqrt(max(0, unbiased squared distance of the means) / variance of the labelled samples), to six decimals; None
        with fewer than two samples of either kind, or where the labelled ones are all the same.
    """
    if new.count < 2 or labelled.count < 2:
        return None
    spread = labelled.variance
    if spread <= 0:
        return None
    between = float((new.sum_D / new.count - labelled.sum_D / labelled.count).square().sum())
    between -= new.variance / new.count + spread / labelled.count
    return round(math.sqrt(max(0.0, between) / spread), 6)


def shares(predicted_K: Tensor) -> list[float]:
    """Return the share of each class, to six decimals; nothing without samples."""
    count = int(predicted_K.sum())
    return [round(int(each) / count, 6) for each in predicted_K] if count else []
