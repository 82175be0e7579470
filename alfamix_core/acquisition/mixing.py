"""Feature mixing as published: a step towards each anchor at each cap, and a test whether the prediction changes.

``flips`` and ``anchor_rays`` build on it, and the report explains single queries with it.

The paper forms α = ε ‖d‖ g/‖g‖ ⊘ d with d = z*_c - z and mixes z + α ⊙ d. The division and the product cancel:
z' = z + ε ‖d‖ g/‖g‖. Only this step is computed here, and nothing is divided by d. The released code divides by
d + 1e-8 and so drops the step in every coordinate where z*_c equals z (10-20 % of them after a ReLU); we keep it.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from alfamix_core.acquisition.anchors import Anchors
from alfamix_core.acquisition.blocks import map_rows
from alfamix_core.acquisition.types import Head, LinearHead


def direction(embeddings_nD: Tensor, head: Head) -> tuple[Tensor, Tensor]:
    """Return the predicted class and the unit direction in which its loss grows fastest.

    The gradient of the cross-entropy of the predicted class y is (1 - p_y) times the gradient of
    LSE_{k≠y} l_k - l_y, which points the same way and never vanishes however confident the prediction is.

    Args:
        embeddings_nD: (n, D), floating point.
        head: Any differentiable head with K >= 2 classes; each row of its output depends on that row alone.

    Returns:
        The predicted class (n,) int64, the first where logits are equal, and the direction (n, D) of norm 1, or 0
        where the gradient is 0.

    Source:
        Parvaneh et al., CVPR 2022, equation 5.
    """
    with torch.enable_grad():
        leaf_nD = embeddings_nD.detach().clone().requires_grad_(True)
        logits_nK = head(leaf_nD)
        predicted_n = logits_nK.detach().argmax(dim=1)
        others_nK = logits_nK.scatter(1, predicted_n[:, None], -torch.inf)
        growth_n = others_nK.logsumexp(dim=1) - logits_nK.gather(1, predicted_n[:, None])[:, 0]
        (gradient_nD,) = torch.autograd.grad(growth_n.sum(), leaf_nD)
    norm_n1: Tensor = gradient_nD.norm(dim=1, keepdim=True)
    return predicted_n, torch.where(norm_n1 > 0, gradient_nD / norm_n1, 0.0)


def step_lengths(embeddings_nD: Tensor, anchor_D: Tensor, cap: float) -> Tensor:
    """Return the length of the step towards one anchor: cap/√D of the distance to it.

    Args:
        embeddings_nD: (n, D).
        anchor_D: (D,), the same dtype.
        cap: Cap of the schedule, >= 0.

    Returns:
        (n,) lengths in the unit of the embeddings.
    """
    distance_n: Tensor = (anchor_D - embeddings_nD).norm(dim=1)
    return cap / math.sqrt(embeddings_nD.shape[1]) * distance_n


def first_caps(
    rows_nD: Tensor, head: Head, caps: Sequence[float], steps: Iterable[Callable[[float, Tensor], Tensor]]
) -> Tensor:
    """Return the first cap at which a step towards any anchor changes the prediction.

    A sample that has flipped is tested at smaller caps alone.

    Args:
        rows_nD: (n, D), in the dtype that the head sees.
        head: Head whose output rows each depend on their own input row alone.
        caps: Caps, ascending.
        steps: Function per anchor, from a cap and (m,) int64 rows to the steps (m, D) of these rows.

    Returns:
        (n,) float64: one of ``caps``, or +inf where none flips the prediction.

    Source:
        Parvaneh et al., CVPR 2022, algorithm 1 with the schedule of the released code.
    """

    def predict(rows_mD: Tensor) -> Tensor:
        with torch.no_grad():
            return map_rows(lambda block_mD: head(block_mD).argmax(dim=1), rows_mD)

    predicted_n = predict(rows_nD)
    first_n = torch.full(predicted_n.shape, torch.inf, dtype=torch.float64, device=rows_nD.device)
    for step in steps:
        for cap in caps:
            left_m = (first_n > cap).nonzero()[:, 0]
            if not len(left_m):
                break
            flipped_m = predict(rows_nD[left_m] + step(cap, left_m)) != predicted_n[left_m]
            first_n[left_m[flipped_m]] = cap
    return first_n


@dataclass(frozen=True)
class Explanation:
    """Why one sample was a candidate.

    Attributes:
        predicted: Class that the model predicts.
        anchor: Class whose anchor was mixed in: the farthest anchor that flips the sample, or the farthest if none
            does.
        flips_to: Class predicted after mixing; None if the prediction stays.
        step: Length of the step, in the unit of the embeddings.
        distance: Distance to that anchor, in the same unit.
    """

    predicted: int
    anchor: int
    flips_to: int | None
    step: float
    distance: float


def explain(embedding_D: Tensor, anchors: Anchors, head: Head, cap: float) -> Explanation:
    """Tell into which class one sample flips at a cap, and towards which anchor.

    Args:
        embedding_D: (D,) one pool sample.
        anchors: Anchors of the labelled samples.
        head: Head that scored the sample.
        cap: Cap; any above the sample's critical cap shows its flip.

    Returns:
        The explanation; anchors are tried from the farthest to the nearest, equal distances by class.
    """
    dtype = torch.float64 if isinstance(head, LinearHead) else torch.promote_types(embedding_D.dtype, torch.float32)
    sample_1D = embedding_D.to(dtype)[None]
    means_CD = anchors.means_CD.to(dtype)
    predicted_n, direction_nD = direction(sample_1D, head)
    predicted = int(predicted_n)
    distances_C = (means_CD - sample_1D).norm(dim=1)
    tried = []
    for index in distances_C.sort(descending=True, stable=True).indices.tolist():
        step = float(step_lengths(sample_1D, means_CD[index], cap))
        after = int(head(sample_1D + step * direction_nD).argmax(dim=1))
        anchor, distance = int(anchors.classes_C[index]), float(distances_C[index])
        tried.append(Explanation(predicted, anchor, None if after == predicted else after, step, distance))
        if after != predicted:
            return tried[-1]
    return tried[0]
