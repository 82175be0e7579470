"""Anchors: the mean embedding of each class that has a label."""

from dataclasses import dataclass

import torch
from torch import Tensor

from alfamix_core.acquisition.types import Labelled

_BLOCK_ROWS = 2048


@dataclass(frozen=True)
class Anchors:
    """The mean embeddings of the labelled samples.

    Attributes:
        classes_C: (C,) int64, ascending, the classes that have a label.
        means_CD: (C, D) float64, the mean embedding of each of them.
        overall_D: (D,) float64, the mean of all labelled embeddings, the anchor of a class without labels.
    """

    classes_C: Tensor
    means_CD: Tensor
    overall_D: Tensor

    def for_mixing(self, classes: int, *, per_class: bool) -> Tensor:
        """Return the anchors for mixing: the mean of all labelled samples stands for a class without labels.

        Args:
            classes: K.
            per_class: Whether it occurs once for each of these classes, in the order of the classes, so that
                every class has a draw of its own; otherwise it occurs once for all of them, at the end.

        Returns:
            (K, D), or (C, D) or (C + 1, D).
        """
        if per_class:
            anchors_KD = self.overall_D.repeat(classes, 1)
            anchors_KD[self.classes_C] = self.means_CD
            return anchors_KD
        return self.means_CD if len(self.classes_C) == classes else torch.cat([self.means_CD, self.overall_D[None]])


def medoids(labelled: Labelled) -> Tensor:
    """Return, for each labelled class, the sample with the smallest sum of squared distances to the others.

    It is the sample nearest to their mean; ties go to the first.

    Args:
        labelled: L >= 1 labelled samples.

    Returns:
        (C, D) float64, classes ascending.
    """
    means = class_means(labelled)
    chosen = []
    for number, mean_D in zip(means.classes_C.tolist(), means.means_CD, strict=True):
        own_m = (labelled.labels_L == number).nonzero()[:, 0]
        blocks = [labelled.embeddings_LD[index_b].to(torch.float64) for index_b in torch.split(own_m, _BLOCK_ROWS)]
        squares_m = torch.cat([(block - mean_D).square_().sum(dim=1) for block in blocks])
        chosen.append(own_m[squares_m.argmin()])
    return labelled.embeddings_LD[torch.stack(chosen)].to(torch.float64)


def class_means(labelled: Labelled) -> Anchors:
    """Return the mean embedding of each labelled class, in float64.

    Args:
        labelled: L >= 1 labelled samples; only embeddings (L, D) and labels are read.

    Returns:
        The anchors, classes ascending.

    Source:
        Parvaneh et al., "Active Learning by Feature Mixing", CVPR 2022, section 3.1: z*_c.
    """
    classes_C, owner_L, counts_C = torch.unique(labelled.labels_L, return_inverse=True, return_counts=True)
    size = (len(classes_C), labelled.embeddings_LD.shape[1])
    sums_CD = torch.zeros(size, dtype=torch.float64, device=labelled.embeddings_LD.device)
    # a block at a time: in float64 all labelled rows would be up to four times as large as they are
    for rows_bD, owner_b in zip(
        torch.split(labelled.embeddings_LD, _BLOCK_ROWS), torch.split(owner_L, _BLOCK_ROWS), strict=True
    ):
        sums_CD.index_add_(0, owner_b, rows_bD.to(torch.float64))
    return Anchors(classes_C, sums_CD / counts_C[:, None], sums_CD.sum(dim=0) / len(labelled))
